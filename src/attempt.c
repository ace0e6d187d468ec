/*-------------------------------------------------------------------------
 *
 * attempt.c
 *	  What becomes of an attempt at exclusive locks that failed.
 *
 * An attempt is one transaction.  It asks for its locks, and everybody who
 * comes after it queues up behind it; so it gives up soon, lets the queue
 * through, and is made again after a while, longer each time and never in step
 * with anybody else's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "blockers.h"
#include "catalog.h"
#include "debug_point.h"
#include "run.h"
#include "swap_request.h"

/*
 * Between two attempts: at first about as long as it takes the queue behind a
 * failed one to drain, at last not longer than a person at the keyboard minds.
 */
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LONGEST_MS 5000

bool
attempt_is_lock_failure(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		   error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;
}

/* Doubled each time, and then between half and all of it. */
void
attempt_back_off(Run *run, int n, TimestampTz deadline)
{
	double ms = Min(BACKOFF_LONGEST_MS, BACKOFF_FIRST_MS * (double) (1 << Min(n, 10)));
	TimestampTz end;

	ms *= 0.5 + 0.5 * pg_prng_double(&pg_global_prng_state);
	end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), (int64) ms);
	if (deadline != 0)
		end = Min(end, deadline);
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

	run_begin(run);
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
		event_add(m, "lock_attempt",
				  psprintf("{\"attempt\": %d, \"wait_ms\": %.3f, \"blockers\": %s}",
						   request->attempts, waited_ms, blockers ? blockers->json : "[]"),
				  "attempt %d failed: %s", request->attempts, request->waiting);
		if (request->blockers != BLOCKERS_WAIT)
			signal_blockers(m, request, began);
	}
	run_commit(run);
	ME_DEBUG_POINT("attempt_failed");
	attempt_back_off(run, request->attempts, request->deadline);
}

void
attempt_refuse(Run *run, const ErrorData *error)
{
	run_begin(run);
	if (run->m)
		swap_request_withdraw(run->m, error->sqlerrcode, error->detail, "%s", error->message);
	run_commit(run);
}
