/*-------------------------------------------------------------------------
 *
 * install.c
 *	  created -> logging: the change log, the sync trigger, the horizon.  And
 *	  the same again where a copy must start over, or a trigger was tampered
 *	  with.
 *
 * Under SHARE ROW EXCLUSIVE no transaction has an uncommitted write on the
 * source.  The horizon is the oldest transaction still running then: a row
 * version older than it was there before the trigger, and every change from now
 * on is logged.  The lock is waited for in short attempts, each a transaction
 * of its own, so that nobody queues behind us for long.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "batch.h"
#include "catalog.h"
#include "changelog.h"
#include "debug_point.h"
#include "index_drop.h"
#include "install.h"
#include "lock_queue.h"
#include "other_triggers.h"
#include "reconcile.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "sync_trigger.h"

/* See install.h. */
void
install_lock_front(const Migration *m)
{
	Oid front = front_of(m, direction_of(m));
	Relation rel;

	lock_queue_lock(front, ShareRowExclusiveLock);
	rel = try_table_open(front, NoLock);
	if (rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("the table of migration \"%s\" has been dropped", m->name),
						errhint("Call migrate_ext.cancel to end the migration.")));
	CheckTableNotInUse(rel, "migrate");
	table_close(rel, NoLock);
}

/* The same in a step of the leader's, bounded. */
static void
lock_front(Run *run)
{
	run_limit_lock_waits(run);
	install_lock_front(run->m);
}

/* xmin of a fresh snapshot, as a 64-bit transaction id */
static FullTransactionId
oldest_running(void)
{
	TransactionId xmin = GetLatestSnapshot()->xmin;
	FullTransactionId next = ReadNextFullTransactionId(); /* so not below xmin */
	uint32 epoch = EpochFromFullTransactionId(next);

	/* xmin precedes next: where it is numerically above, the counter wrapped between */
	if (xmin > XidFromFullTransactionId(next))
		epoch--;
	return FullTransactionIdFromEpochAndXid(epoch, xmin);
}

/* What holds from now on, all of it in this transaction. */
static void
record_horizon(Migration *m)
{
	m->horizon = oldest_running();
	/* a target that had rows before isn't copied to, but compared: see reconcile.c */
	m->end_block = reconcile_adopted(m) ? 0 : relinfo_blocks(m->source);
	m->relfilenode = relinfo_relfilenode(m->source);
	m->source_shape = relinfo_shape(m->source);
	m->target_shape = relinfo_target_shape(m->target);
	m->tainted = false;
	catalog_save_horizon(m);
	sync_trigger_set(m, SYNC_LOG);
	truncation_clear(m->id);
	drain_place_reset(m->id);
}

/* See install.h. */
void
install_in_transaction(Migration *m)
{
	guard_check_source(m);
	other_triggers_check(m);
	LockRelationOid(m->target, RowExclusiveLock);
	if (get_rel_name(m->target) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("the target of migration \"%s\" has been dropped", m->name),
						errhint("Call migrate_ext.cancel to end the migration.")));
	changelog_create(m);
	record_horizon(m);
	ME_DEBUG_POINT("install_before_commit");
	state_change(m, STATE_LOGGING, "sync trigger installed: changes of %s are logged",
				 sql_qualified(m->schema_name, m->table_name));
}

static void
install_body(Run *run, void *arg)
{
	lock_front(run);
	install_in_transaction(run->m);
}

StepResult
install_step(Run *run)
{
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	bool ok;

	if (!attempt_due(run))
		return STEP_WAIT;
	run_report(run, "installing the sync trigger");
	ok = run_attempt(run, install_body, NULL, &error);
	return attempt_result(run, ok, error, began);
}

static void
restart_body(Run *run, void *arg)
{
	Migration *m = run->m;
	bool adopted = reconcile_adopted(m);

	lock_front(run);
	guard_check_source(m);

	/*
	 * The target may have its reverse triggers already.  One that somebody disabled on the
	 * source looks to them as after a swap: their TRUNCATE would empty the source.
	 */
	sync_trigger_set(m, SYNC_LOG);
	run_as_owner(run);
	if (!adopted || truncation_pending(m->id))
		(void) sql_run("TRUNCATE TABLE %s", sql_relation(m->target));
	if (!adopted)
		index_drop_all(m->target); /* the copy writes without minding any */
	run_as_self(run);
	if (adopted)
		reconcile_ask(m, true);
	else
		reconcile_forget(m);
	changelog_truncate(m);
	failed_rows_forget(m->id, GetCurrentTimestamp()); /* all rows are looked at anew */
	m->epoch++;
	batch_reset(m);
	record_horizon(m);
	ME_DEBUG_POINT("restart_before_commit");
	state_change(m, STATE_LOGGING, "the copy of %s starts over",
				 sql_qualified(m->schema_name, m->table_name));
}

/*
 * Back to logging: the target and the log are emptied and a new horizon is
 * taken.  The new epoch makes batches of the old one void.  A target that had
 * rows before keeps them, and is compared again from the beginning; but where
 * the source was truncated it is emptied as well, since to take away row by row
 * what is gone would take long.
 */
StepResult
install_restart_step(Run *run)
{
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	bool ok;

	if (!attempt_due(run))
		return STEP_WAIT;
	run_report(run, "starting the copy over");
	ok = run_attempt(run, restart_body, NULL, &error);
	return attempt_result(run, ok, error, began);
}

/*
 * Partitions that somebody made or took away are no harm where everything is
 * verified again: the mirror looks for places anew.
 */
static void
accept_partitions(Migration *m)
{
	char *shape = relinfo_target_shape(m->target);

	if (!relinfo_same_columns(m->target_shape, shape))
		return;
	m->target_shape = shape;
	catalog_save_shapes(m);
}

static void
mend_body(Run *run, void *arg)
{
	Migration *m = run->m;

	lock_front(run);
	if (m->state == STATE_SWAPPED)
	{
		/* somebody may have dropped the original's trigger, or enabled it again */
		sync_trigger_set(m, SYNC_WRITE_THROUGH);
		sync_trigger_flip(m, DIRECTION_REVERSE);
		sync_trigger_prepare_reverse(m);
	}
	else
		sync_trigger_set(m, SYNC_WRITE_THROUGH);
	accept_partitions(m);
	m->tainted = true; /* until a clean verification */
	catalog_save_trigger(m);
	catalog_save_verified(m, false);
	ME_DEBUG_POINT("mend_before_commit");
	event_add(m, "mended", NULL,
			  "sync trigger put right; everything is verified again before the next swap");
}

/* Live or swapped: the trigger is put right, and what was verified no longer counts. */
StepResult
install_mend_step(Run *run)
{
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	bool ok;

	if (!attempt_due(run))
		return STEP_WAIT;
	ok = run_attempt(run, mend_body, NULL, &error);
	return attempt_result(run, ok, error, began);
}
