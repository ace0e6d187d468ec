/*-------------------------------------------------------------------------
 *
 * attempt.c
 *	  What becomes of an attempt that failed, at exclusive locks above all.
 *
 * An attempt is one transaction.  It asks for its locks, and everybody who
 * comes after it queues up behind it; so it gives up soon, lets the queue
 * through, and is made again after a while, longer each time and never in step
 * with anybody else's.  In a transaction of the caller's it is a subtransaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "blockers.h"
#include "catalog.h"
#include "debug_point.h"
#include "errors.h"
#include "lock_queue.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "swap_request.h"

/*
 * Between two attempts: at first about as long as it takes the queue behind a
 * failed one to drain, at last not longer than a person at the keyboard minds.
 */
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LONGEST_MS 5000

/*
 * Between two tries at work that an error came in the way of, which passes: not so long that
 * a pause would be noticed late.
 */
#define AGAIN_FIRST_MS 100
#define AGAIN_LONGEST_MS 1000

/* Whoever was in the way is gone by then, or stays. */
#define AGAIN_TIMES 10

/* Those in a transaction that may hold other locks. */
#define PATIENCE_MS 5000

/* How such a last_error begins, and is known again. */
#define WAITING_FOR_LOCK "the lock against writers is waited for; it is held up by "

bool
attempt_is_lock_failure(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		   error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;
}

/* Doubled each time, and then between half and all of it. */
static long
back_off_ms(int n)
{
	double ms = Min(BACKOFF_LONGEST_MS, BACKOFF_FIRST_MS * (double) (1 << Min(n, 10)));

	return (long) (ms * (0.5 + 0.5 * pg_prng_double(&pg_global_prng_state)));
}

void
attempt_back_off(Run *run, int n, TimestampTz deadline)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), back_off_ms(n));

	if (deadline != 0)
		end = Min(end, deadline);
	/* a timer that was stopped may still go off once and set the latch: by that it isn't over */
	for (;;)
	{
		long rest = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (rest <= 0)
			break;
		run_sleep(run, rest);
	}
}

static void
signal_blockers(Migration *m, const SwapRequest *request, TimestampTz began)
{
	bool terminate = request->blockers == BLOCKERS_TERMINATE;
	int64 signalled = blockers_signal(m, began, terminate);

	if (signalled > 0)
		event_add(m, "blockers", NULL, INT64_FORMAT " session%s in the way %s", signalled,
				  signalled == 1 ? "" : "s", terminate ? "terminated" : "cancelled");
}

/* Looked up at once, while those who matter still hold their locks. */
void
attempt_failed(Run *run, TimestampTz began, double waited_ms)
{
	Migration *m;
	SwapRequest *request;
	Blockers *blockers;

	run_begin_existing(run);
	m = run->m;
	request = swap_request_read(m);
	blockers = blockers_find(m, began);
	request->attempts++;
	request->wait_ms += waited_ms;
	if (blockers)
		request->blocked_by = blockers_merge(request->blocked_by, blockers->json);
	request->waiting = psprintf("the locks on both tables are held by %s",
								blockers ? blockers->text : "transactions that have ended");
	if (swap_request_save(m, request))
	{
		event_add(
			m, "lock_attempt",
			psprintf("{\"attempt\": %d, \"wait_ms\": %.3f, \"queue_ms\": %d, \"blockers\": %s}",
					 request->attempts, waited_ms, lock_queue_waited_ms(),
					 blockers ? blockers->json : "[]"),
			"attempt %d failed: %s", request->attempts, request->waiting);
		if (request->blockers != BLOCKERS_WAIT)
			signal_blockers(m, request, began);
	}
	run_commit(run);
	ME_DEBUG_POINT("attempt_failed");
	attempt_back_off(run, request->attempts, request->deadline);
}

/*
 * Told once as long as it is the same that is in the way; as the last error,
 * which the next state, or success, clears.
 */
static void
tell_writers(Run *run, TimestampTz began)
{
	Migration *m;
	Blockers *blockers;
	char *message;

	run_begin_existing(run);
	m = run->m;
	blockers = blockers_of_writers(m, began);
	if (blockers != NULL)
	{
		message = psprintf(WAITING_FOR_LOCK "%s", blockers->text);
		if (m->last_error == NULL || strcmp(m->last_error, message) != 0)
		{
			catalog_save_error(m, message);
			event_add(m, "lock_attempt",
					  psprintf("{\"attempt\": %d, \"queue_ms\": %d, \"blockers\": %s}",
							   run->attempts, lock_queue_waited_ms(), blockers->json),
					  "attempt %d failed: %s", run->attempts, message);
		}
	}
	run_commit(run);
}

static void
clear_writers(Run *run)
{
	run_begin(run);
	if (run->m && run->m->last_error &&
		strncmp(run->m->last_error, WAITING_FOR_LOCK, strlen(WAITING_FOR_LOCK)) == 0)
		catalog_save_error(run->m, NULL);
	run_commit(run);
}

/* It is for others to sleep: meanwhile there may be a pause to obey, or rows to drain. */
StepResult
attempt_result(Run *run, bool ok, ErrorData *error, TimestampTz began)
{
	if (!ok && !attempt_is_lock_failure(error))
		ReThrowError(error);
	if (ok)
	{
		if (run->attempts > 0)
			clear_writers(run);
		run->attempts = 0;
		return STEP_DONE;
	}
	run->attempts++;
	tell_writers(run, began);
	run->next_attempt =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), back_off_ms(run->attempts));
	return STEP_WAIT;
}

bool
attempt_due(const Run *run)
{
	return run->attempts == 0 || GetCurrentTimestamp() >= run->next_attempt;
}

bool
attempt_again(Run *run, const ErrorData *error, int *failures)
{
	if (error_kind(error->sqlerrcode) != ERROR_AGAIN || ++*failures >= AGAIN_TIMES)
		return false;
	run_sleep(run, Min(AGAIN_LONGEST_MS, AGAIN_FIRST_MS << (*failures - 1)));
	return true;
}

void
attempt_refuse(Run *run, const ErrorData *error)
{
	run_begin(run);
	if (run->m)
		swap_request_withdraw(run->m, error->sqlerrcode, error->detail, "%s", error->message);
	run_commit(run);
}

/* ---- in a transaction of the caller's ---- */

/*
 * One attempt, by the server's settings: there may be no migration.  In a
 * subtransaction, whose end gives the place in the queue back, or the lock to the caller's.
 */
static bool
try_lock(Oid relid, LOCKMODE mode)
{
	Migration none = {.settings = NULL};
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = false;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		limit_lock_waits(&none);
		lock_queue_enter(settings_get_int(&none, "lock_queue_ms"));
		lock_queue_lock(relid, mode);
		lock_queue_leave();
		ReleaseCurrentSubTransaction();
		ok = true;
	}
	PG_CATCH();
	{
		ErrorData *error;

		lock_queue_leave();
		error = error_end_subtransaction(context, owner);
		if (!attempt_is_lock_failure(error))
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return ok;
}

static bool
keeps_writers_waiting(Oid relid)
{
	LOCKMODE mode;

	for (mode = ShareLock; mode <= AccessExclusiveLock; mode++)
	{
		if (lock_queue_holds(relid, mode))
			return true;
	}
	return false;
}

static char *
holders(Oid relid, TimestampTz since)
{
	Blockers *blockers;
	UserSwitch user;

	user_switch_superuser(&user);
	blockers = blockers_of_table(relid, since);
	user_switch_back(&user);
	return blockers ? blockers->text : "transactions that have ended";
}

/* See attempt.h. */
void
attempt_lock(Oid relid, LOCKMODE mode)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PATIENCE_MS);
	bool alone = keeps_writers_waiting(relid);
	Run *run = run_create(0, true); /* to sleep as a session's */
	int n;

	for (n = 1;; n++)
	{
		TimestampTz began = GetCurrentTimestamp();
		char *held_by;

		if (try_lock(relid, mode))
			return;
		held_by = holders(relid, began);
		if (alone || GetCurrentTimestamp() >= end)
			ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
							errmsg("could not obtain lock on table %s", sql_relation(relid)),
							errdetail("After %d attempt%s it is held by %s.", n, n == 1 ? "" : "s",
									  held_by),
							errhint("Nothing has changed. Call it again when they have ended.")));
		ereport(NOTICE,
				(errmsg("attempt %d failed: %s is held by %s", n, sql_relation(relid), held_by)));
		attempt_back_off(run, n, 0);
	}
}
