/*-------------------------------------------------------------------------
 *
 * key_fill.c
 *	  Fills the sharding key of the rows in a range of a table's places.
 *
 * One statement does it, so that all of it sees one snapshot:
 *
 *	t	counts the rows that lack the key;
 *	l	locks those of them that nobody else has locked (SKIP LOCKED): we never
 *		wait for a row, so whoever waits for one of ours is never in a deadlock
 *		with us because of rows;
 *	v	derives their values, by a join, from the same definition as a copy;
 *	u	updates them by their places, if the key is still NULL.
 *
 * A row that is changed between the snapshot and the lock is locked in its new
 * version, which the snapshot doesn't see and u doesn't find: it is "left".  So
 * is one that somebody else holds.  A value that the application wrote is never
 * overwritten: what u updates is the version that t saw without a key, and that
 * is locked.
 *
 * Rows stay locked until the transaction ends.  So it is short: a range with
 * more rows to fill than fit the time is cut into pieces, each a transaction of
 * its own.  So is a range in which a row fails: halved until the one row is
 * alone, which goes into failed_rows with its error.
 *
 * Doing a range twice does no harm, the second time there is nothing to fill.
 * So a batch whose process died half-way is simply done again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "attempt.h"
#include "catalog.h"
#include "columns.h"
#include "debug_point.h"
#include "errors.h"
#include "executor/spi.h"
#include "failed_rows.h"
#include "key_fill.h"
#include "key_sql.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "relinfo.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * An application waits for rows that we have locked, so a transaction that fills
 * some should be shorter than what people notice, whatever batch_target_ms is.
 */
#define LONGEST_TARGET_MS 100

/* Rows in a transaction: at first, and the most.  A trigger may take long for one. */
#define FIRST_ROWS 500
#define MAX_ROWS 20000

/* Blocks in a job: at first, and the most (64 MB, which are read in a moment). */
#define FIRST_BLOCKS 16
#define MAX_BLOCKS 8192

/* How far one measurement may change the next size. */
#define MAX_PACE_GROWTH 2.0
#define MAX_PACE_SHRINK 0.25

/* What this process has learned of a table; lost without harm. */
static struct
{
	int64 migration_id;
	double blocks;
	double rows;
} pace;

/* One transaction. */
typedef struct Piece
{
	KeyJob *job;
	KeyRange range;
	bool whole;		  /* the job's range: its batch is of the same transaction */
	bool again;		  /* counted before, see fill_range() */
	bool patient;	  /* what fails with an error that passes is done again */
	ErrorData *error; /* what the row in it failed with */

	/* what came of it */
	int64 split; /* too many rows: cut it into so many pieces */
	int64 kept;	 /* locked by us, and not updated all the same */
	KeyCounts counts;
	double took_ms;
} Piece;

/* ------------------------------------------------------------------------
 * Pace
 * ------------------------------------------------------------------------
 */

static void
pace_begin(int64 migration_id)
{
	if (pace.migration_id == migration_id)
		return;
	pace.migration_id = migration_id;
	pace.blocks = FIRST_BLOCKS;
	pace.rows = FIRST_ROWS;
}

static double
pace_next(double now, double wanted, double max)
{
	wanted = Min(Max(wanted, now * MAX_PACE_SHRINK), now * MAX_PACE_GROWTH);
	return Min(Max(wanted, 1), max);
}

/* Few rows say more of what a statement costs than of what a row does. */
static void
pace_learn_rows(const Piece *piece)
{
	int target_ms = piece->job->target_ms;
	double wanted = piece->counts.filled * target_ms / Max(piece->took_ms, 0.1);

	if (piece->counts.filled >= pace.rows / 2 ||
		(piece->counts.filled > 0 && piece->took_ms > target_ms))
		pace.rows = pace_next(pace.rows, wanted, MAX_ROWS);
}

static void
pace_learn_blocks(const KeyJob *job, double took_ms)
{
	double blocks = (double) (job->range.end - job->range.first) / KEY_PLACES;
	double wanted = blocks * job->target_ms / Max(took_ms, 0.1);

	if (blocks < floor(pace.blocks) && wanted > pace.blocks)
		return;
	pace.blocks = pace_next(pace.blocks, wanted, MAX_BLOCKS);
}

BlockNumber
key_fill_blocks(int64 migration_id)
{
	pace_begin(migration_id);
	return (BlockNumber) pace.blocks;
}

KeyRange
key_blocks(BlockNumber first, BlockNumber end)
{
	KeyRange range = {first * KEY_PLACES, end * KEY_PLACES};

	return range;
}

void
key_counts_add(KeyCounts *a, const KeyCounts *b)
{
	a->rows += b->rows;
	a->filled += b->filled;
	a->skipped += b->skipped;
	a->failed += b->failed;
	a->left += b->left;
}

/* ------------------------------------------------------------------------
 * Statements
 * ------------------------------------------------------------------------
 */

/*
 * The table's triggers fire as its owner, with the search_path of who called
 * backfill_key(), behind pg_catalog, in which our own statement was written.
 * Deferred triggers fire at once: none may in a restricted operation's commit.
 */
static void
become_writer(Run *run, KeySql **sql, Relation rel, KeyRange range)
{
	char *search_path = json_field(run->m->options, "search_path");

	(void) sql_run("SET CONSTRAINTS ALL IMMEDIATE");
	forbid_compiling();
	pin_setting("enable_tidscan", "on");
	/* as in the copy: what a crash loses is done again; in force at the commit */
	set_until_commit("synchronous_commit", "off");
	run_as_owner(run);
	*sql = key_sql(run, rel, range);
	pin_setting("search_path",
				psprintf("pg_catalog, %s%spg_temp", search_path, *search_path != '\0' ? ", " : ""));
}

/* Run a query of one row; its columns that are numbers.  The last may be jsonb. */
static void
query(const char *sql, int ncolumns, int64 *values, Jsonb **last)
{
	MemoryContext outer = CurrentMemoryContext;
	bool isnull;

	SPI_connect();
	if (SPI_execute(sql, false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not look at the rows to fill: %s",
							   SPI_result_code_string(SPI_result)),
						errdetail("The statement is: %s", sql)));
	for (int i = 0; i < ncolumns; i++)
		values[i] = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull));
	if (last != NULL)
	{
		Datum value =
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, ncolumns + 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(outer);

		*last = isnull ? NULL : DatumGetJsonbPCopy(value);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
}

/* A join finds each of several parent rows, where a scalar subquery would fail. */
static void
check_parents(int64 derived, int64 rows)
{
	if (derived > rows)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("more than one row returned by a subquery used as an expression")));
}

/* How many rows there are, and how many of them lack the key. */
static void
count_lacking(const KeySql *sql, int64 *rows, int64 *lacking)
{
	int64 values[2];

	query(psprintf("SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE s.%s IS NULL)"
				   " FROM ONLY %s s WHERE %s",
				   sql->column, sql->table, sql->places),
		  2, values, NULL);
	*rows = values[0];
	*lacking = values[1];
}

/* See the file's head.  Returns the identities of rows whose value is NULL, or NULL. */
static Jsonb *
update_rows(Piece *piece, const KeySql *sql, bool skip)
{
	KeyCounts *counts = &piece->counts;
	int64 n[5]; /* of t, l, v, v without a value, u */
	Jsonb *identities;

	query(
		psprintf(
			"WITH t AS MATERIALIZED (SELECT pg_catalog.count(*) AS n FROM ONLY %1$s s"
			" WHERE %3$s AND s.%2$s IS NULL),"
			" l AS MATERIALIZED (SELECT s.ctid%4$s FROM ONLY %1$s s"
			" WHERE %3$s AND s.%2$s IS NULL %5$s OF s SKIP LOCKED),"
			" v AS MATERIALIZED (SELECT s.ctid, (%6$s) AS value FROM l s%7$s),"
			" u AS (UPDATE ONLY %1$s u SET %2$s = v.value FROM v WHERE u.ctid = v.ctid"
			" AND %8$s AND u.%2$s IS NULL AND v.value IS NOT NULL RETURNING 1)"
			" SELECT t.n, (SELECT pg_catalog.count(*) FROM l), (SELECT pg_catalog.count(*) FROM v),"
			" (SELECT pg_catalog.count(*) FROM v WHERE v.value IS NULL),"
			" (SELECT pg_catalog.count(*) FROM u),"
			" (SELECT pg_catalog.jsonb_agg(%9$s) FROM v JOIN l s ON s.ctid = v.ctid"
			" WHERE v.value IS NULL AND %10$s) FROM t",
			sql->table, sql->column, sql->places, sql->columns, sql->lock, sql->value, sql->joins,
			key_places("u", piece->range), sql->identity, skip ? "false" : "true"),
		5, n, &identities);
	check_parents(n[2], n[1]);
	counts->filled = n[4];
	if (skip)
		counts->skipped = n[3];
	else
		counts->failed = n[3];
	counts->left = Max(n[0] - n[4] - n[3], 0);
	piece->kept = Max(n[1] - n[4] - n[3], 0);
	return identities;
}

/* ------------------------------------------------------------------------
 * One transaction
 * ------------------------------------------------------------------------
 */

static void
fill_error_context(void *arg)
{
	KeyRange *range = arg;

	errcontext("filling the sharding key of rows in blocks %u to %u",
			   (BlockNumber) (range->first / KEY_PLACES),
			   (BlockNumber) ((range->end - 1) / KEY_PLACES));
}

static bool
is_stopped(const Run *run, const KeyJob *job)
{
	return run->m == NULL || run->m->paused || run->m->state != job->state ||
		   run->m->goal == STATE_CANCELLED;
}

/* Fill the piece, unless there is too much in it.  The source is locked. */
static void
fill_places(Run *run, Piece *piece)
{
	bool skip = columns_skip_null_key(run->m);
	Relation rel = table_open(run->m->source, NoLock);
	Jsonb *nulls = NULL;
	int64 lacking;
	KeySql *sql;

	PushActiveSnapshot(GetTransactionSnapshot());
	become_writer(run, &sql, rel, piece->range);
	count_lacking(sql, &piece->counts.rows, &lacking);
	if (lacking > pace.rows && piece->range.end - piece->range.first > 1)
		piece->split = (int64) ceil(lacking / pace.rows);
	else if (lacking > 0)
	{
		ME_DEBUG_POINT("key_before_update");
		nulls = update_rows(piece, sql, skip);
	}
	run_as_self(run);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	if (nulls != NULL && !piece->again)
	{
		failed_rows_add(run->m->id, nulls, ERRCODE_NOT_NULL_VIOLATION,
						psprintf("the value of column %s comes out NULL", sql->column));
		failed_rows_limit(run->m);
	}
}

/* Part of a block is told by its rows alone. */
static BlockNumber
blocks_of(KeyRange range)
{
	uint64 blocks = (range.end - range.first) / KEY_PLACES;

	return blocks > 0 ? (BlockNumber) blocks : InvalidBlockNumber;
}

/* The body of an attempt.  Locks: source RowExclusiveLock, rows as they are filled. */
static void
fill_piece(Run *run, void *arg)
{
	Piece *piece = arg;
	KeyJob *job = piece->job;
	ErrorContextCallback callback = {error_context_stack, fill_error_context, &piece->range};
	instr_time start;
	instr_time took;

	job->stopped |= is_stopped(run, job);
	if (job->stopped)
		return;
	error_context_stack = &callback;
	key_guard(run, RowExclusiveLock);
	job->target_ms = Min(settings_get_int(run->m, "batch_target_ms"), LONGEST_TARGET_MS);
	job->rewritten = relinfo_relfilenode(run->m->source) != job->relfilenode;
	if (!job->rewritten)
	{
		INSTR_TIME_SET_CURRENT(start);
		fill_places(run, piece);
		INSTR_TIME_SET_CURRENT(took);
		INSTR_TIME_SUBTRACT(took, start);
		piece->took_ms = INSTR_TIME_GET_MILLISEC(took);
		pace_learn_rows(piece);
	}
	if (!job->rewritten && piece->split == 0)
	{
		/* what is cut counts by its parts */
		throttle_note(run->m, piece->counts.rows, blocks_of(piece->range));
		/* somebody else's by now: he will find nothing to fill */
		if (piece->whole && job->batch != NULL && batch_begin(run, job->batch))
			batch_finish(run, job->batch, piece->counts.filled, piece->counts.left,
						 piece->counts.skipped);
		ME_DEBUG_POINT("key_before_commit");
	}
	error_context_stack = callback.previous;
}

/* The body of another: the one row at this place can't be filled. */
static void
set_aside(Run *run, void *arg)
{
	Piece *piece = arg;
	Relation rel;
	KeySql *sql;
	Jsonb *identity;

	piece->job->stopped |= is_stopped(run, piece->job);
	if (piece->job->stopped)
		return;
	key_guard(run, AccessShareLock);
	rel = table_open(run->m->source, NoLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	run_as_owner(run);
	sql = key_sql(run, rel, piece->range);
	query(psprintf("SELECT pg_catalog.jsonb_agg(%s) FROM ONLY %s s WHERE %s AND s.%s IS NULL",
				   sql->identity, sql->table, sql->places, sql->column),
		  0, NULL, &identity);
	run_as_self(run);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	if (identity != NULL)
	{
		failed_rows_add(run->m->id, identity, piece->error->sqlerrcode, piece->error->message);
		failed_rows_limit(run->m);
		piece->counts.failed = 1;
	}
	else
		piece->counts.left = 1; /* it has moved: wherever it is now */
}

/* ------------------------------------------------------------------------
 * A job
 * ------------------------------------------------------------------------
 */

/*
 * One transaction with memory of its own: a job may have thousands.  False for a
 * row's error, of which the piece keeps what failed_rows tells; others go on.
 */
static bool
attempt(Run *run, RunBody body, Piece *piece)
{
	MemoryContext scratch = run->scratch;
	MemoryContext own =
		AllocSetContextCreate(scratch, "migrate_ext key piece", ALLOCSET_DEFAULT_SIZES);
	ErrorData *error = NULL;
	int failures = 0;
	bool ok;

	run->scratch = own;
	PG_TRY();
	{
		do
			ok = run_attempt(run, body, piece, &error);
		while (!ok && piece->patient && attempt_again(run, error, &failures));
	}
	PG_FINALLY();
	{
		run->scratch = scratch;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(scratch);
	if (!ok && error_kind(error->sqlerrcode) != ERROR_ROW)
		ReThrowError(error);
	if (!ok)
	{
		piece->error = palloc0(sizeof(ErrorData));
		piece->error->sqlerrcode = error->sqlerrcode;
		piece->error->message = pstrdup(error->message);
	}
	MemoryContextDelete(own);
	return ok;
}

static void fill_range(Run *run, KeyJob *job, KeyRange range, bool again);

static void
fill_parts(Run *run, KeyJob *job, KeyRange range, int64 parts, bool again)
{
	uint64 size = range.end - range.first;

	parts = Min((uint64) Max(parts, 2), size);
	for (int64 i = 0; i < parts && !job->stopped && !job->rewritten; i++)
	{
		KeyRange part = {range.first + size * i / parts, range.first + size * (i + 1) / parts};

		fill_range(run, job, part, again);
	}
}

/* A row alone, that fails with piece->error or, if there is none, is kept back. */
static void
fail_row(Run *run, Piece *piece)
{
	ErrorData kept = {.sqlerrcode = ERRCODE_TRIGGERED_ACTION_EXCEPTION,
					  .message = "a trigger keeps the row from being updated"};

	if (piece->error == NULL)
		piece->error = &kept;
	memset(&piece->counts, 0, sizeof(KeyCounts));
	(void) attempt(run, set_aside, piece);
	key_counts_add(&piece->job->counts, &piece->counts);
}

/*
 * Fill a range, by parts where it must be.  Rows that we have locked and that
 * were not updated have changed meanwhile, or a trigger wants it so.  A later
 * pass, where such rows should be rare, looks for them one by one; again: these
 * rows have been counted before.
 */
static void
fill_range(Run *run, KeyJob *job, KeyRange range, bool again)
{
	Piece piece = {.job = job, .range = range, .again = again};
	bool alone = range.end - range.first == 1;
	bool ok;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	piece.whole = range.first == job->range.first && range.end == job->range.end;
	ok = attempt(run, fill_piece, &piece);
	if (job->stopped || job->rewritten)
		return;
	if (ok && piece.whole && piece.split == 0)
		job->finished = true;
	if (!ok && alone)
		fail_row(run, &piece);
	else if (!ok || piece.split > 0)
		fill_parts(run, job, range, piece.split, again);
	else
	{
		bool look = piece.kept > 0 && job->state != STATE_COPYING;

		if (look)
			piece.counts.left = 0;
		if (again)
			piece.counts.rows = piece.counts.skipped = piece.counts.failed = 0;
		key_counts_add(&job->counts, &piece.counts);
		if (look && alone)
			fail_row(run, &piece);
		else if (look)
			fill_parts(run, job, range, 2, true);
	}
}

/* The batch of a job that took more than one transaction. */
static void
finish_batch(Run *run, void *arg)
{
	KeyJob *job = arg;

	if (run->m != NULL && run->m->state == job->state && batch_begin(run, job->batch))
		batch_finish(run, job->batch, job->counts.filled, job->counts.left, job->counts.skipped);
}

void
key_fill(Run *run, KeyJob *job)
{
	TimestampTz began = GetCurrentTimestamp();
	ErrorData *error = NULL;

	pace_begin(run->migration_id);
	if (job->range.first < job->range.end)
		fill_range(run, job, job->range, false);
	if (job->batch != NULL && (job->stopped || job->rewritten))
		batch_give_back(run, job->batch);
	else if (job->batch != NULL && !job->finished && !run_attempt(run, finish_batch, job, &error))
		ReThrowError(error);
	if (job->target_ms > 0)
		pace_learn_blocks(job, TimestampDifferenceMilliseconds(began, GetCurrentTimestamp()));
}

/* ------------------------------------------------------------------------
 * Counting
 * ------------------------------------------------------------------------
 */

/*
 * All of it in one statement, and so in one snapshot.  Values are derived only
 * where options.on_null_key leaves rows out.  Returns the identities of the rows
 * that lack the key.
 */
static Jsonb *
count_rows(const KeySql *sql, bool derive, KeyCounts *counts)
{
	int64 n[4]; /* rows, of them without the key, their values, values that are NULL */
	Jsonb *identities;

	query(
		psprintf(
			"WITH c AS (SELECT pg_catalog.count(*) AS rows,"
			" pg_catalog.count(*) FILTER (WHERE s.%2$s IS NULL) AS lacking"
			" FROM ONLY %1$s s WHERE %3$s),"
			" l AS MATERIALIZED (SELECT s.ctid%4$s FROM ONLY %1$s s WHERE %3$s AND s.%2$s IS NULL),"
			" v AS (SELECT (%5$s) AS value FROM l s%6$s)"
			" SELECT c.rows, c.lacking, (SELECT pg_catalog.count(*) FROM v),"
			" (SELECT pg_catalog.count(*) FROM v WHERE v.value IS NULL),"
			" (SELECT pg_catalog.jsonb_agg(%7$s) FROM l s) FROM c",
			sql->table, sql->column, sql->places, sql->columns, derive ? sql->value : "true",
			derive ? sql->joins : "", sql->identity),
		4, n, &identities);
	check_parents(n[2], n[1]);
	counts->rows = n[0];
	counts->left = n[1];
	counts->skipped = n[3];
	return identities;
}

/* The body of an attempt; piece->again: don't derive values, one fails. */
static void
count_piece(Run *run, void *arg)
{
	Piece *piece = arg;
	KeyCounts *counts = &piece->counts;
	Jsonb *identities;
	Relation rel;

	if (run->m == NULL)
		return;
	key_guard(run, AccessShareLock);
	rel = table_open(run->m->source, NoLock);
	PushActiveSnapshot(GetTransactionSnapshot());
	run_as_owner(run);
	identities = count_rows(key_sql(run, rel, piece->range),
							columns_skip_null_key(run->m) && !piece->again, counts);
	run_as_self(run);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	if (identities != NULL)
		counts->failed = failed_rows_among(run->m->id, identities);
	throttle_note(run->m, counts->rows, blocks_of(piece->range));
	counts->left = Max(counts->left - counts->skipped - counts->failed, 0);
}

void
key_count(Run *run, KeyRange range, KeyCounts *counts)
{
	Piece piece = {.range = range, .patient = true};

	CHECK_FOR_INTERRUPTS();
	if (!attempt(run, count_piece, &piece))
	{
		uint64 size = range.end - range.first;
		KeyRange low = {range.first, range.first + size / 2};
		KeyRange high = {low.end, range.end};

		memset(&piece.counts, 0, sizeof(KeyCounts));
		piece.again = true;
		if (size > 1)
		{
			key_count(run, low, counts);
			key_count(run, high, counts);
			return;
		}
		(void) attempt(run, count_piece, &piece);
	}
	key_counts_add(counts, &piece.counts);
}
