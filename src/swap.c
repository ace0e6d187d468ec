/*-------------------------------------------------------------------------
 *
 * swap.c
 *	  live -> swapped, asked for by finalize, and swapped -> live, by undo.
 *
 * Before the swap stands a row of gates.  Each call of the step goes through
 * them from the first on and stops at the first that is shut, for what was true
 * at the last call need not be true now: a row that could not be written
 * through shuts the gate of the log again, and what the drain then writes
 * shuts that of verification.
 *
 *		request		somebody still waits, and there is time left
 *		intact		trigger, columns, partitions; nothing hangs on the table
 *					that can't be carried over
 *		prepared	no prepared transaction holds a lock on them
 *		compared	nothing is left of a comparison that puts right what differs
 *		log			all that was logged is drained, nothing has failed
 *		reverse		the triggers for the way back are there
 *		carried		what can stand on both tables is there
 *		statistics	the target is analyzed
 *		verified	both tables have been compared since the state was reached, and what
 *					has changed since then once more
 *		snapshots	nobody can look at the target as it was before it was whole
 *		attempt		the locks, and the swap itself
 *
 * A gate that time will open (a transaction that ends) is waited at; one that
 * only a person can open withdraws the request.  Nothing of all this is kept in
 * the process: see swap_request.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "blockers.h"
#include "carry.h"
#include "catalog.h"
#include "changelog.h"
#include "debug_point.h"
#include "errors.h"
#include "failed_rows.h"
#include "reconcile.h"
#include "reverse.h"
#include "run.h"
#include "snapshots.h"
#include "stages.h"
#include "statistics.h"
#include "swap_request.h"
#include "swap_transaction.h"

/* Between two looks at a gate that others will open. */
#define GATE_POLL_MS 100

typedef enum Gate
{
	GATE_OPEN,
	GATE_AGAIN, /* something was done: begin with the first gate */
	GATE_SHUT,	/* others must do something first */
	GATE_LEFT	/* there is nothing to do here any more */
} Gate;

typedef Gate (*GateFunction)(Run *run);

/* Which way run->m is to go; false if it isn't asked to. */
static bool
wanted_direction(const Migration *m, Direction *direction)
{
	if (m == NULL || m->paused)
		return false;
	*direction = direction_of(m);
	return m->state == swap_from(*direction) && m->goal == swap_to(*direction);
}

/* ------------------------------------------------------------------------
 * The gates before the locks
 * ------------------------------------------------------------------------
 */

static Gate
gate_request(Run *run)
{
	Direction direction;
	bool holds;

	run_begin(run);
	holds = wanted_direction(run->m, &direction) &&
			swap_request_holds(run->m, swap_request_read(run->m));
	run_commit(run);
	return holds ? GATE_OPEN : GATE_LEFT;
}

static void
check_intact(Run *run, void *arg)
{
	bool *withdrawn = arg;
	Migration *m = run->m;
	char *text = NULL;
	int problems;

	run_limit_lock_waits(run);
	guard_check(m);
	problems = preflight_errors(m, &text);
	*withdrawn = true;
	if (problems > 0)
		swap_request_withdraw(m, ERRCODE_MIGRATION_PREFLIGHT, NULL, "%d thing%s in the way: %s",
							  problems, problems == 1 ? " stands" : "s stand", text);
	else if (m->state == STATE_SWAPPED && !reverse_is_possible(m))
		swap_request_withdraw(m, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, NULL,
							  "migration \"%s\" can't be undone: options.columns computes columns "
							  "that options.reverse_columns does not give back",
							  m->name);
	else
		*withdrawn = false;
}

/*
 * The caller is told.  What follows from tampering is the business of the loop
 * around us.
 */
static Gate
refuse(Run *run, ErrorData *error)
{
	attempt_refuse(run, error);
	if (error->sqlerrcode == ERRCODE_MIGRATION_TAMPERED)
		ReThrowError(error);
	return GATE_LEFT;
}

static Gate
gate_intact(Run *run)
{
	bool withdrawn = false;
	ErrorData *error = NULL;

	if (run_attempt(run, check_intact, &withdrawn, &error))
		return withdrawn ? GATE_LEFT : GATE_OPEN;
	if (attempt_is_lock_failure(error))
		return GATE_SHUT;
	return refuse(run, error);
}

/* Failed rows get one more chance a request. */
static Gate
retry_failed(Run *run)
{
	SwapRequest *request;
	int64 failed;
	Gate gate = GATE_OPEN;

	run_begin_existing(run);
	request = swap_request_read(run->m);
	failed = request->accept_failed ? 0 : failed_row_due(run->m);
	if (failed > 0 && !request->retried_failed)
	{
		request->retried_failed = true;
		gate = GATE_LEFT;
		if (swap_request_save(run->m, request))
		{
			event_add(run->m, "retrying", NULL, INT64_FORMAT " failed row%s tried again", failed,
					  failed == 1 ? " is" : "s are");
			(void) failed_rows_relog(run->m);
			gate = GATE_AGAIN;
		}
	}
	else if (failed > 0)
	{
		swap_request_withdraw(run->m, ERRCODE_MIGRATION_FAILED_ROWS, NULL,
							  INT64_FORMAT " row%s could not be carried over: see "
										   "migrate_ext.failed_rows",
							  failed, failed == 1 ? "" : "s");
		gate = GATE_LEFT;
	}
	run_commit(run);
	return gate;
}

static Gate
gate_compared(Run *run)
{
	bool pending;

	run_begin_existing(run);
	pending = reconcile_pending(run->m);
	if (pending)
		swap_request_tell(run->m, swap_request_read(run->m), "compared", NULL,
						  "comparing both tables, to put right what differs");
	run_commit(run);
	if (!pending)
		return GATE_OPEN;
	return reconcile_step(run) == STEP_WAIT ? GATE_SHUT : GATE_AGAIN;
}

static Gate
gate_log(Run *run)
{
	bool pending;

	run_begin_existing(run);
	pending = changelog_pending(run->m, 1) > 0;
	if (pending)
		swap_request_tell(run->m, swap_request_read(run->m), "log", NULL,
						  "waiting for the change log to be drained");
	run_commit(run);
	if (pending)
		return drain_step(run, true) == STEP_MORE ? GATE_AGAIN : GATE_SHUT;
	return retry_failed(run);
}

/* In both directions: the way back of the way back are the same triggers. */
static Gate
gate_reverse(Run *run)
{
	TimestampTz began = GetCurrentTimestamp();
	bool prepared;

	run_begin_existing(run);
	prepared = reverse_is_prepared(run->m);
	run_commit(run);
	if (prepared)
		return GATE_OPEN;
	if (!reverse_prepare(run))
		attempt_failed(run, began, TimestampDifferenceMilliseconds(began, GetCurrentTimestamp()));
	return GATE_AGAIN;
}

/* Reading what names tables locks them. */
static void
look_at_carried(Run *run, void *arg)
{
	bool *prepared = arg;

	run_limit_lock_waits(run);
	*prepared = carry_is_prepared(run->m, direction_of(run->m));
}

static Gate
gate_carried(Run *run)
{
	ErrorData *error = NULL;
	bool prepared = false;

	if (!run_attempt(run, look_at_carried, &prepared, &error))
	{
		if (!attempt_is_lock_failure(error))
			ReThrowError(error);
		return GATE_SHUT;
	}
	if (prepared)
		return GATE_OPEN;
	return carry_prepare_step(run, true) == STEP_WAIT ? GATE_SHUT : GATE_AGAIN;
}

static Gate
gate_statistics(Run *run)
{
	bool due;

	run_begin_existing(run);
	due = run->m->state == STATE_LIVE && run->m->analyzed_at == 0;
	run_commit(run);
	if (!due)
		return GATE_OPEN;
	return statistics_gather(run) ? GATE_AGAIN : GATE_SHUT;
}

/*
 * What was found is in the view verifications already.  Without differences
 * verify_step() has noted that, unless somebody wrote in between what shuts an
 * earlier gate.
 */
static Gate
verify(Run *run, bool full)
{
	VerifyCounts counts = {0};
	StepResult result = verify_step(run, full, false, &counts);
	Gate gate = GATE_AGAIN;

	if (result != STEP_DONE)
		return result == STEP_MORE ? GATE_AGAIN : GATE_SHUT;
	run_begin_existing(run);
	if (counts.missing > 0 || counts.extra > 0 || counts.different > 0 || counts.stale_key > 0)
	{
		swap_request_withdraw(run->m, ERRCODE_MIGRATION_NOT_VERIFIED, NULL,
							  "the tables differ: " INT64_FORMAT " rows missing, " INT64_FORMAT
							  " extra, " INT64_FORMAT " different%s",
							  counts.missing, counts.extra, counts.different,
							  counts.stale_key == 0
								  ? ""
								  : psprintf(", " INT64_FORMAT
											 " with a key derived from what has changed since",
											 counts.stale_key));
		gate = GATE_LEFT;
	}
	else
	{
		SwapRequest *request = swap_request_read(run->m);

		request->read_again = true;
		(void) swap_request_save(run->m, request);
	}
	run_commit(run);
	return gate;
}

/*
 * What was found counts until something but the writers has touched the tables.  All
 * the same, a request reads once more what has changed since, whoever changed it:
 * somebody may have written the target past the trigger.  What somebody tampered with
 * is compared anew altogether.
 */
static Gate
gate_verified(Run *run)
{
	SwapRequest *request;
	bool tainted;
	bool due;

	run_begin_existing(run);
	request = swap_request_read(run->m);
	tainted = run->m->tainted;
	due = tainted || (request->verify && !verify_holds(run->m));
	if (due)
		swap_request_tell(run->m, request, "verification", NULL, "comparing both tables");
	else if (!request->verify && run->m->verified_at == 0)
		swap_request_tell(run->m, request, "unverified", NULL,
						  "the tables are not compared, as asked for");
	due = due || (request->verify && !request->read_again);
	run_commit(run);
	return due ? verify(run, tainted) : GATE_OPEN;
}

/*
 * Both directions: a prepared transaction keeps its locks through anything, so
 * attempts would only hold up the application.
 */
static Gate
gate_prepared(Run *run)
{
	Blockers *prepared;

	run_begin_existing(run);
	prepared = blockers_prepared(run->m);
	if (prepared)
		swap_request_tell(run->m, swap_request_read(run->m), "prepared", prepared->json,
						  "waiting for %s to be committed or rolled back", prepared->text);
	run_commit(run);
	return prepared ? GATE_SHUT : GATE_OPEN;
}

/*
 * The transactions to wait for are captured once for each stable_xid, and kept
 * in the request.
 */
static Gate
gate_snapshots(Run *run)
{
	SwapRequest *request;
	FullTransactionId stable;
	char *standbys = NULL;
	bool open;

	run_begin_existing(run);
	stable = run->m->stable_xid;
	request = swap_request_read(run->m);
	open = request->ignore_old_snapshots;
	if (!open)
	{
		char *before = request->older;

		if (request->older == NULL || request->stable != U64FromFullTransactionId(stable))
			request->older = snapshots_capture(stable);
		else
			request->older = snapshots_remaining(stable, request->older);
		request->stable = U64FromFullTransactionId(stable);
		standbys = snapshots_of_standbys(stable);
		open = *request->older == '\0' && standbys == NULL;

		if (*request->older != '\0')
			swap_request_tell(run->m, request, "snapshots", NULL,
							  "waiting for transactions with older snapshots: %s",
							  snapshots_describe(request->older));
		else if (standbys)
			swap_request_tell(run->m, request, "standbys", NULL,
							  "waiting for older snapshots on standbys: %s", standbys);
		if (before == NULL || strcmp(before, request->older) != 0)
			(void) swap_request_save(run->m, request);
	}
	run_commit(run);
	return open ? GATE_OPEN : GATE_SHUT;
}

/* ------------------------------------------------------------------------
 * The attempt
 * ------------------------------------------------------------------------
 */

static void
attempt_body(Run *run, void *arg)
{
	Direction direction;
	SwapRequest *request;

	if (!wanted_direction(run->m, &direction))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("nobody asks for a swap any more")));
	request = swap_request_read(run->m);
	run_limit_lock_waits(run);
	swap_perform(run->m, direction, request, arg);
}

/* Written afterwards: only then is it known. */
static void
save_hold(Run *run, const SwapTimes *times)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	run_begin_existing(run);
	swap_save_hold(times->swap_id, swap_elapsed_ms(times->granted_at, now));
	run_commit(run);
}

/*
 * A gate that was shut since we passed it: which one, shows at the next round,
 * but not at once, or we would do nothing else.
 */
static void
not_ready(Run *run, const ErrorData *error)
{
	SwapRequest *request;

	run_begin_existing(run);
	request = swap_request_read(run->m);
	request->attempts++;
	swap_request_tell(run->m, request, "again", NULL, "%s", error->message);
	(void) swap_request_save(run->m, request);
	run_commit(run);
	attempt_back_off(run, request->attempts, request->deadline);
}

static Gate
gate_attempt(Run *run)
{
	SwapTimes times = {0};
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	instr_time now;

	run_report(run, "swapping");
	if (run_attempt(run, attempt_body, &times, &error))
	{
		ME_DEBUG_POINT("swap_committed");
		save_hold(run, &times);
		return GATE_LEFT;
	}
	INSTR_TIME_SET_CURRENT(now);
	if (attempt_is_lock_failure(error))
		attempt_failed(run, began, times.asked ? swap_elapsed_ms(times.asked_at, now) : 0);
	else if (error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		not_ready(run, error);
	else
		return refuse(run, error);
	return GATE_AGAIN;
}

/* ------------------------------------------------------------------------
 * The step
 * ------------------------------------------------------------------------
 */

static const GateFunction gates[] = {gate_request,	gate_intact,	gate_prepared, gate_compared,
									 gate_log,		gate_reverse,	gate_carried,  gate_statistics,
									 gate_verified, gate_snapshots, gate_attempt};

/*
 * Through the gates, up to the first that is shut.  DONE when the state has
 * been left, or nothing is asked for any more.
 */
StepResult
swap_step(Run *run)
{
	int i;

	run_report(run, "preparing the swap");
	for (i = 0; i < lengthof(gates); i++)
	{
		switch (gates[i](run))
		{
			case GATE_OPEN:
				break;
			case GATE_AGAIN:
				return STEP_MORE;
			case GATE_SHUT:
				ME_DEBUG_POINT("swap_gate_shut");
				run_sleep(run, GATE_POLL_MS);
				return STEP_MORE;
			case GATE_LEFT:
				return STEP_DONE;
		}
	}
	return STEP_MORE;
}
