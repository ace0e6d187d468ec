/*-------------------------------------------------------------------------
 *
 * key_backfill.c
 *	  The stages of a migration of kind "key": a column filled in place.
 *
 *	created, logging	nothing but the last block is to be recorded
 *	copying				leader and helpers share the blocks, as in a copy
 *	indexing			nothing to be done
 *	catching_up			the leader passes over the table again, until a pass finds
 *						nothing that could be filled
 *	live				every row has its key but those that were skipped or failed
 *
 * Rows are left behind by a pass where somebody has locked them, and where they
 * are moved by an update from blocks that the pass has not reached to blocks that
 * it has passed.  With a trigger that fills the key (add_sharding_key) what is
 * moved or inserted is filled thereby.  Ranges with rows left are tried again
 * first; then another pass must find none.  After a number of passes that the
 * application's new rows kept from that, it is live all the same, and says so: who
 * wants proof calls enforce_key(), which looks in one snapshot.
 *
 * A rewrite of the table moves its rows: copying starts over, a later pass begins
 * anew.  TRUNCATE is one, too.
 *
 * A leader's pass is in its memory.  Should it die, the next one begins a pass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog.h"
#include "debug_point.h"
#include "errors.h"
#include "key_fill.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "storage/lmgr.h"
#include "swap_request.h"
#include "throttle.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A table that is written without keys all the time is live after so many passes. */
#define MAX_PASSES 10

/* As many ranges with rows left are remembered; with more, all is passed over again. */
#define MAX_LEFT 64

/* Between two tries at rows that somebody has locked: at first, and at most. */
#define LEFT_FIRST_MS 100
#define LEFT_LONGEST_MS 2000

/* A range of a verification, at most. */
#define VERIFY_BLOCKS 1024

/* How often a paused verification looks whether it may go on. */
#define PAUSED_POLL_MS 500

/* The leader's pass over the table, of what it was asked for. */
typedef struct Pass
{
	int64 migration_id;
	MigrationState state;
	int64 requester; /* of finalize; 0: nobody's */

	/* this pass */
	bool begun;
	Oid relfilenode;
	TimestampTz began;
	BlockNumber next;
	BlockNumber end;
	KeyCounts counts;

	/* rows that it left, or that the tries after it did */
	KeyRange ranges[MAX_LEFT];
	int nranges;
	bool too_many;
	int tries;
	int passes; /* that have ended */
} Pass;

static Pass pass;

static char *
table_of(const Migration *m)
{
	return sql_qualified(m->schema_name, m->table_name);
}

/* ------------------------------------------------------------------------
 * created .. catching_up
 * ------------------------------------------------------------------------
 */

/* What the batches of a first pass go by; the source is locked. */
static void
record_blocks(Migration *m)
{
	m->end_block = relinfo_blocks(m->source);
	m->relfilenode = relinfo_relfilenode(m->source);
	catalog_save_horizon(m);
}

static void
begin(Run *run)
{
	Migration *m = run->m;

	if (m == NULL || m->state != STATE_CREATED)
		return;
	key_guard(run, AccessShareLock);
	record_blocks(m);
	state_change(m, STATE_LOGGING, "%s is to be filled in place: nothing is logged", table_of(m));
}

StepResult
key_begin_step(Run *run)
{
	run_begin(run);
	begin(run);
	run_commit(run);
	return STEP_DONE;
}

/* logging -> copying, indexing -> catching_up: there is nothing to do in them */
static StepResult
pass_state(Run *run, MigrationState from, MigrationState to, const char *message)
{
	run_begin(run);
	if (run->m != NULL && run->m->state == from)
		state_change(run->m, to, "%s", message);
	run_commit(run);
	return STEP_DONE;
}

StepResult
key_logging_step(Run *run)
{
	return pass_state(run, STATE_LOGGING, STATE_COPYING, "filling the key of the rows there are");
}

StepResult
key_indexing_step(Run *run)
{
	return pass_state(run, STATE_INDEXING, STATE_CATCHING_UP,
					  "no indexes to build; looking for rows that still lack the key");
}

static void
restart(Run *run)
{
	Migration *m = run->m;

	if (m == NULL || m->state <= STATE_CREATED || m->state >= STATE_LIVE)
		return;
	key_guard(run, AccessShareLock);
	batch_reset(m);
	truncation_clear(m->id);
	m->epoch++;
	record_blocks(m);
	state_change(m, STATE_LOGGING, "%s was rewritten: all its rows are looked at again",
				 table_of(m));
}

StepResult
key_restart_step(Run *run)
{
	run_begin(run);
	restart(run);
	run_commit(run);
	return STEP_DONE;
}

static void
raise_rewritten(const Migration *m)
{
	ereport(ERROR,
			(errcode(ERRCODE_MIGRATION_RESTART),
			 errmsg("table %s was rewritten: all its rows are looked at again", table_of(m))));
}

/* The leader's: leave the state once all blocks have been looked at. */
StepResult
key_copy_step(Run *run)
{
	StepResult result = STEP_DONE;

	run_begin(run);
	if (run->m != NULL && run->m->state == STATE_COPYING)
	{
		result = STEP_MORE;
		if (batch_open_count(run->m, BATCH_COPY) == 0)
		{
			key_guard(run, AccessShareLock);
			if (relinfo_relfilenode(run->m->source) != run->m->relfilenode)
				raise_rewritten(run->m);
			state_change(run->m, STATE_INDEXING, "all rows have been looked at");
			result = STEP_DONE;
		}
	}
	run_commit(run);
	return result;
}

/*
 * After an error the batch is somebody else's to try, or ours later.  (A cancel or
 * shutdown ends the process's lease, which frees the batch as well.)
 */
static void
fill_or_give_back(Run *run, KeyJob *job)
{
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		key_fill(run, job);
	}
	PG_CATCH();
	{
		/* whatever was under way has been rolled back */
		MemoryContextSwitchTo(run->scratch);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	if (error == NULL)
		return;
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		batch_give_back(run, job->batch);
	ReThrowError(error);
}

/* One batch of the first pass: claimed in a transaction of its own, as in a copy. */
StepResult
key_copy_work(Run *run)
{
	KeyJob job = {.state = STATE_COPYING};

	run_begin(run);
	if (run->m != NULL && run->m->state == STATE_COPYING && !run->m->paused)
	{
		job.batch = batch_claim(run, BATCH_COPY,
								throttle_blocks(run->m, key_fill_blocks(run->migration_id)));
		job.relfilenode = run->m->relfilenode;
		if (job.batch != NULL)
			run_report(run, "filling blocks %u to %u of %u", job.batch->first_block,
					   job.batch->last_block, run->m->end_block);
	}
	run_commit(run);
	if (job.batch == NULL)
		return STEP_WAIT;
	ME_DEBUG_POINT("key_after_claim");
	job.range = key_blocks(job.batch->first_block, job.batch->last_block + 1);
	fill_or_give_back(run, &job);
	if (job.rewritten)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_RESTART),
						errmsg("the table was rewritten: all its rows are looked at again")));
	return job.stopped ? STEP_WAIT : STEP_MORE;
}

/* ------------------------------------------------------------------------
 * Passes
 * ------------------------------------------------------------------------
 */

/* The pass of this request: a new one if the last was for something else. */
static void
pass_for(const Run *run, MigrationState state, int64 requester)
{
	if (pass.migration_id == run->migration_id && pass.state == state &&
		pass.requester == requester)
		return;
	memset(&pass, 0, sizeof(Pass));
	pass.migration_id = run->migration_id;
	pass.state = state;
	pass.requester = requester;
}

static void
pass_begin(Run *run)
{
	ME_DEBUG_POINT("key_before_pass");
	run_begin(run);
	if (run->m != NULL)
	{
		key_guard(run, AccessShareLock);
		pass.relfilenode = relinfo_relfilenode(run->m->source);
		pass.end = relinfo_blocks(run->m->source);
		pass.next = 0;
		pass.began = GetCurrentTimestamp();
		pass.nranges = pass.tries = 0;
		pass.too_many = false;
		memset(&pass.counts, 0, sizeof(KeyCounts));
		pass.begun = true;
	}
	run_commit(run);
}

/* How many blocks the next piece of it should have. */
static BlockNumber
pass_blocks(Run *run)
{
	BlockNumber blocks = key_fill_blocks(run->migration_id);

	run_begin(run);
	if (run->m != NULL)
		blocks = throttle_blocks(run->m, blocks);
	run_commit(run);
	return blocks;
}

static void
remember_left(KeyRange range)
{
	if (pass.nranges < MAX_LEFT)
		pass.ranges[pass.nranges++] = range;
	else
		pass.too_many = true;
}

static void
record_job(Run *run, const KeyJob *job)
{
	run_begin(run);
	if (run->m != NULL)
		batch_record(run, (BlockNumber) (job->range.first / KEY_PLACES),
					 (BlockNumber) ((job->range.end - 1) / KEY_PLACES), job->counts.filled);
	run_commit(run);
}

/* Fill a range of the pass; false: it must be done again. */
static bool
pass_fill(Run *run, KeyRange range)
{
	KeyJob job = {.range = range, .state = pass.state, .relfilenode = pass.relfilenode};

	key_fill(run, &job);
	if (job.rewritten)
		pass.begun = false;
	if (job.stopped || job.rewritten)
		return false;
	if (job.counts.filled > 0)
		record_job(run, &job);
	if (job.counts.left > 0)
		remember_left(range);
	key_counts_add(&pass.counts, &job.counts);
	return true;
}

/* Try the ranges again in which rows were left. */
static StepResult
try_left(Run *run)
{
	KeyRange ranges[MAX_LEFT];
	int n = pass.nranges;
	long ms = Min(LEFT_LONGEST_MS, LEFT_FIRST_MS << Min(pass.tries, 10));

	run_sleep(run, ms);
	ME_DEBUG_POINT("key_before_retry");
	pass.tries++;
	memcpy(ranges, pass.ranges, sizeof(ranges));
	pass.nranges = 0;
	for (int i = 0; i < n; i++)
	{
		if (!pass.begun || !pass_fill(run, ranges[i]))
			remember_left(ranges[i]);
	}
	return STEP_MORE;
}

static void
tell_left(Run *run)
{
	char *message = psprintf("rows that other transactions have locked, in %d range%s of blocks",
							 pass.nranges, pass.nranges == 1 ? "" : "s");

	run_begin(run);
	if (run->m != NULL && (run->m->last_error == NULL || strcmp(run->m->last_error, message) != 0))
	{
		catalog_save_error(run->m, message);
		event_add(run->m, "waiting", NULL, "waiting for %s", message);
	}
	run_commit(run);
}

/*
 * One piece of a pass.  DONE: it has ended, *counts tells with what; every row
 * that it met and that could be filled has been.
 */
static StepResult
pass_step(Run *run, KeyCounts *counts)
{
	if (!pass.begun)
		pass_begin(run);
	else if (pass.next < pass.end)
	{
		BlockNumber blocks = pass_blocks(run);
		BlockNumber end = pass.next + Min(blocks, pass.end - pass.next);

		run_report(run, "filling blocks %u to %u of %u again", pass.next, end - 1, pass.end);
		if (pass_fill(run, key_blocks(pass.next, end)))
			pass.next = end;
	}
	else if (pass.too_many)
	{
		pass.begun = false;
		run_sleep(run, LEFT_LONGEST_MS);
	}
	else if (pass.nranges > 0)
	{
		if (pass.tries > 2)
			tell_left(run);
		return try_left(run);
	}
	else
	{
		*counts = pass.counts;
		pass.begun = false;
		pass.passes++;
		return STEP_DONE;
	}
	return STEP_MORE;
}

/* ------------------------------------------------------------------------
 * catching_up -> live
 * ------------------------------------------------------------------------
 */

/* What a pass found, as a verification: it is what progress counts by. */
static void
record_counts(const Migration *m, const KeyCounts *counts)
{
	VerifyCounts result = {
		.checked = counts->rows, .skipped = counts->skipped, .failed = failed_row_count(m->id)};

	verification_add(m->id, &result, true, NULL);
}

static void
go_live(Run *run, const KeyCounts *counts)
{
	Migration *m = run->m;

	if (m == NULL || m->state != STATE_CATCHING_UP)
		return;
	key_guard(run, AccessShareLock);
	failed_rows_forget(m->id, pass.began);
	state_change(m, STATE_LIVE, "%s is live: %s", table_of(m),
				 counts->filled > 0 ? "rows go on coming without the key"
				 : counts->skipped + failed_row_count(m->id) > 0
					 ? "all rows have their key that can"
					 : "all rows have their key");
	record_counts(m, counts);
}

StepResult
key_catch_up_step(Run *run)
{
	KeyCounts counts;
	StepResult result;

	if (!throttle_may_go(run))
		return STEP_MORE;
	pass_for(run, STATE_CATCHING_UP, 0);
	result = pass_step(run, &counts);
	if (result != STEP_DONE)
		return result;
	if (counts.filled > 0 && pass.passes < MAX_PASSES)
		return STEP_MORE;
	run_begin(run);
	go_live(run, &counts);
	run_commit(run);
	return STEP_DONE;
}

/* ------------------------------------------------------------------------
 * The ends
 * ------------------------------------------------------------------------
 */

/* counts: what the last pass found, or NULL if there was none. */
static void
finish(Run *run, const KeyCounts *counts)
{
	Migration *m = catalog_load(run->migration_id, true);
	SwapRequest *request;
	int64 failed;

	if (m == NULL || m->state != STATE_LIVE || m->goal != STATE_COMPLETED)
		return;
	request = swap_request_read(m);
	if (counts != NULL)
	{
		failed_rows_forget(m->id, pass.began);
		record_counts(m, counts);
	}
	failed = failed_row_count(m->id);
	if (failed > 0 && !request->accept_failed)
	{
		swap_request_withdraw(m, ERRCODE_MIGRATION_FAILED_ROWS,
							  "The view migrate_ext.failed_rows names them: mend them, or call "
							  "migrate_ext.finalize with option accept_failed.",
							  INT64_FORMAT " row%s could not be filled", failed,
							  failed == 1 ? "" : "s");
		return;
	}
	state_change(m, STATE_COMPLETED, "%s is filled, column %s", table_of(m),
				 quote_identifier(json_field(m->definition, "column")));
}

/*
 * live -> completed, asked for by finalize or complete: after another pass over
 * what came since, unless the caller does without.
 */
StepResult
key_finish_step(Run *run)
{
	KeyCounts counts;
	SwapRequest *request;
	bool holds;
	bool verify = true;

	run_begin(run);
	holds = run->m != NULL && run->m->goal == STATE_COMPLETED;
	if (holds)
	{
		request = swap_request_read(run->m);
		holds = swap_request_holds(run->m, request);
		verify = request->verify;
		pass_for(run, STATE_LIVE, request->requester);
	}
	run_commit(run);
	if (!holds)
		return STEP_DONE;
	if (verify && !throttle_may_go(run))
		return STEP_MORE;
	if (verify && pass_step(run, &counts) != STEP_DONE)
		return STEP_MORE;
	run_begin(run);
	finish(run, verify ? &counts : NULL);
	run_commit(run);
	return STEP_DONE;
}

static void
cancel(Run *run)
{
	Migration *m = catalog_load(run->migration_id, true);

	if (m == NULL || m->goal != STATE_CANCELLED || m->state >= STATE_COMPLETED)
		return;
	truncation_clear(m->id);
	state_change(m, STATE_CANCELLED, "%s is cancelled: rows that were filled stay so", table_of(m));
}

/* Takes no lock on the table: a batch under way fills its rows, and is the last. */
StepResult
key_cancel_step(Run *run)
{
	run_begin(run);
	cancel(run);
	run_commit(run);
	return STEP_DONE;
}

/* ------------------------------------------------------------------------
 * Verification
 * ------------------------------------------------------------------------
 */

/*
 * How far the next range goes, which is empty when there are no blocks left; false
 * while the migration is paused.
 */
static bool
range_to_verify(Run *run, BlockNumber next, BlockNumber *end)
{
	bool paused;

	*end = next;
	run_begin(run);
	paused = run->m != NULL && run->m->paused;
	if (run->m != NULL && !paused)
	{
		BlockNumber wanted = throttle_blocks(run->m, VERIFY_BLOCKS);
		BlockNumber blocks;

		key_guard(run, AccessShareLock);
		blocks = relinfo_blocks(run->m->source);
		if (next < blocks)
			*end = next + Min(wanted, blocks - next);
	}
	run_commit(run);
	return !paused;
}

bool
key_verify(Run *run, TimestampTz deadline, struct VerifyCounts *counts)
{
	KeyCounts found = {0};
	BlockNumber next = 0;
	BlockNumber end;
	bool more = true;
	bool complete = true;

	while (complete && more)
	{
		if (!range_to_verify(run, next, &end))
			run_sleep(run, PAUSED_POLL_MS);
		else if (next == end)
			more = false;
		else if (throttle_may_go(run))
		{
			key_count(run, key_blocks(next, end), &found);
			next = end;
		}
		complete = !more || deadline == 0 || GetCurrentTimestamp() < deadline;
		MemoryContextReset(run->scratch);
	}
	counts->checked = found.rows;
	counts->missing = found.left;
	counts->skipped = found.skipped;
	counts->failed = found.failed;
	run_begin(run);
	if (run->m != NULL)
		verification_add(run->m->id, counts, complete, NULL);
	run_commit(run);
	return complete;
}
