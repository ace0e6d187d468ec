/*-------------------------------------------------------------------------
 *
 * straggler.h
 *	  Keeps statements that waited for a swap from writing to the table that was
 *	  swapped out.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_STRAGGLER_H
#define MIGRATE_EXT_STRAGGLER_H

#include "nodes/pg_list.h"
#include "types.h"

/* A statement trigger on both tables, enabled always on that which is not in use. */
#define STRAGGLER_TRIGGER_NAME OUR_TRIGGER_PREFIX "straggler"

/* Is it there, and in the state that it is to have? */
extern bool straggler_is_in_place(Oid relid, bool enabled);

/* Make it so, as superuser: ShareRowExclusiveLock on the table. */
extern void straggler_put(Oid relid, bool enabled);

/* The statements that do, none where it is so; List of char *. */
extern List *straggler_put_sql(Oid relid, bool enabled);

/* The same for a trigger that is there; none is made. */
extern void straggler_switch(Oid relid, bool enabled);
extern char *straggler_switch_sql(const char *table, bool enabled);

#endif
