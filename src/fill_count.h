/*-------------------------------------------------------------------------
 *
 * fill_count.h
 *	  How often, and when last, a row was inserted without its sharding key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_FILL_COUNT_H
#define MIGRATE_EXT_FILL_COUNT_H

#include "types.h"

/*
 * Make the counter of a key that is filled, in the current transaction; the
 * caller is superuser.  Counters of keys that are no more go.
 */
extern void fill_count_create(int64 key, Oid source);

/* The counter of a key, or InvalidOid. */
extern Oid fill_count_find(int64 key);

/*
 * A row is being inserted without its key.  *noted is the caller's, for this
 * counter, 0 at first.  Takes RowExclusiveLock on the counter and never waits
 * for another writer's transaction.  False if the counter is gone.
 */
extern bool fill_count_add(Oid counter, int64 *noted);

#endif
