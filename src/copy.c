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
 * A row that doesn't fit the target (no partition, NOT NULL, CHECK, a value that
 * can't be converted) is logged as well: the drain will find the same, and set
 * it aside with the reason.  One bad row so never stops a copy.
 *
 * Batch, progress and log entries are of one transaction; a crash loses all of
 * them or nothing, and the range is then copied anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "batch.h"
#include "catalog.h"
#include "changelog.h"
#include "columns.h"
#include "debug_point.h"
#include "derive.h"
#include "errors.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "tuple_writer.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/resowner.h"
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
 * Look-ups that the planner thinks costlier than this aren't tried: some index
 * scans cost less, reading a table for want of an index costs more.
 */
#define MAX_LOOKUP_COST 100.0

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
	bool careful;	 /* catch errors of single rows */
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

/* Takes the rows of a batch's query. */
typedef struct CopyReceiver
{
	DestReceiver pub;

	/* which rows are copied */
	TransactionId horizon;
	uint32 window; /* transaction ids from the horizon to the snapshot's xmax */

	/* the row: as of the source, then of the target */
	int ncolumns;
	AttrNumber *attnums; /* of the source, by column of the query after xmin */
	TupleTableSlot *source_slot;
	TupleTableSlot *target_slot;
	EState *estate;
	ExprContext *econtext; /* reset a row */
	ColumnEval *eval;
	bool careful;	 /* as in CopyJob */
	bool row_by_row; /* as in CopyJob */

	/* derived keys that the query brings, after the source's columns */
	int first_column; /* of the source's, in the query */
	List *derived;	  /* attributes of the target, counted from 0 */
	char *joins;	  /* that they need */
	BlockNumber first_block;
	uint8 *seen;		 /* a bit a line pointer: has its row come already? */
	Bitmapset *skip_key; /* rows with NULL in one of these are left out */

	/* where it goes */
	TupleWriter *writer;
	ChangeLog *log;
	LogColumns log_columns;
	Datum *log_values;
	bool *log_isnull;

	int64 rows;
	int64 logged;
	int64 skipped;
} CopyReceiver;

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

static void
give_back(Run *run, void *arg)
{
	CopyJob *job = arg;

	if (run->m != NULL)
		batch_give_back(run, job->batch);
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
	return (BlockNumber) (job->trial ? Min(pace.blocks, TRIAL_BLOCKS) : pace.blocks);
}

/*
 * Are this batch's keys, if it has any to derive, looked up row by row?
 */
static bool
is_row_by_row(ColumnMap *map, Relation source)
{
	double cost = 0;

	if (!pace.row_by_row && pace.until_trial > 0)
		return false;
	for (int i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL)
			cost += derive_cost(source, map->derived[i]->derivation);
	}
	return cost > 0 && cost <= MAX_LOOKUP_COST;
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
	if (!job->careful)
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
 * Is this the fault of a row's values?  Conversions, constraints, and what an
 * owner's function may raise.
 */
static bool
is_data_error(int sqlerrcode)
{
	int category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category == ERRCODE_DATA_EXCEPTION ||
		   category == ERRCODE_TO_CATEGORY(ERRCODE_CARDINALITY_VIOLATION) ||
		   category == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION || category == ERRCODE_PLPGSQL_ERROR;
}

/*
 * Copy one batch.  If a row's values make it fail, it is tried again row by row.
 * On another error, the batch is given back for somebody else to try, and the
 * error goes on to the caller.  (A cancel or shutdown ends the process's lease,
 * which frees the batch as well.)
 */
StepResult
copy_work(Run *run)
{
	CopyJob job = {0};
	ErrorData *error = NULL;
	ErrorData *second = NULL;
	bool copied;

	run_begin(run);
	if (run->m != NULL && run->m->state == STATE_COPYING && !run->m->paused)
		job.batch = batch_claim(run, BATCH_COPY, pace_blocks(&job, run->m));
	run_commit(run);
	if (job.batch == NULL)
		return STEP_WAIT;

	copied = run_attempt(run, copy_batch, &job, &error);
	if (!copied && is_data_error(error->sqlerrcode))
	{
		job.careful = true;
		copied = run_attempt(run, copy_batch, &job, &error);
	}
	if (!copied)
	{
		/* should this fail too, the first error is the one to tell */
		(void) run_attempt(run, give_back, &job, &second);
		ReThrowError(error);
	}
	if (job.ours)
		pace_learn(&job);
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

/* For this transaction only. */
static void
set_locally(const char *name, const char *value, GucAction action)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, action, true, 0, false);
}

static void
set_for_copying(void)
{
	/* compiling a query whose rows go through a receiver of ours costs more than it gains */
	set_locally("jit", "off", GUC_ACTION_SAVE);
	set_locally("enable_tidscan", "on", GUC_ACTION_SAVE);

	/* a join that derives keys is to be held in memory: as much of it as an index build has */
	if (work_mem < maintenance_work_mem)
		set_locally("work_mem", psprintf("%dkB", maintenance_work_mem), GUC_ACTION_SAVE);

	/*
	 * A crash may lose the last commits, but none in part: the batch's row is
	 * of the same transaction as its rows, so it is copied again.  LOCAL and
	 * not SAVE: it must be in force when the transaction commits, after
	 * run_commit() has put other settings back.
	 */
	set_locally("synchronous_commit", "off", GUC_ACTION_LOCAL);
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
		ME_DEBUG_POINT("copy_before_commit");
	}
	error_context_stack = callback.previous;
}

/*
 * All columns of the source, in order.  The block after the last one fits in
 * the text: there is always one number left that no block has.
 *
 *		SELECT s.xmin, s.a, s.b FROM ONLY public.t s
 *		 WHERE s.ctid >= '(0,0)'::pg_catalog.tid AND s.ctid < '(128,0)'::pg_catalog.tid
 *
 * Where it derives keys, by joins, the row's ctid and their values come along.
 */
static char *
range_query(Batch *batch, Relation source, CopyReceiver *receiver)
{
	char *columns =
		sql_columns(RelationGetRelid(source), receiver->ncolumns, receiver->attnums, "s");
	StringInfoData sql;
	ListCell *cell;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT s.xmin, %s%s", receiver->derived != NIL ? "s.ctid, " : "",
					 columns);
	foreach (cell, receiver->derived)
	{
		DerivedColumn *derived = receiver->eval->map->derived[lfirst_int(cell)];

		appendStringInfo(&sql, ", (%s)::%s", derived->value, derived->type);
	}
	appendStringInfo(&sql,
					 " FROM ONLY %s s%s WHERE s.ctid >= '(%u,0)'::pg_catalog.tid"
					 " AND s.ctid < '(%u,0)'::pg_catalog.tid",
					 sql_relation(RelationGetRelid(source)), receiver->joins, batch->first_block,
					 batch->last_block + 1);
	return sql.data;
}

/*
 * Run the query with the active snapshot.  Without CURSOR_OPT_PARALLEL_OK, which
 * plain SPI_execute would pass: the receiver writes.
 */
static void
run_query(const char *sql, DestReceiver *dest)
{
	SPIPrepareOptions prepare = {0};
	SPIExecuteOptions execute = {0};
	SPIPlanPtr plan;
	int code;

	SPI_connect();
	plan = SPI_prepare_extended(sql, &prepare);
	execute.read_only = true; /* the active snapshot, not a new one */
	execute.dest = dest;
	code = plan != NULL ? SPI_execute_plan_extended(plan, &execute) : SPI_result;
	if (code != SPI_OK_SELECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not read the rows to copy: %s", SPI_result_code_string(code)),
						errdetail("The statement is: %s", sql)));
	SPI_finish();
}

/* ------------------------------------------------------------------------
 * The receiver
 * ------------------------------------------------------------------------
 */

/* Was this version written after the trigger came? */
static inline bool
is_recent(CopyReceiver *receiver, TransactionId xmin)
{
	return TransactionIdIsNormal(xmin) && (uint32) (xmin - receiver->horizon) < receiver->window;
}

static void
log_identity(CopyReceiver *receiver)
{
	TupleTableSlot *slot = receiver->source_slot;

	for (int i = 0; i < receiver->log_columns.natts; i++)
	{
		AttrNumber attnum = receiver->log_columns.attnums[i];

		receiver->log_values[i] = slot->tts_values[attnum - 1];
		receiver->log_isnull[i] = slot->tts_isnull[attnum - 1];
	}
	changelog_append(receiver->log, receiver->log_values, receiver->log_isnull);
	receiver->logged++;
}

/*
 * The row in the target's format; false if an expression fails on its values.
 * The subtransaction writes nothing and opens nothing that is to stay.
 */
static bool
convert_carefully(CopyReceiver *receiver)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		columns_eval(receiver->eval, receiver->source_slot, receiver->target_slot,
					 receiver->econtext);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;

	if (error != NULL && !is_data_error(error->sqlerrcode))
		ReThrowError(error);
	return error == NULL;
}

/*
 * A join that derives a key may find more than one row, where a scalar subquery
 * would fail.  So would this batch; the careful way then tells whose fault it is.
 */
static void
check_not_seen(CopyReceiver *receiver, ItemPointer tid)
{
	Size bit =
		(Size) (ItemPointerGetBlockNumber(tid) - receiver->first_block) * MaxHeapTuplesPerPage +
		ItemPointerGetOffsetNumber(tid) - 1;

	if (receiver->seen[bit / 8] & (1 << (bit % 8)))
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("more than one row returned by a subquery used as an expression")));
	receiver->seen[bit / 8] |= 1 << (bit % 8);
}

/* Take the derived keys from a row of the query. */
static void
take_derived(CopyReceiver *receiver, TupleTableSlot *slot)
{
	int column = receiver->first_column + receiver->ncolumns;
	ListCell *cell;

	check_not_seen(receiver, (ItemPointer) DatumGetPointer(slot->tts_values[1]));
	foreach (cell, receiver->derived)
	{
		receiver->eval->given[lfirst_int(cell)].value = slot->tts_values[column];
		receiver->eval->given[lfirst_int(cell)].isnull = slot->tts_isnull[column];
		column++;
	}
}

/* Is the row to be left out, as options.on_null_key says? */
static bool
is_skipped(CopyReceiver *receiver)
{
	int attnum = -1;

	while ((attnum = bms_next_member(receiver->skip_key, attnum)) >= 0)
	{
		if (receiver->target_slot->tts_isnull[attnum - 1])
			return true;
	}
	return false;
}

/* Copy the row in the source slot; false if it doesn't fit. */
static bool
copy_row(CopyReceiver *receiver)
{
	if (!receiver->careful)
		columns_eval(receiver->eval, receiver->source_slot, receiver->target_slot,
					 receiver->econtext);
	else if (!convert_carefully(receiver))
		return false;
	if (is_skipped(receiver))
	{
		receiver->skipped++;
		return true;
	}
	if (!tuple_writer_add(receiver->writer, receiver->target_slot))
		return false;
	receiver->rows++;
	return true;
}

/* One row of the query: copy it, or log it. */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CopyReceiver *receiver = (CopyReceiver *) self;
	TupleTableSlot *row = receiver->source_slot;
	MemoryContext old_context = MemoryContextSwitchTo(receiver->econtext->ecxt_per_tuple_memory);

	slot_getallattrs(slot);
	ExecClearTuple(row);
	for (int i = 0; i < receiver->ncolumns; i++)
	{
		AttrNumber attnum = receiver->attnums[i];

		row->tts_values[attnum - 1] = slot->tts_values[i + receiver->first_column];
		row->tts_isnull[attnum - 1] = slot->tts_isnull[i + receiver->first_column];
	}
	ExecStoreVirtualTuple(row);
	if (receiver->derived != NIL)
		take_derived(receiver, slot);

	if (is_recent(receiver, DatumGetTransactionId(slot->tts_values[0])) || !copy_row(receiver))
		log_identity(receiver);
	MemoryContextSwitchTo(old_context);
	ResetExprContext(receiver->econtext);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	CopyReceiver *receiver PG_USED_FOR_ASSERTS_ONLY = (CopyReceiver *) self;

	Assert(typeinfo->natts ==
		   receiver->first_column + receiver->ncolumns + list_length(receiver->derived));
}

static void
receiver_nothing(DestReceiver *self)
{
}

/* Slots of the source's row: dropped columns stay NULL in it. */
static void
receiver_init_columns(CopyReceiver *receiver, Relation source, Relation target)
{
	TupleDesc desc = RelationGetDescr(source);

	receiver->attnums = palloc(desc->natts * sizeof(AttrNumber));
	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			receiver->attnums[receiver->ncolumns++] = i + 1;
	}
	receiver->source_slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(desc), &TTSOpsVirtual);
	receiver->target_slot =
		MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(target)), &TTSOpsVirtual);
	memset(receiver->source_slot->tts_isnull, true, desc->natts * sizeof(bool));
}

/*
 * Keys that the query derives, unless they are looked up row by row.  The careful
 * way always does so: there an error is one row's.
 */
static void
receiver_init_derived(CopyReceiver *receiver, Migration *m, Batch *batch, Relation source)
{
	ColumnMap *map = receiver->eval->map;
	Size blocks = (Size) batch->last_block - batch->first_block + 1;

	receiver->first_column = 1;
	receiver->joins = "";
	if (columns_skip_null_key(m))
		receiver->skip_key = columns_of_root_key(m->target);
	if (map->has_derived && !receiver->careful)
		receiver->row_by_row = is_row_by_row(map, source);
	if (receiver->careful || receiver->row_by_row || !map->has_derived)
		return;
	for (int i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL)
			receiver->derived = lappend_int(receiver->derived, i);
	}
	receiver->joins = columns_joins(m);
	receiver->first_column = 2;
	receiver->first_block = batch->first_block;
	receiver->seen = palloc0(blocks * MaxHeapTuplesPerPage / 8 + 1);
	receiver->eval->given = palloc0(map->natts * sizeof(NullableDatum));
}

/*
 * A receiver for one batch, whose snapshot is the active one.  The caller is
 * the owner.
 */
static void
receiver_init(CopyReceiver *receiver, Migration *m, Batch *batch, Relation source, Relation target)
{
	receiver->pub.receiveSlot = receive_row;
	receiver->pub.rStartup = receiver_startup;
	receiver->pub.rShutdown = receiver_nothing;
	receiver->pub.rDestroy = receiver_nothing;
	receiver->pub.mydest = DestTransientRel; /* anything that SPI doesn't treat specially */

	receiver->horizon = XidFromFullTransactionId(m->horizon);
	receiver->window = GetActiveSnapshot()->xmax - receiver->horizon;

	receiver_init_columns(receiver, source, target);
	receiver->estate = CreateExecutorState();
	receiver->econtext = CreateExprContext(receiver->estate);
	receiver->eval = columns_prepare(columns_build(m, DIRECTION_FORWARD), receiver->estate);
	receiver_init_derived(receiver, m, batch, source);
	receiver->writer = tuple_writer_create(target, !m->made_target);

	receiver->log = changelog_open(m->log);
	if (receiver->log == NULL)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_TAMPERED),
						errmsg("the change log of migration \"%s\" is gone", m->name),
						errhint("Call migrate_ext.cancel and make the migration anew.")));
	changelog_columns(m->log, &receiver->log_columns);
	receiver->log_values = palloc(receiver->log_columns.natts * sizeof(Datum));
	receiver->log_isnull = palloc(receiver->log_columns.natts * sizeof(bool));
}

/* Writes what the writer still holds: the snapshot is still needed for that. */
static void
receiver_finish(CopyReceiver *receiver)
{
	tuple_writer_finish(receiver->writer);
	changelog_close(receiver->log);
	ExecDropSingleTupleTableSlot(receiver->source_slot);
	ExecDropSingleTupleTableSlot(receiver->target_slot);
	FreeExecutorState(receiver->estate);
}

/*
 * Run the batch's query.  Look-ups row by row are a series as long as that: with
 * the batch's snapshot, as a join has it, and nothing remembered beyond.
 */
static void
read_range(CopyJob *job, Relation source, CopyReceiver *receiver)
{
	char *sql = range_query(job->batch, source, receiver);

	if (!receiver->row_by_row)
	{
		run_query(sql, &receiver->pub);
		return;
	}
	derive_series_begin();
	PG_TRY();
	{
		run_query(sql, &receiver->pub);
	}
	PG_FINALLY();
	{
		job->lookups = derive_series_end();
	}
	PG_END_TRY();
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
	receiver.careful = job->careful;
	receiver_init(&receiver, run->m, job->batch, source, target);
	read_range(job, source, &receiver);
	receiver_finish(&receiver);
	run_as_self(run);

	PopActiveSnapshot();
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
