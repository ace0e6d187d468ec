/*-------------------------------------------------------------------------
 *
 * cleanup.c
 *	  The two ends of a migration: completed and cancelled.
 *
 *		complete	swapped -> completed	triggers and log go, the original is
 *											dropped or stays as a plain table
 *		cancel		any before swapped		triggers and log go, and the target
 *					-> cancelled			if we made it; one that was given to us
 *											stays with its rows, without our indexes
 *
 * Each is one transaction, in bounded attempts at the locks: either all of it
 * is there or nothing of it is gone, so after a crash it is simply made again.
 * What somebody else dropped in the meantime is passed over.
 *
 * The order is that of the dependencies: the triggers depend on target and log
 * (which keeps a DROP TABLE by accident from happening), so they go first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "carry.h"
#include "carry_fk_in.h"
#include "catalog.h"
#include "changelog.h"
#include "debug_point.h"
#include "index_drop.h"
#include "lock_queue.h"
#include "partman.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "swap_request.h"
#include "sync.h"
#include "sync_trigger.h"

static bool
table_exists(Oid relid)
{
	return OidIsValid(relid) && get_rel_name(relid) != NULL;
}

/*
 * The migration's row, locked before any table, for the reason told in
 * swap_transaction.c; false if it isn't to go to this state any more.
 */
static bool
lock_row(Run *run, MigrationState goal)
{
	run->m = catalog_load(run->migration_id, true);
	return run->m != NULL && run->m->goal == goal && run->m->state < STATE_COMPLETED;
}

static void
lock_table(Oid relid)
{
	if (table_exists(relid))
		lock_queue_lock(relid, AccessExclusiveLock);
}

/*
 * Drop a table with the rights of its owner.  2BP01 if something depends on it.
 * Partitions are locked one by one here: not for ever either.
 */
static void
drop_table(Migration *m, Oid relid)
{
	UserSwitch user;

	if (!table_exists(relid))
		return;
	user_switch_owner(&user, relinfo_owner(relid));
	limit_lock_waits(m);
	lock_queue_watch(true);
	(void) sql_run("DROP TABLE %s", sql_relation(relid));
	lock_queue_watch(false);
	user_switch_back(&user);
}

/* A target that was given to us is to be as it was given, but for the rows. */
static void
drop_indexes(Migration *m)
{
	UserSwitch user;

	user_switch_owner(&user, relinfo_owner(m->target));
	limit_lock_waits(m);
	index_drop_made(m);
	user_switch_back(&user);
}

/* Triggers first, then the log that they write. */
static void
drop_sync(Migration *m)
{
	sync_trigger_drop(m);
	CommandCounterIncrement();
	changelog_drop(m);
	truncation_clear(m->id);
	catalog_save_horizon(m); /* saves that there is no log */
}

/* ------------------------------------------------------------------------
 * Completed
 * ------------------------------------------------------------------------
 */

/* The original is complete until its triggers go, unless rows wait to be carried back. */
static void
tell_original(Migration *m, int64 pending)
{
	if (pending > 0)
		event_add(m, "original", NULL,
				  "%s is kept as it is: " INT64_FORMAT " or more of its rows were not carried back",
				  sql_relation(m->source), pending);
	else
		event_add(m, "original", NULL, "%s is kept as it is", sql_relation(m->source));
}

static void
complete_body(Run *run, void *arg)
{
	Migration *m;
	SwapRequest *request;
	bool drop_fks;
	int64 pending;

	sync_release();
	if (!lock_row(run, STATE_COMPLETED))
		return;
	m = run->m;
	request = swap_request_read(m);
	drop_fks = request->incoming_fks == INCOMING_FKS_DROP;
	run_limit_lock_waits(run);
	fk_in_lock(m, m->source, drop_fks);
	lock_table(m->target); /* as writers do now: see swap_transaction.c */
	lock_table(m->source);
	ME_DEBUG_POINT("complete_locked");
	/* reverse sync has kept them true so far, from now on nothing would */
	fk_in_settle(m, m->source, drop_fks, true);
	pending = table_exists(m->log) ? changelog_pending(m, 1) + failed_row_due(m) : 0;
	drop_sync(m);
	if (request->drop_original)
		drop_table(m, m->source);
	else if (table_exists(m->source))
	{
		if (table_exists(m->target))
			carry_leave(m, m->source);
		tell_original(m, pending);
	}
	if (request->pg_partman)
		partman_register(m, request->pg_partman);
	state_change(m, STATE_COMPLETED, "%s is completed%s",
				 sql_qualified(m->schema_name, m->table_name),
				 request->drop_original ? ", the original dropped" : "");
}

/* ------------------------------------------------------------------------
 * Cancelled
 * ------------------------------------------------------------------------
 */

static void
cancel_body(Run *run, void *arg)
{
	Migration *m;

	sync_release();
	if (!lock_row(run, STATE_CANCELLED) || run->m->state >= STATE_SWAPPED)
		return;
	m = run->m;
	run_limit_lock_waits(run);
	fk_in_lock(m, m->target, false);
	if (m->state > STATE_CREATED)
		lock_table(m->source);
	lock_table(m->target);
	ME_DEBUG_POINT("cancel_locked");
	fk_in_settle(m, m->target, false, false);
	drop_sync(m);
	if (m->made_target)
		drop_table(m, m->target);
	else if (table_exists(m->target))
	{
		if (table_exists(m->source))
			carry_leave(m, m->target);
		drop_indexes(m);
	}
	state_change(m, STATE_CANCELLED, "%s is cancelled%s",
				 sql_qualified(m->schema_name, m->table_name),
				 table_exists(m->source) ? ": the table is as it was before" : "");
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

/* Is the request still there, and still meant? */
static bool
request_holds(Run *run, MigrationState goal)
{
	bool holds;

	run_begin(run);
	holds = run->m != NULL && run->m->goal == goal && run->m->state < STATE_COMPLETED &&
			swap_request_holds(run->m, swap_request_read(run->m));
	run_commit(run);
	return holds;
}

static StepResult
finish(Run *run, MigrationState goal, RunBody body)
{
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();

	if (!request_holds(run, goal) || run_attempt(run, body, NULL, &error))
		return STEP_DONE;
	if (!attempt_is_lock_failure(error))
	{
		attempt_refuse(run, error);
		return STEP_DONE;
	}
	attempt_failed(run, began, TimestampDifferenceMilliseconds(began, GetCurrentTimestamp()));
	return STEP_MORE;
}

StepResult
complete_step(Run *run)
{
	run_report(run, "completing");
	return finish(run, STATE_COMPLETED, complete_body);
}

StepResult
cancel_step(Run *run)
{
	run_report(run, "cancelling");
	return finish(run, STATE_CANCELLED, cancel_body);
}
