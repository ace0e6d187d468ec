/*-------------------------------------------------------------------------
 *
 * sync_trigger.h
 *	  Creating, switching, checking and dropping the sync trigger; what it
 *	  does when it fires is in sync.c.
 *
 * Names: "!migrate_ext_sync" (row) and "!migrate_ext_truncate" on the source;
 * "!migrate_ext_reverse" and "!migrate_ext_reverse_truncate" on the target and
 * each of its leaves.  '!' sorts before every other trigger name.
 *
 * Which direction is in force is told by ONE catalog field, the tgenabled of
 * the source's row trigger: 'A', the source is the front (forward); anything
 * else, the target is (reverse).  The swap so flips one row of pg_trigger
 * whatever the number of partitions; a writer sees it through relcache
 * invalidation when it locks the table, whatever its snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SYNC_TRIGGER_H
#define MIGRATE_EXT_SYNC_TRIGGER_H

#include "nodes/pg_list.h"
#include "types.h"
#include "utils/relcache.h"

#define SYNC_TRIGGER_NAME OUR_TRIGGER_PREFIX "sync"
#define TRUNCATE_TRIGGER_NAME OUR_TRIGGER_PREFIX "truncate"
#define REVERSE_TRIGGER_NAME OUR_TRIGGER_PREFIX "reverse"
#define REVERSE_TRUNCATE_TRIGGER_NAME OUR_TRIGGER_PREFIX "reverse_truncate"

typedef enum SyncMode
{
	SYNC_LOG,
	SYNC_WRITE_THROUGH
} SyncMode;

/*
 * Create or replace the source's triggers in this mode, ENABLE ALWAYS, with
 * dependencies on target and log; saves trigger_oid and trigger_xmin.
 * Caller: superuser, holds ShareRowExclusiveLock on the source.
 */
extern void sync_trigger_set(Migration *m, SyncMode mode);

/* Make the reverse triggers on target and leaves (dormant until the swap). */
extern void sync_trigger_prepare_reverse(Migration *m);

/* Flip the direction (see above).  Caller holds AccessExclusiveLock on both. */
extern void sync_trigger_flip(Migration *m, Direction direction);

/* True if the source's row trigger is enabled always: forward is in force. */
extern bool sync_trigger_is_forward(Relation source);

/*
 * Compare the trigger with what we left: NULL if it is as it should be in this
 * direction, else what is wrong, as text.
 */
extern char *sync_trigger_problem(Migration *m);

/* Which transaction last touched the reverse row trigger of target or leaf; invalid: none. */
extern TransactionId sync_trigger_reverse_xmin(Oid relid);

/* Drop all of them that are there.  Caller holds AccessExclusiveLock, or gets it. */
extern void sync_trigger_drop(Migration *m);

/*
 * The statements that do this, in order; List of char *.  For those who tell
 * before what will be done (plan.c), and for the functions above: row trigger,
 * TRUNCATE trigger and their enabling; the source by its name, as the swap has
 * given it another one; the reverse row trigger; and the other of one table.
 */
extern List *sync_trigger_set_sql(const Migration *m, SyncMode mode);
extern char *sync_trigger_flip_sql(const char *source, Direction direction);
extern List *sync_trigger_reverse_sql(const Migration *m);
extern List *sync_trigger_reverse_truncate_sql(const Migration *m, Oid relid);

#endif
