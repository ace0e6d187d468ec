/*-------------------------------------------------------------------------
 *
 * copy.c
 *	  Copies the rows that stood in the source when the sync trigger came.
 *
 * Workers share the source's blocks in batches; a batch is two transactions:
 *
 *	1. Claim a range of blocks (batch_claim), commit.
 *	2. Lock source, then target; make sure that the range is still ours
 *	   (batch_begin), and that nobody replaced the trigger, rewrote or truncated
 *	   the table (guard_check); only then take a snapshot and read the range.
 *
 * A row version that the snapshot sees is one of two kinds.  Its xmin is older
 * than the horizon: it was there when the trigger came, and is copied.  Or
 * horizon <= xmin < the snapshot's xmax: it was written since, by an insert or
 * an update that the trigger logged, maybe in a block that another batch has
 * read already.  Its identity is logged once more and the drain will read it,
 * so no row can be copied twice, and the target needs no unique index to find
 * that out.  The comparison is modulo 2^32: an xmin outside of that window is
 * an old, frozen one, whatever its number.  A frozen one that lies inside by
 * chance is logged instead of copied, which is slower and as right.
 *
 * Not by pg_snapshot, and not by asking whether xmin was visible at the
 * horizon: neither knows subtransactions.
 *
 * A worked interleaving: a batch reads row R (xmin 100, horizon 200) and copies
 * it; then an update moves R to a block not yet read (xmin 250), logging R.
 * The later batch sees that version, and logs R.  The drain reads R and puts
 * the target right.  The other way round, the update committing before the
 * first batch's snapshot: the old version isn't seen, the new one is logged.
 *
 * A row that can't be copied is set aside with the reason, and logged as well: the
 * drain tries it once more, and what mends it later is logged anyway.  That it doesn't
 * fit (no partition, NOT NULL, CHECK) is found before it is written.  Where a batch
 * fails with an error (a value that can't be converted) it is copied again, each row
 * computed in a subtransaction.  Where that fails too, since it is writing a row that
 * does (one too long for a block, a broken value out of line), the batch is cut in two,
 * down to the block, whose rows are then written each in a subtransaction.  So the work
 * is that of one more batch for bad rows of the first kind, and grows with the logarithm
 * of a batch's blocks for each block that has some of the second.  One bad row never stops
 * a copy; too many do, see failed_rows_limit().  What isn't a row's error is given back,
 * and tried again after a while, longer each time, when others have had their turn.
 *
 * Batch, progress and log entries are of one transaction; a crash loses all of
 * them or nothing, and the range is then copied anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "access/transam.h"
#include "batch.h"
#include "catalog.h"
#include "copy_receiver.h"
#include "debug_point.h"
#include "errors.h"
#include "failed_rows.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/snapmgr.h"

/*
 * Comparisons modulo 2^32 are sure up to 2^31 transactions past the horizon.
 * Half of that leaves time to notice, and no copy is meant to take so long.
 */
#define MAX_TRANSACTIONS_PAST_HORIZON (UINT64CONST(1) << 30)

/*
 * Size of a batch in blocks: the first one (1 MB: a fraction of a second on
 * any disk), and the limits.  One block can be many rows with megabytes of
 * TOAST each; 1 GB a batch is what a crash may cost at most.
 */
#define FIRST_BATCH_BLOCKS 128
#define MIN_BATCH_BLOCKS 1
#define MAX_BATCH_BLOCKS 131072

/* How far one batch's duration may change the size of the next. */
#define MAX_PACE_GROWTH 8.0
#define MAX_PACE_SHRINK 0.25

/*
 * A join by hash begins by reading all parents, in every batch: with batches of
 * the wanted time that may be most of what a batch does, and a size that follows
 * the time can't get out of it.  So they may take longer where keys are derived by
 * a join; with the default, as long as a pause may take to be in force.
 */
#define JOIN_TARGET_FACTOR 2

/*
 * A derived key can be had by a join for all rows of a batch, or row by row.  A
 * join reads all parents or looks one up a row; row by row a parent is looked up
 * once for all its children that stand side by side, as those of most tables do,
 * however many parents there are.  What a look-up costs and what a join does were
 * measured: from this many rows a look-up on, row by row is faster.  A few blocks
 * at the beginning, and now and then, tell whether it would be.
 */
#define MIN_ROWS_PER_LOOKUP 4
#define TRIAL_BLOCKS 16
#define BATCHES_BETWEEN_TRIALS 32

/*
 * How many blocks this process copies in the time wanted, and how it comes to
 * derived keys.  These are guesses that outlive the step, of no worth to anybody
 * else and lost without harm, so they are a static of the process and not fields
 * of the Run.
 */
static struct
{
	int64 migration_id;
	double blocks;
	bool row_by_row; /* derived keys: as the last batch so told */
	int until_trial; /* batches by join before the next one row by row */
} pace;

/* One batch, and what came of it. */
typedef struct CopyJob
{
	Batch *batch;
	CopyCare care;
	bool at_rows;	 /* everything is prepared: an error may be a row's */
	bool derives;	 /* keys, */
	bool row_by_row; /* not by a join */
	bool trial;		 /* of that: few blocks */
	bool ours;		 /* false: the range was given to somebody else */
	int64 rows;
	int64 logged;
	int64 skipped;
	int64 lookups;	/* of parents, row by row */
	double took_ms; /* reading and writing, without waits for locks */
	int target_ms;
} CopyJob;

static void copy_batch(Run *run, void *arg);
static void copy_range(Run *run, CopyJob *job, Relation source, Relation target);

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

/*
 * The goal lies beyond logging: begin to copy.  What the copy needs (horizon,
 * last block) was recorded with the trigger.
 */
StepResult
copy_begin_step(Run *run)
{
	run_begin(run);
	if (run->m != NULL && run->m->state == STATE_LOGGING)
		state_change(run->m, STATE_COPYING, "copying %u block%s of %s", run->m->end_block,
					 run->m->end_block == 1 ? "" : "s", sql_relation(run->m->source));
	run_commit(run);
	return STEP_DONE;
}

/*
 * The leader's: leave the state once all blocks are copied.  Errors as
 * guard_check().
 */
StepResult
copy_step(Run *run)
{
	StepResult result = STEP_DONE;

	run_begin(run);
	if (run->m != NULL && run->m->state == STATE_COPYING)
	{
		result = STEP_MORE;
		if (batch_open_count(run->m, BATCH_COPY) == 0)
		{
			/* a TRUNCATE after the last batch is noticed here */
			LockRelationOid(run->m->source, AccessShareLock);
			guard_check(run->m);
			state_change(run->m, STATE_INDEXING, "all rows are copied");
			result = STEP_DONE;
		}
	}
	run_commit(run);
	return result;
}

/* How many blocks to claim, and what for. */
static BlockNumber
pace_blocks(CopyJob *job, Migration *m)
{
	if (pace.migration_id != m->id)
	{
		pace.migration_id = m->id;
		pace.blocks = FIRST_BATCH_BLOCKS;
		pace.row_by_row = false;
		pace.until_trial = 0;
	}
	job->derives = json_field(m->options, "derived") != NULL;
	job->trial = job->derives && !pace.row_by_row && pace.until_trial == 0;
	return throttle_blocks(
		m, (BlockNumber) (job->trial ? Min(pace.blocks, TRIAL_BLOCKS) : pace.blocks));
}

/*
 * What a batch tells about the way to come to derived keys.  A careful one looks
 * up row by row in any case, and doesn't count.
 */
static void
learn_lookups(CopyJob *job)
{
	if (job->row_by_row || job->trial)
		pace.until_trial = BATCHES_BETWEEN_TRIALS;
	else if (pace.until_trial > 0)
		pace.until_trial--;
	if (job->care == COPY_FAST)
		pace.row_by_row = job->row_by_row && job->lookups * MIN_ROWS_PER_LOOKUP <=
												 job->rows + job->logged + job->skipped;
}

/*
 * Learn from a batch.  A short one at the table's end that was quick says
 * nothing, nor does a trial once there is more to go by.
 */
static void
pace_learn(CopyJob *job)
{
	double blocks = (double) job->batch->last_block - job->batch->first_block + 1;
	double wanted = blocks * job->target_ms / Max(job->took_ms, 1.0);

	if (job->derives)
		learn_lookups(job);
	if (job->trial ? pace.blocks > FIRST_BATCH_BLOCKS
				   : blocks < floor(pace.blocks) && wanted > pace.blocks)
		return;
	wanted = Max(wanted, pace.blocks * MAX_PACE_SHRINK);
	wanted = Min(wanted, pace.blocks * MAX_PACE_GROWTH);
	pace.blocks = Min(Max(wanted, MIN_BATCH_BLOCKS), MAX_BATCH_BLOCKS);
}

/*
 * Copy a claimed batch, with all the care that it takes.  False and *error: it failed, or
 * was cut in two, which is told by *error being NULL.
 */
static bool
copy_claimed(Run *run, CopyJob *job, ErrorData **error)
{
	for (job->care = COPY_FAST;; job->care++)
	{
		ErrorKind kind;

		job->at_rows = false;
		if (run_attempt(run, copy_batch, job, error))
			return true;
		kind = error_kind((*error)->sqlerrcode);
		if (!job->at_rows || kind < (job->care == COPY_FAST ? ERROR_DEFINITION : ERROR_ROW) ||
			job->care == COPY_ALONE)
			return false;
		if (job->care == COPY_CAREFUL && job->batch->first_block < job->batch->last_block)
		{
			batch_split(run, job->batch);
			*error = NULL;
			return false;
		}
	}
}

/*
 * Copy one batch.  On an error that isn't a row's, it is given back for somebody else to
 * try, and the error goes on to the caller.  (A cancel or shutdown ends the process's
 * lease, which frees the batch as well.)
 */
StepResult
copy_work(Run *run)
{
	CopyJob job = {0};
	ErrorData *error = NULL;

	run_begin(run);
	if (run->m != NULL && run->m->state == STATE_COPYING && !run->m->paused)
		job.batch = batch_claim(run, BATCH_COPY, pace_blocks(&job, run->m));
	run_commit(run);
	if (job.batch == NULL)
		return STEP_WAIT;

	if (copy_claimed(run, &job, &error))
	{
		if (job.ours)
			pace_learn(&job);
	}
	else if (error != NULL)
	{
		batch_give_back(run, job.batch);
		ReThrowError(error);
	}
	return STEP_MORE;
}

/* ------------------------------------------------------------------------
 * A batch
 * ------------------------------------------------------------------------
 */

static void
copy_error_context(void *arg)
{
	Batch *batch = arg;

	errcontext("copying blocks %u to %u of table with OID %u", batch->first_block,
			   batch->last_block, batch->relation);
}

static void
set_for_copying(void)
{
	/* compiling a query whose rows go through a receiver of ours costs more than it gains */
	forbid_compiling();
	pin_setting("enable_tidscan", "on");

	/* a join that derives keys is to be held in memory: as much of it as an index build has */
	if (work_mem < maintenance_work_mem)
		pin_setting("work_mem", psprintf("%dkB", maintenance_work_mem));

	/*
	 * A crash may lose the last commits, but none in part: the batch's row is
	 * of the same transaction as its rows, so it is copied again.  LOCAL and
	 * not SAVE: it must be in force when the transaction commits, after
	 * run_commit() has put other settings back.
	 */
	set_until_commit("synchronous_commit", "off");
}

/*
 * The error of a copy that ran for too long.
 */
static void
check_horizon_age(Migration *m)
{
	uint64 next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64 horizon = U64FromFullTransactionId(m->horizon);

	if (next - horizon > MAX_TRANSACTIONS_PAST_HORIZON)
		ereport(ERROR,
				(errcode(ERRCODE_MIGRATION_RESTART),
				 errmsg("the copy of migration \"%s\" must start over", m->name),
				 errdetail("%llu transactions have passed since it began; more than %llu can't be "
						   "told from older ones.",
						   (unsigned long long) (next - horizon),
						   (unsigned long long) MAX_TRANSACTIONS_PAST_HORIZON)));
}

/*
 * The transaction of a batch.  Locks: source AccessShareLock, target
 * RowExclusiveLock, leaves RowExclusiveLock as rows come.
 */
static void
copy_batch(Run *run, void *arg)
{
	CopyJob *job = arg;
	Migration *m = run->m;
	Batch *batch = job->batch;
	ErrorContextCallback callback = {error_context_stack, copy_error_context, batch};
	Relation source;
	Relation target;

	if (m == NULL || m->state != STATE_COPYING)
		return;
	error_context_stack = &callback;
	job->target_ms = settings_get_int(m, "batch_target_ms");
	run_report(run, "copying blocks %u to %u of %u", batch->first_block, batch->last_block,
			   m->end_block);
	ME_DEBUG_POINT("copy_after_claim");

	LockRelationOid(m->source, AccessShareLock);
	LockRelationOid(m->target, RowExclusiveLock);

	/*
	 * First the batch, then the rest: where the copy has started over since
	 * run_begin(), the batch is gone and "m" is not true any more.
	 */
	job->ours = batch_begin(run, batch);
	if (job->ours)
	{
		guard_check(m);
		check_horizon_age(m);
		set_for_copying();
		source = table_open(m->source, NoLock);
		target = table_open(m->target, NoLock);
		copy_range(run, job, source, target);
		table_close(target, NoLock);
		table_close(source, NoLock);
		batch_finish(run, batch, job->rows, job->logged, job->skipped);
		throttle_note(m, job->rows + job->logged, batch->last_block - batch->first_block + 1);
		ME_DEBUG_POINT("copy_before_commit");
	}
	error_context_stack = callback.previous;
}

/*
 * Read the batch's blocks with a new snapshot, as the owner.  Everything was
 * locked and checked before.
 */
static void
copy_range(Run *run, CopyJob *job, Relation source, Relation target)
{
	CopyReceiver receiver = {{0}};
	instr_time start;
	instr_time took;

	ME_DEBUG_POINT("copy_before_snapshot");
	INSTR_TIME_SET_CURRENT(start);
	PushActiveSnapshot(GetTransactionSnapshot());
	ME_DEBUG_POINT("copy_after_snapshot");

	run_as_owner(run);
	receiver.care = job->care;
	copy_receiver_init(&receiver, run->m, job->batch, source, target,
					   pace.row_by_row || pace.until_trial == 0);
	job->at_rows = true;
	job->lookups = copy_receiver_read(&receiver, job->batch, source);
	copy_receiver_finish(&receiver);
	run_as_self(run);

	PopActiveSnapshot();
	if (receiver.failed > 0)
		failed_rows_limit(run->m);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	job->took_ms = INSTR_TIME_GET_MILLISEC(took);
	job->rows = receiver.rows;
	job->logged = receiver.logged;
	job->skipped = receiver.skipped;
	job->row_by_row = receiver.row_by_row;
	if (receiver.joins[0] != '\0')
		job->target_ms *= JOIN_TARGET_FACTOR;
}
