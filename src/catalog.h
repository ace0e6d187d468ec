/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  Everything that reads or writes the extension's own tables, except for
 *	  the batches (batch.h).  Each function switches to the extension's owner
 *	  by itself and back; all run in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CATALOG_H
#define MIGRATE_EXT_CATALOG_H

#include "nodes/pg_list.h"
#include "types.h"
#include "utils/snapshot.h"

extern const char *state_name(MigrationState state);
extern MigrationState state_from_name(const char *name); /* 22023 if unknown */

/*
 * Load by id or name, into CurrentMemoryContext.  for_update locks the row.
 * catalog_load: NULL if there is none.  catalog_find: 42704 if there is none,
 * 42501 unless the current user has the privileges of the migration's owner.
 */
extern Migration *catalog_load(int64 id, bool for_update);
extern Migration *catalog_find(const char *name, bool for_update);
/* the same for who may look only: members of pg_monitor, too */
extern Migration *catalog_find_visible(const char *name);
extern bool catalog_is_visible(const Migration *m);
/* for triggers: reads with the latest snapshot whatever the isolation level */
extern Migration *catalog_load_latest(int64 id);
/* the unfinished migration of kind "partition" whose source or target is relid, or NULL */
extern Migration *catalog_of_table(Oid relid);

/*
 * Migrations of kind "key" fill a column in place: they have neither target nor
 * log, and any number of them may exist beside one of kind "partition".
 */
extern bool migration_is_key(const Migration *m);
/* 55000 for one of kind "key": the call needs a target */
extern void migration_require_target(const Migration *m, const char *call);
/* 55000 for one that has ended, or is being cancelled */
extern void migration_require_unfinished(const Migration *m);
/*
 * Whose it is: the source's owner; where that was dropped the target's, or of kind
 * "key" who owned the source at first.  InvalidOid if there is nobody.
 */
extern Oid migration_owner(const Migration *m);
/* Is there nothing that a leader would do, until somebody asks for it? */
extern bool migration_is_idle(const Migration *m);
/* unfinished ones of kind "key" of a table: List of Migration * */
extern List *catalog_key_migrations(Oid source);

/* the unfinished migration of this name, or NULL; checks no rights */
extern Migration *catalog_unfinished_named(const char *name);

/* Ids of unfinished migrations (for the launcher); List of int64 pointers. */
extern List *catalog_unfinished(void);

/* Inserts m (id and created_at are set by it); 42710 if the name is taken. */
extern void catalog_insert(Migration *m);
extern void catalog_forget(int64 id);

/*
 * Updates.  Each changes m as well.  "save_" is called within the
 * transaction that did the work the value speaks of.
 */
extern void catalog_save_goal(Migration *m, MigrationState goal, Jsonb *request);
extern void catalog_save_pause(Migration *m, bool paused, const char *reason);
extern void catalog_save_error(Migration *m, const char *message); /* NULL clears */
extern void catalog_save_setting(Migration *m, const char *setting, const char *value);
extern void catalog_save_horizon(Migration *m);				 /* horizon, end_block, relfilenode,
												 * epoch, log, source_shape,
												 * target_shape */
extern void catalog_save_shapes(Migration *m);				 /* source_shape, target_shape */
extern void catalog_save_trigger(Migration *m);				 /* trigger_oid, trigger_xmin, tainted;
												 * it is mended then */
extern void catalog_save_tainted(Migration *m);				 /* sets tainted and needs_mending */
extern void catalog_save_stable(Migration *m);				 /* stable_xid := this transaction;
												 * also clears verified_at */
extern void catalog_save_analyzed(Migration *m);			 /* analyzed_at := now */
extern void catalog_forget_analyzed(Migration *m);			 /* analyzed_at := 0 */
extern void catalog_save_verified(Migration *m, bool clean); /* verified_at := now
																 * or cleared */

/* State change; only state.c calls it. */
extern void catalog_save_state(Migration *m, MigrationState state);

/*
 * Record an event and NOTIFY it on channel migrate_ext.  detail may be NULL;
 * it is JSON text.
 */
extern void event_add(Migration *m, const char *kind, const char *detail, const char *fmt, ...)
	pg_attribute_printf(4, 5);

/* Events of a migration after this one, oldest first: List of Event *. */
typedef struct Event
{
	int64 id;
	char *kind;
	char *message;
	char *detail;
} Event;

extern List *event_since(int64 migration_id, int64 after);
extern int64 event_last_id(int64 migration_id);
/* of the last one of this kind, JSON text; NULL if there is none */
extern char *event_last_detail(int64 migration_id, const char *kind);
extern bool event_exists(int64 migration_id, const char *kind);
extern bool event_lacks_worker(int64 migration_id);

/* TRUNCATE markers: written by the trigger, insert only, so it never waits. */
extern void truncation_mark(int64 migration_id);
extern bool truncation_pending(int64 migration_id); /* with the latest snapshot */
extern void truncation_clear(int64 migration_id);

/* The drain's place in the change log, see drain.c; text of pg_snapshot. */
typedef struct DrainPlace
{
	char *done; /* all entries this snapshot sees are drained */
	char *pass; /* taken when the current pass began, or NULL */
	uint64 xid; /* the pass's position: after (xid, n) */
	int64 n;
} DrainPlace;

extern void drain_place_load(int64 migration_id, DrainPlace *place);
extern void drain_place_save(int64 migration_id, const DrainPlace *place);
extern void drain_place_reset(int64 migration_id);

/* Rows that could not be carried; identity is a jsonb object by column name. */
/*
 * Rows that failed in one direction are tried again in that direction only, and
 * keep only that swap back: those that finalize was told to accept are the
 * original's alone, and an undo leaves them there.  "Due" are those of m's
 * present direction.
 */
extern void failed_row_add(int64 migration_id, Direction direction, Jsonb *identity, int sqlerrcode,
						   const char *message);
extern void failed_row_remove(int64 migration_id, Jsonb *identity);
/* the same error for each element of an array of identities */
extern void failed_rows_add(int64 migration_id, Jsonb *identities, int sqlerrcode,
							const char *message);
/* how many of an array of identities are failed rows */
extern int64 failed_rows_among(int64 migration_id, Jsonb *identities);
/* forget those that have not been tried since */
extern void failed_rows_forget(int64 migration_id, TimestampTz since);
extern int64 failed_row_count(int64 migration_id);
extern int64 failed_row_due(const Migration *m);
extern List *failed_row_identities(const Migration *m, bool due); /* List of Jsonb * */

/* Results of verification and swaps */
typedef struct VerifyCounts
{
	int64 checked;
	int64 missing;
	int64 extra;
	int64 different;
	int64 skipped;
	int64 failed;
	int64 stale_key;
} VerifyCounts;

/* mark: guard_mark() of the partitions, if it was clean and holds; or NULL */
extern void verification_add(int64 migration_id, const VerifyCounts *counts, bool complete,
							 const int64 *mark);
/* Is this the mark of the last one that has any? */
extern bool verification_has_mark(int64 migration_id, int64 mark);

/*
 * swap_add returns the swap's id, so that its hold time can be written after
 * the commit by swap_save_hold in a transaction of its own.
 */
extern int64 swap_add(int64 migration_id, const char *direction, int attempts, double wait_ms,
					  const char *blockers_json);
extern void swap_save_hold(int64 swap_id, double hold_ms);

#endif
