/*-------------------------------------------------------------------------
 *
 * golive.c
 *	  catching_up -> live.
 *
 * The way back is paved (reverse.c), and where the target had rows before, or the
 * source was rewritten since it was copied, both tables are compared.  The log is
 * drained without locking anybody out until little is left.  Then one bounded
 * attempt takes SHARE ROW EXCLUSIVE on the source: no writer has anything
 * uncommitted.  The rest is drained, the trigger turned to write-through and the
 * state changed, in that transaction.  From its commit on every transaction that
 * writes the source writes the target as well, so the two are equal in every
 * snapshot taken after it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "catalog.h"
#include "changelog.h"
#include "debug_point.h"
#include "lock_queue.h"
#include "other_triggers.h"
#include "reconcile.h"
#include "relinfo.h"
#include "reverse.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "sync_trigger.h"
#include "throttle.h"

/*
 * The most entries that are drained while writers are locked out.  At 100,000
 * identities a second this is a hold of about 10 ms.
 */
#define GOLIVE_MAX_ENTRIES 1000

/*
 * VACUUM FULL and CLUSTER write the same rows into a new file; ALTER TABLE ... USING other
 * ones, and no trigger fires.  What it was can't be told any more.
 */
static bool
was_rewritten(Migration *m)
{
	Oid file = relinfo_relfilenode(m->source);

	if (file == m->relfilenode)
		return false;
	m->relfilenode = file;
	catalog_save_horizon(m);
	reconcile_ask(m, false);
	event_add(m, "rewritten", NULL, "%s was rewritten: both tables are compared",
			  sql_qualified(m->schema_name, m->table_name));
	return true;
}

static void
golive_body(Run *run, void *arg)
{
	bool *not_yet = arg;
	Migration *m = run->m;

	run_limit_lock_waits(run);
	lock_queue_lock(m->source, ShareRowExclusiveLock);
	LockRelationOid(m->target, RowExclusiveLock);
	guard_check(m);
	other_triggers_check(m);
	*not_yet = was_rewritten(m) || reconcile_pending(m) ||
			   changelog_pending(m, GOLIVE_MAX_ENTRIES + 1) > GOLIVE_MAX_ENTRIES;
	if (*not_yet)
		return;
	(void) drain_rest(run);
	sync_trigger_set(m, SYNC_WRITE_THROUGH);
	catalog_save_stable(m);
	ME_DEBUG_POINT("golive_before_commit");
	state_change(m, STATE_LIVE, "%s is live: the target equals the source in every new snapshot",
				 sql_qualified(m->schema_name, m->table_name));
}

/* Is it worth locking writers out?  Under load the log is never empty. */
static bool
little_is_left(Run *run)
{
	bool little;

	run_begin_existing(run);
	little = changelog_pending(run->m, GOLIVE_MAX_ENTRIES + 1) <= GOLIVE_MAX_ENTRIES;
	run_commit(run);
	return little;
}

/* From the next state on who writes the source waits for what is locked on the target. */
static bool
is_way_back_paved(Run *run)
{
	bool paved;

	run_begin_existing(run);
	guard_check(run->m); /* the target may be gone */
	paved = reverse_is_prepared(run->m);
	run_commit(run);
	return paved;
}

StepResult
golive_step(Run *run)
{
	ErrorData *error = NULL;
	TimestampTz began;
	bool not_yet = false;
	bool ok;
	StepResult compared;

	if (!throttle_may_go(run))
		return STEP_MORE;
	if (!is_way_back_paved(run))
		return reverse_prepare(run) ? STEP_MORE : STEP_WAIT;
	compared = reconcile_step(run);
	if (compared != STEP_DONE)
		return compared;
	if (drain_step(run, false) == STEP_MORE || !little_is_left(run))
		return STEP_MORE;
	if (!attempt_due(run))
		return STEP_WAIT;
	run_report(run, "going live");
	began = GetCurrentTimestamp();
	ok = run_attempt(run, golive_body, &not_yet, &error);
	return not_yet ? STEP_MORE : attempt_result(run, ok, error, began);
}
