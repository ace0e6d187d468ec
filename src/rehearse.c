/*-------------------------------------------------------------------------
 *
 * rehearse.c
 *	  CALL rehearse(migration): the whole swap and its way back, under the real
 *	  locks, in one transaction that is rolled back.
 *
 * It tells before the swap what only the swap would show: whether the locks are
 * to be had, for how long they are held, what the application would find
 * changed, and what fails.  The session does it, whoever leads; what the leader
 * has not made ready yet is waited for, or made here where there is none.
 *
 * Nothing is left of it but a row in "swaps" and an event, written in a
 * transaction of their own afterwards: names, triggers, notifications and the
 * migration's row are as they were, as after any ROLLBACK.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "batch.h"
#include "blockers.h"
#include "catalog.h"
#include "debug_point.h"
#include "describe.h"
#include "errors.h"
#include "procedures.h"
#include "run.h"
#include "snapshots.h"
#include "sqlgen.h"
#include "swap_transaction.h"

PG_FUNCTION_INFO_V1(migrate_ext_rehearse);

/* As long as finalize tries by default. */
#define REHEARSE_TIMEOUT_MS (5 * 60 * 1000)

/* So many differences are told as NOTICEs; the event has all. */
#define DIFFERENCES_TOLD 20

typedef struct Rehearsal
{
	SwapTimes times;
	SwapRehearsal found;
	int attempts; /* at the locks, failed ones */
	double wait_ms;
	double hold_ms;
	char *blocked_by; /* JSON array of who held us up, or NULL */
	char *missing;	  /* what was waited for and told last, or NULL */
	bool unverified;
	char *older; /* transactions that finalize would wait for */
} Rehearsal;

/* ---- the attempts ---- */

static void
check_state(Call *call, Migration *m)
{
	if (m != NULL)
		migration_require_target(m, call->name);
	if (m == NULL || (m->state != STATE_LIVE && m->state != STATE_SWAPPED))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is in state %s", call->migration,
							   m ? state_name(m->state) : "(gone)"),
						errdetail("%s needs state live or swapped.", call->name)));
	if (m->goal != m->state)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is on its way to state %s", m->name,
							   state_name(m->goal))));
	if (m->paused)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is paused", m->name),
						m->pause_reason ? errdetail("%s", m->pause_reason) : 0,
						errhint("Call migrate_ext.resume first.")));
}

/* One attempt; run_rolled_back() undoes it. */
static void
rehearse_body(Run *run, void *arg)
{
	Rehearsal *rehearsal = arg;
	Migration *m = run->m;
	char *older = snapshots_capture(m->stable_xid);

	rehearsal->older = *older != '\0' ? snapshots_describe(older) : NULL;
	rehearsal->unverified = m->verified_at == 0;
	run_limit_lock_waits(run);
	swap_rehearse(m, &rehearsal->times, &rehearsal->found);
}

/* Who was in the way, and a pause that lets the queue behind us through. */
static void
lock_failed(Call *call, Rehearsal *rehearsal, TimestampTz began)
{
	MemoryContext old_context;
	Blockers *blockers;

	run_begin(call->run);
	check_state(call, call->run->m);
	blockers = blockers_find(call->run->m, began);
	old_context = MemoryContextSwitchTo(call->context);
	if (blockers)
		rehearsal->blocked_by = blockers_merge(rehearsal->blocked_by, blockers->json);
	rehearsal->missing = psprintf("The locks on both tables are held by %s.",
								  blockers ? blockers->text : "transactions that have ended");
	MemoryContextSwitchTo(old_context);
	run_commit(call->run);
	rehearsal->attempts++;
	ereport(NOTICE, (errmsg("attempt %d failed: %s", rehearsal->attempts, rehearsal->missing)));
	ME_DEBUG_POINT("rehearsal_failed");
	attempt_back_off(call->run, rehearsal->attempts, call->deadline);
}

/* What the leader will see to: told once, and seen to here where there is none. */
static void
not_ready(Call *call, Rehearsal *rehearsal, const ErrorData *error)
{
	const char *missing = error->detail ? error->detail : error->message;

	if (rehearsal->missing == NULL || strcmp(rehearsal->missing, missing) != 0)
	{
		ereport(NOTICE, (errmsg("waiting: %s", missing)));
		rehearsal->missing = MemoryContextStrdup(call->context, missing);
	}
	call_step_or_sleep(call);
}

/* True when it has been rehearsed; false: to be tried again. */
static bool
rehearse_once(Call *call, Rehearsal *rehearsal)
{
	Run *run = call->run;
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	instr_time now;
	bool ok;

	if (began >= call->deadline)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_TIMEOUT),
						errmsg("%s: time is up, nothing has been rehearsed", call->name),
						rehearsal->missing ? errdetail("%s", rehearsal->missing) : 0));
	memset(&rehearsal->times, 0, sizeof(SwapTimes));
	run_begin(run);
	check_state(call, run->m);
	run_commit(run);
	MemoryContextReset(run->scratch);
	ok = run_rolled_back(run, rehearse_body, rehearsal, &error);
	INSTR_TIME_SET_CURRENT(now);
	if (rehearsal->times.asked)
		rehearsal->wait_ms +=
			swap_elapsed_ms(rehearsal->times.asked_at,
							rehearsal->times.granted ? rehearsal->times.granted_at : now);
	if (ok)
		rehearsal->hold_ms = swap_elapsed_ms(rehearsal->times.granted_at, now);
	else if (attempt_is_lock_failure(error))
		lock_failed(call, rehearsal, began);
	else if (error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		not_ready(call, rehearsal, error);
	else
		ReThrowError(error);
	return ok;
}

/* ---- what came of it ---- */

/* Numbers are taken from a sequence without a lock on the table. */
static bool
is_of_the_day(const Difference *difference)
{
	return strncmp(difference->path, "sequences > ", strlen("sequences > ")) == 0 &&
		   strstr(difference->path, " > last_value") != NULL;
}

static char *
differences_text(List *differences)
{
	StringInfoData buf;
	ListCell *lc;

	initStringInfo(&buf);
	foreach (lc, differences)
	{
		Difference *difference = lfirst(lc);

		if (is_of_the_day(difference))
			continue;
		appendStringInfo(&buf, "%s{\"path\": %s, \"before\": %s, \"after\": %s}",
						 buf.len > 0 ? ", " : "", json_quote(difference->path),
						 difference->a ? difference->a : "null",
						 difference->b ? difference->b : "null");
	}
	return psprintf("[%s]", buf.data);
}

static void
tell_differences(List *differences, const char *when)
{
	int told = 0;
	ListCell *lc;

	foreach (lc, differences)
	{
		Difference *difference = lfirst(lc);

		if (is_of_the_day(difference))
			continue;
		if (told++ == DIFFERENCES_TOLD)
			ereport(NOTICE, (errmsg("%s more differs: see the view migrate_ext.events", when)));
		if (told <= DIFFERENCES_TOLD)
			ereport(NOTICE, (errmsg("%s differs: %s", when, difference->path),
							 errdetail("%s -> %s", difference->a ? difference->a : "(none)",
									   difference->b ? difference->b : "(none)")));
	}
}

/* The only trace, in a transaction of its own. */
static void
record(Call *call, const Rehearsal *rehearsal)
{
	Run *run = call->run;
	const SwapRehearsal *found = &rehearsal->found;
	int64 swap_id;

	/* what was found is in run->scratch, as is all that run_begin() leads to */
	run_begin(run);
	if (run->m != NULL)
	{
		swap_id = swap_add(run->m->id, "rehearsal", rehearsal->attempts + 1, rehearsal->wait_ms,
						   rehearsal->blocked_by);
		swap_save_hold(swap_id, rehearsal->hold_ms);
		event_add(run->m, "rehearsed",
				  psprintf("{\"swap_ms\": %.3f, \"back_ms\": %s, \"hold_ms\": %.3f, "
						   "\"swapped\": %s, \"returned\": %s}",
						   found->forth_ms,
						   found->both_ways ? psprintf("%.3f", found->back_ms) : "null",
						   rehearsal->hold_ms, differences_text(found->swapped),
						   differences_text(found->returned)),
				  "rehearsed: %s", found->both_ways ? "there and back" : "there, and no way back");
	}
	run_commit(run);
}

static void
tell(Call *call, const Rehearsal *rehearsal)
{
	const SwapRehearsal *found = &rehearsal->found;

	if (rehearsal->unverified)
		ereport(NOTICE, (errmsg("both tables are still to be compared before the swap")));
	if (rehearsal->older)
		ereport(NOTICE, (errmsg("the swap would wait for transactions with older snapshots: %s",
								rehearsal->older)));
	tell_differences(found->swapped, "after the swap");
	if (found->both_ways)
		tell_differences(found->returned, "after the way back");
	else
		ereport(NOTICE, (errmsg("there is no way back: options.reverse_columns is missing")));
	ereport(
		NOTICE,
		(errmsg("migration \"%s\": rehearsed and rolled back; waited %.1f ms for the locks in "
				"%d attempt%s, held them %.1f ms",
				call->migration, rehearsal->wait_ms, rehearsal->attempts + 1,
				rehearsal->attempts == 0 ? "" : "s", rehearsal->hold_ms),
		 found->both_ways
			 ? errdetail("The swap took %.1f ms of that, the way back %.1f ms, comparing the rest.",
						 found->forth_ms, found->back_ms)
			 : errdetail("The swap took %.1f ms of that.", found->forth_ms)));
}

static void
rehearse(Call *call)
{
	Rehearsal rehearsal = {.attempts = 0};

	run_begin(call->run);
	check_state(call, call->run->m);
	lease_take(call->run);
	run_commit(call->run);
	while (!rehearse_once(call, &rehearsal))
		CHECK_FOR_INTERRUPTS();
	record(call, &rehearsal);
	tell(call, &rehearsal);
}

/* CALL rehearse(migration): live or swapped, and stays so */
Datum
migrate_ext_rehearse(PG_FUNCTION_ARGS)
{
	Call call;

	call_begin(&call, fcinfo, "migrate_ext.rehearse()");
	call.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REHEARSE_TIMEOUT_MS);
	PG_TRY();
	{
		rehearse(&call);
	}
	PG_CATCH();
	{
		call_fail(&call);
	}
	PG_END_TRY();
	call_finish(&call);
	PG_RETURN_VOID();
}
