/*-------------------------------------------------------------------------
 *
 * live.c
 *	  What goes on while a migration is live or swapped and nobody asks for
 *	  anything: the leader keeps it ready.
 *
 *		intact		trigger, columns, partitions are as we left them
 *		compared	what a change of columns may have left apart
 *		log			what could not be written through is drained
 *		reverse		the triggers for the way back, before they are needed
 *		carried		what hangs on the table and can stand on both, before it is needed
 *		statistics	once since it went live
 *		replaced	hand-written triggers that replace_sync() disabled are dropped
 *		headroom	range partitions ahead of the data
 *		verified	again, if that is asked for by verify_interval_s
 *
 * All of it is done in the order of its urgency, the first thing due at each
 * call.  Tampering is an error of guard_check(); the loop around us makes it a
 * pause with a reason.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "attempt.h"
#include "carry.h"
#include "catalog.h"
#include "changelog.h"
#include "other_triggers.h"
#include "reconcile.h"
#include "reverse.h"
#include "run.h"
#include "stages.h"
#include "statistics.h"
#include "throttle.h"

/* What one look at the migration tells. */
typedef struct LiveWork
{
	bool gone; /* not live or swapped any more, or paused */
	bool compare;
	bool drain;
	bool reverse;
	bool carry;
	bool statistics;
	bool drop_replaced;
	VerifyDue verify;
	bool tainted;
} LiveWork;

/*
 * Reads only, but opens the tables: behind somebody's ALTER TABLE it must not
 * wait for ever, with a snapshot in its hands.
 */
static void
look(Run *run, void *arg)
{
	LiveWork *work = arg;
	Migration *m = run->m;

	work->gone = m->paused || (m->state != STATE_LIVE && m->state != STATE_SWAPPED);
	if (work->gone)
		return;
	run_limit_lock_waits(run);
	guard_check(m);
	work->compare = reconcile_pending(m);
	work->drain = changelog_pending(m, 1) > 0;
	work->reverse = !reverse_is_prepared(m);
	work->carry = m->state == STATE_LIVE && !carry_is_prepared(m, DIRECTION_FORWARD);
	work->statistics = m->analyzed_at == 0;
	work->drop_replaced = m->state == STATE_LIVE && other_triggers_pending(m);
	work->verify = verify_due(run);
	work->tainted = m->tainted;
}

/* Nobody waits for it but the setting, or who asks for it reads along himself. */
static StepResult
verify_in_background(Run *run, const LiveWork *work)
{
	VerifyCounts counts;

	switch (work->verify)
	{
		case VERIFY_NOTHING:
			return STEP_WAIT;
		case VERIFY_OF_OTHERS:
			return STEP_MORE;
		case VERIFY_UNWANTED:
			verify_give_up(run);
			return STEP_MORE;
		case VERIFY_DUE:
			break;
	}
	return verify_step(run, work->tainted, true, &counts) == STEP_WAIT ? STEP_WAIT : STEP_MORE;
}

StepResult
live_step(Run *run)
{
	LiveWork work = {0};
	ErrorData *error = NULL;

	run_report(run, "keeping both tables equal");
	if (!run_attempt(run, look, &work, &error))
	{
		if (!attempt_is_lock_failure(error))
			ReThrowError(error);
		return STEP_WAIT;
	}
	if (work.gone)
		return STEP_DONE;
	if (work.compare && !throttle_may_go(run))
		return STEP_MORE;
	if (work.compare)
		return reconcile_step(run) == STEP_WAIT ? STEP_WAIT : STEP_MORE;
	if (work.drain)
		return drain_step(run, true);
	if (work.reverse)
		return reverse_prepare(run) ? STEP_MORE : STEP_WAIT;
	if (work.carry)
		return carry_prepare_step(run, false) == STEP_WAIT ? STEP_WAIT : STEP_MORE;
	if (work.statistics)
		return statistics_gather(run) ? STEP_MORE : STEP_WAIT;
	if (work.drop_replaced)
		return other_triggers_drop(run) == STEP_WAIT ? STEP_WAIT : STEP_MORE;
	target_keep_headroom(run);
	return verify_in_background(run, &work);
}
