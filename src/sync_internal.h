/*-------------------------------------------------------------------------
 *
 * sync_internal.h
 *	  What the files of the sync trigger share: sync.c (rows), sync_open.c
 *	  (what is open), sync_cache.c (what a session knows of migrations),
 *	  sync_truncate.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SYNC_INTERNAL_H
#define MIGRATE_EXT_SYNC_INTERNAL_H

#include "changelog.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mirror.h"
#include "types.h"
#include "utils/resowner.h"

/* A table that a sync trigger fired on, and the migration that it serves. */
typedef struct SyncTable
{
	/* hash key */
	int64 migration_id;
	Oid relid;
	Direction direction;

	bool valid;			   /* false: something has changed, look again */
	bool loaded;		   /* false: so far, looking has failed */
	bool usable;		   /* false: do nothing */
	bool warned;		   /* once a session is enough */
	bool log_fits;		   /* values may be put into the log */
	MemoryContext context; /* of what follows */
	Migration *m;
	LogColumns columns;
	AttrNumber *attnums; /* of relid, by column of the log; 0: not there */
} SyncTable;

/*
 * Check the protocol, and find the table's entry.  NULL: the trigger has
 * nothing to do, a WARNING has said why.  Errors: 39P01 where the function is
 * called in another way than as our trigger.
 */
extern SyncTable *sync_table(FunctionCallInfo fcinfo, Direction direction, bool row);

/* Say once in a session that rows of this table are not carried over. */
extern void sync_warn(SyncTable *table, const char *reason);

/*
 * The target was written while forward is in force: 40001 if that was not so
 * when the statement began.
 */
extern void sync_check_late(SyncTable *table);

extern void sync_cache_init(void);

/* What is open in this session for a migration. */
typedef struct SyncOpen
{
	int64 migration_id;
	Direction direction;
	MemoryContext context; /* this struct's */
	Mirror *mirror;		   /* NULL: not open, or not to be opened */

	/* of the transaction: all zero between two */
	ResourceOwner owner; /* NULL: nothing is open, the mirror rests */
	bool mirror_awake;
	bool mirror_failed; /* everything is logged instead */
	bool marked;		/* the copy has been told to start over */
	MemoryContext log_context;
	ChangeLog *log; /* NULL: not open */
} SyncOpen;

/* Of a table's migration; its transaction's part is there. */
extern SyncOpen *sync_open(SyncTable *table);
extern Mirror *sync_open_mirror(SyncTable *table, SyncOpen *open);
extern ChangeLog *sync_open_log(SyncTable *table, SyncOpen *open);

/* Close what is open for this migration; an error if it is in use. */
extern void sync_release_migration(int64 migration_id);

#endif
