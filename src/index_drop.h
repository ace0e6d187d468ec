/*-------------------------------------------------------------------------
 *
 * index_drop.h
 *	  Dropping the target's indexes: all where the copy starts over, ours where
 *	  a target that isn't ours stays behind.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_INDEX_DROP_H
#define MIGRATE_EXT_INDEX_DROP_H

#include "types.h"

/* Write down which indexes an adopted target has from before. */
extern void index_record_given(Migration *m);

/* Write down that the others which the target has now were made by us. */
extern void index_record_made(Migration *m);

/*
 * Both are called as the target's owner, in a transaction that may lock the
 * target and its partitions.  What hangs on an index makes them fail: 2BP01.
 */
extern void index_drop_all(Oid target);
extern void index_drop_made(Migration *m);

#endif
