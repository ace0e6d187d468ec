/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  Compares all rows of the two tables.
 *
 * A verification is a pass over ranges of the identity, (low, high], which the
 * processes of a migration share.  Who asks for it opens the pass and ends it; he,
 * the leader and its helpers cut ranges off what is left, in the order of the
 * identity, and read them:
 *
 *		opened (preparing, reading) .. ranges cut .. read .. ended: result recorded
 *
 * A range is a transaction of its own with one snapshot for both sides.  Since each
 * writer's transaction writes both of them they must be equal in it, however busy
 * the table is, and no snapshot lives longer than a range takes.  Both sides are
 * added up (range_sum.c); where the sums differ, or can't tell, the same snapshot is
 * compared row by row (compare.c).  A row of the source that is found twice in the
 * target counts as one too many of the target.  Rows in failed_rows are known to
 * differ, and counted apart.
 *
 * Claiming a range is locking its record, in the transaction that reads it: that of
 * a dead process is free at once, and nothing is written before the result is.  An error
 * that passes (a deadlock, a serialization failure, a lock that was not to be had) costs
 * that one reading: the range is read again after a while, which gets longer each time;
 * others come first.
 *
 * Results are kept a range.  verify() reads everything; the swap, and verification
 * in the background, only what may have changed since it was found equal, whoever
 * changed it (verify_changed.c).
 *
 * The result counts for a swap only if nothing but the writers has touched the
 * tables meanwhile: a pass has a "basis", what state, trigger and partitions were
 * when it was opened.  What was found of a range counts as long as the tables'
 * columns and key, and what is computed from them, are the same: its "definition".
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "attempt.h"
#include "batch.h"
#include "catalog.h"
#include "columns.h"
#include "common/hashfn.h"
#include "compare.h"
#include "debug_point.h"
#include "errors.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "range_sum.h"
#include "relinfo.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "stages.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "verify_changed.h"
#include "verify_records.h"

/* Between two looks at a pass that others work on, or that is paused. */
#define POLL_MS 50

/*
 * Rows in a range, at most: what has to be read again for one that changed, and a
 * tenth of a second.
 */
#define MAX_RANGE_ROWS 100000

/* Rows of the next range that this process cuts: a guess of its own. */
static struct
{
	int64 migration_id;
	int64 rows;
} pace;

/* ------------------------------------------------------------------------
 * A range
 * ------------------------------------------------------------------------
 */

/* Run it, as the owner. */
static void
compare(const char *sql, int64 *values)
{
	int code;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	code = SPI_execute(sql, true, 0);
	if (code != SPI_OK_SELECT || SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not compare: %s", SPI_result_code_string(code)),
						errdetail("The statement is: %s", sql)));
	for (int i = 0; i < NUM_COMPARE_COUNTS; i++)
	{
		bool isnull;

		values[i] = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull));
	}
	PopActiveSnapshot();
	SPI_finish();
}

/* Add a range's result up. */
static void
add_counts(VerifyCounts *counts, const int64 *values, bool forward)
{
	/* the source's key is unique: joined twice, the target has the row twice */
	int64 twice = values[COMPARE_JOINED_SOURCE] - values[COMPARE_SOURCE];

	counts->checked += values[COMPARE_FRONT] - (forward ? twice : 0);
	counts->missing += values[COMPARE_MISSING] + (forward ? 0 : twice);
	counts->extra += values[COMPARE_EXTRA] + (forward ? twice : 0);
	counts->different += Max(values[COMPARE_DIFFERENT] - twice, 0);
	counts->skipped += values[COMPARE_SKIPPED];
	counts->stale_key += values[COMPARE_STALE];
}

/* Compare row by row, as the sums differ or can't tell. */
static void
compare_rows(Run *run, VerifyRange *range)
{
	Migration *m = run->m;
	Sides *sides = compare_sides(m, false);
	int64 values[NUM_COMPARE_COUNTS];

	compare_set_planner();
	run_as_owner(run);
	compare(compare_counts(m, sides, range->low, range->high), values);
	run_as_self(run);
	add_counts(&range->counts, values, m->state != STATE_SWAPPED);
}

/* With a snapshot of its own; both tables are locked. */
static void
read_range(Run *run, const VerifyPass *pass, VerifyRange *range)
{
	Migration *m = run->m;
	RangeSums sums;
	bool equal;
	instr_time start;
	instr_time took;

	INSTR_TIME_SET_CURRENT(start);
	PushActiveSnapshot(GetTransactionSnapshot());
	ME_DEBUG_POINT("verify_after_snapshot");
	equal = range_sums(m, range->low, range->high, &sums) &&
			memcmp(&sums.front, &sums.back, sizeof(RangeSum)) == 0;
	if (!equal)
		compare_rows(run, range);
	else
	{
		range->counts.checked = sums.front.rows + sums.skipped;
		range->counts.skipped = sums.skipped;
		range->places = sums.places;
		if (sums.traceable)
			range->as_of = verify_as_of(&pass->began);
	}
	PopActiveSnapshot();
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	range->took_ms = INSTR_TIME_GET_MILLISEC(took);
	throttle_note(m, range->counts.checked, InvalidBlockNumber);
}

/* How many rows the next one shall have, after one that took so long. */
static void
adjust_pace(int target_ms, const VerifyRange *range)
{
	if (range->counts.checked > 0)
		pace.rows = compare_next_size(range->counts.checked, target_ms, range->took_ms);
	pace.rows = Min(pace.rows, MAX_RANGE_ROWS);
}

/* Cut a range off what is left; both tables are locked. */
static void
cut_range(Run *run)
{
	Migration *m = run->m;
	VerifyPass pass = verify_pass_load(m->id, true);
	Sides *sides;
	char *high;

	if (pass.stage != VERIFY_READING || pass.cut)
		return;
	if (pace.migration_id != m->id)
	{
		pace.migration_id = m->id;
		pace.rows = compare_next_size(0, 0, 0);
	}
	sides = compare_sides(m, false);
	compare_set_planner();
	PushActiveSnapshot(GetTransactionSnapshot());
	run_as_owner(run);
	high = compare_next_bound(sides, pass.place, throttle_rows(m, pace.rows) - 1);
	run_as_self(run);
	PopActiveSnapshot();
	verify_range_add(m->id, pass.place, high);
	pass.place = high;
	pass.cut = high == NULL;
	verify_pass_save(m->id, &pass);
}

/*
 * Is this migration's pass to be read, and may it be?  In a transaction.
 */
static bool
may_read(Migration *m, const VerifyPass *pass)
{
	return m != NULL && !m->paused && m->goal != STATE_CANCELLED && pass->stage == VERIFY_READING &&
		   pass->state == m->state && lease_alive(pass->requester);
}

/* A transaction's work: a range read, or one cut. */
typedef struct Piece
{
	int64 range; /* that is read, or 0 */
	int target_ms;
	StepResult result;
} Piece;

/*
 * The body of an attempt: read a range, or cut one.  The tables are locked before the
 * range's record, so that nobody who waits for them has it.
 */
static void
work(Run *run, void *arg)
{
	Piece *piece = arg;
	Migration *m = run->m;
	VerifyPass pass = {VERIFY_NONE};
	VerifyRange range;

	(void) verify_note_time();
	if (m != NULL)
		pass = verify_pass_load(m->id, false);
	if (!may_read(m, &pass))
		return;
	run_report(run, "verifying");
	LockRelationOid(front_of(m, direction_of(m)), AccessShareLock);
	LockRelationOid(back_of(m, direction_of(m)), AccessShareLock);
	guard_check(m);
	piece->target_ms = settings_get_int(m, "batch_target_ms");
	if (verify_range_claim(m->id, &range))
	{
		piece->range = range.range;
		read_range(run, &pass, &range);
		verify_range_save(m->id, &range);
		adjust_pace(piece->target_ms, &range);
		ME_DEBUG_POINT("verify_before_commit");
	}
	else if (!pass.cut)
		cut_range(run);
	else
		return;
	piece->result = STEP_MORE;
}

/* The body of an attempt. */
static void
postpone(Run *run, void *arg)
{
	Piece *piece = arg;

	verify_range_postpone(run->migration_id, piece->range);
}

/*
 * Several ranges, up to what a piece of work should take: its caller may have much else
 * to look at in between.  WAIT if there is nothing to read now.  *error: what the last
 * one failed with, kept until run->scratch is reset.
 */
static StepResult
read_on(Run *run, ErrorData **error)
{
	MemoryContext outer = run->scratch;
	TimestampTz began = GetCurrentTimestamp();
	Piece piece = {.result = STEP_MORE};

	*error = NULL;
	run->scratch = AllocSetContextCreate(outer, "migrate_ext verify", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		while (piece.result == STEP_MORE && throttle_may_go(run))
		{
			piece.range = 0;
			piece.result = STEP_WAIT;
			if (!run_attempt(run, work, &piece, error))
				break;
			MemoryContextReset(run->scratch);
			CHECK_FOR_INTERRUPTS();
			if (TimestampDifferenceExceeds(began, GetCurrentTimestamp(), piece.target_ms))
				break;
		}
	}
	PG_FINALLY();
	{
		if (*error == NULL)
			MemoryContextDelete(run->scratch);
		run->scratch = outer;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(outer);
	if (*error != NULL && piece.range != 0 && error_kind((*error)->sqlerrcode) == ERROR_AGAIN)
	{
		ErrorData *ignored; /* the error which led here is the one to tell */

		(void) run_attempt(run, postpone, &piece, &ignored);
	}
	return piece.result;
}

/* See stages.h. */
StepResult
verify_work(Run *run)
{
	ErrorData *error;
	StepResult result = read_on(run, &error);

	if (error != NULL)
		ReThrowError(error);
	return result;
}

/* ------------------------------------------------------------------------
 * A pass
 * ------------------------------------------------------------------------
 */

static int64
hash_text(const char *text)
{
	return (int64) hash_bytes_extended((const unsigned char *) text, strlen(text), 0);
}

/*
 * Changes when something else than writers touches the tables: a swap, a new copy, a
 * drain while live, a mended trigger.
 */
static int64
basis_of(Migration *m)
{
	return hash_text(psprintf("%d %d " UINT64_FORMAT " %u %d " INT64_FORMAT, m->state, m->epoch,
							  U64FromFullTransactionId(m->stable_xid), m->trigger_xmin,
							  m->needs_mending, guard_mark(m)));
}

/*
 * Changes when a row may count as equal to another one than before.  Where nothing is
 * computed, equal is the same in both directions.  Both tables are locked.
 */
static int64
definition_of(Migration *m)
{
	Identity *identity = relinfo_identity(m->source, false);
	bool plain = columns_build(m, direction_of(m))->plain && !columns_skip_null_key(m);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%d %d %s\n%s\n%s\n", m->epoch, plain ? 0 : m->state,
					 json_text(m->options), relinfo_shape(m->source), relinfo_shape(m->target));
	for (int i = 0; i < identity->natts; i++)
		appendStringInfo(&text, " %d", identity->attnums[i]);
	return hash_text(text.data);
}

/* 55000 if this isn't, or is no longer, what the caller asked to verify. */
static void
check_state(Run *run, const VerifyPass *pass)
{
	Migration *m = run->m;

	if (m == NULL || (m->state != STATE_LIVE && m->state != STATE_SWAPPED) ||
		(pass != NULL && m->state != pass->state))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("can't compare the tables of migration \"%s\"", m ? m->name : "(gone)"),
				 errdetail("Its state is %s.", m ? state_name(m->state) : "(gone)"),
				 errhint("Tables are compared while the state is live or swapped.")));
}

/*
 * Take the pass, in a transaction; false if it is somebody else's.  *ranges are those
 * of which it is to be found out whether they changed.
 */
static bool
take_pass(Run *run, bool full, bool background, List **ranges)
{
	Migration *m;
	VerifyPass pass;
	VerifyTime began;
	int64 definition;
	bool taken;

	run_begin(run);
	check_state(run, NULL);
	m = run->m;
	LockRelationOid(front_of(m, direction_of(m)), AccessShareLock);
	LockRelationOid(back_of(m, direction_of(m)), AccessShareLock);
	guard_check(m);
	began = verify_note_time();
	definition = definition_of(m);
	pass = verify_pass_load(m->id, true);
	taken = pass.stage == VERIFY_NONE || pass.stage == VERIFY_DONE ||
			pass.requester == run->lease || !lease_alive(pass.requester);
	if (taken)
	{
		if (full || pass.stage == VERIFY_NONE || pass.definition != definition)
		{
			verify_ranges_forget(m->id, 0);
			pass.place = NULL;
			pass.cut = false;
		}
		*ranges = verify_ranges(m->id);
		pass.stage = *ranges == NIL ? VERIFY_READING : VERIFY_PREPARING;
		pass.requester = run->lease;
		pass.background = background;
		pass.state = m->state;
		pass.basis = basis_of(m);
		pass.definition = definition;
		pass.began = began;
		verify_pass_save(m->id, &pass);
	}
	run_commit(run);
	return taken;
}

/* The ranges that changed are to be read; the last one, which grows, is cut anew. */
static void
open_pass(Run *run, List *ranges, List *changed)
{
	VerifyRange *last = llast(ranges);
	VerifyPass pass;

	run_begin(run);
	check_state(run, NULL);
	pass = verify_pass_load(run->m->id, true);
	if (pass.stage == VERIFY_PREPARING && pass.requester == run->lease)
	{
		verify_ranges_reopen(run->m->id, changed);
		if (list_member_ptr(changed, last) && last->high == NULL)
		{
			verify_ranges_forget(run->m->id, last->range);
			pass.place = last->low;
			pass.cut = false;
		}
		pass.stage = VERIFY_READING;
		verify_pass_save(run->m->id, &pass);
	}
	run_commit(run);
}

/*
 * Open a pass: over everything, or what may have changed.  False if another process
 * has one under way.
 */
static bool
begin_pass(Run *run, bool full, bool background)
{
	List *ranges = NIL;

	if (!take_pass(run, full, background, &ranges))
		return false;
	if (ranges != NIL)
		open_pass(run, ranges, verify_changed(run, ranges));
	return true;
}

/* How this process's pass stands. */
typedef enum Standing
{
	PASS_NOT_OURS, /* not opened yet, or taken over by another process */
	PASS_UNREAD,
	PASS_READ
} Standing;

static Standing
look_at_pass(Run *run)
{
	VerifyPass pass = {VERIFY_NONE};
	Standing standing = PASS_NOT_OURS;

	run_begin(run);
	if (run->m != NULL)
		pass = verify_pass_load(run->m->id, false);
	if (pass.stage == VERIFY_READING && pass.requester == run->lease)
	{
		check_state(run, &pass);
		standing = pass.cut && !verify_ranges_unread(run->m->id) ? PASS_READ : PASS_UNREAD;
	}
	run_commit(run);
	return standing;
}

/* ------------------------------------------------------------------------
 * The result
 * ------------------------------------------------------------------------
 */

static bool
is_clean(const VerifyCounts *counts)
{
	return counts->missing == 0 && counts->extra == 0 && counts->different == 0 &&
		   counts->stale_key == 0;
}

static void
tell_result(Migration *m, const VerifyCounts *counts, bool complete)
{
	int64 read = 0;
	int64 ranges = verify_ranges_count(m->id, &read);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text,
					 INT64_FORMAT " rows compared%s: " INT64_FORMAT " missing, " INT64_FORMAT
								  " extra, " INT64_FORMAT " different",
					 counts->checked, complete ? "" : " before time was up", counts->missing,
					 counts->extra, counts->different);
	if (counts->stale_key != 0 || counts->skipped != 0)
		appendStringInfo(&text,
						 ", " INT64_FORMAT
						 " with a key derived from what has changed since, " INT64_FORMAT
						 " left out",
						 counts->stale_key, counts->skipped);
	if (read < ranges && complete)
		appendStringInfo(&text, "; " INT64_FORMAT " of " INT64_FORMAT " ranges read again", read,
						 ranges);
	event_add(m, "verified",
			  psprintf("{\"complete\": %s, \"checked\": " INT64_FORMAT
					   ", \"missing\": " INT64_FORMAT ", \"extra\": " INT64_FORMAT
					   ", \"different\": " INT64_FORMAT ", \"failed\": " INT64_FORMAT
					   ", \"ranges\": " INT64_FORMAT ", \"read\": " INT64_FORMAT "}",
					   complete ? "true" : "false", counts->checked, counts->missing, counts->extra,
					   counts->different, counts->failed, ranges, read),
			  "%s", text.data);
	if (!is_clean(counts))
		ereport(LOG, (errmsg("migration \"%s\": %s", m->name, text.data)));
}

static void
record(Migration *m, VerifyPass *pass, VerifyCounts *counts, bool complete)
{
	int64 mark = guard_mark(m);
	bool clean = is_clean(counts);
	bool holds = clean && complete && !m->needs_mending && basis_of(m) == pass->basis;
	int64 read;

	/*
	 * Nothing is new: nothing was read again in the background, or, by the leader before
	 * a swap, what was found clean is so still, and counts.
	 */
	if (clean && complete && verify_holds(m) &&
		((verify_ranges_count(m->id, &read) > 0 && read == 0) ||
		 (!pass->background && m->goal != m->state && leader_pid(m->id) == MyProcPid)))
		return;
	counts->failed = failed_row_count(m->id);
	verification_add(m->id, counts, complete, holds ? &mark : NULL);
	if (!clean)
		catalog_save_verified(m, false); /* whatever an earlier one found */
	else if (holds)
		catalog_save_verified(m, true);
	tell_result(m, counts, complete);
}

/* End this process's pass, and write its result down. */
static void
end_pass(Run *run, VerifyCounts *counts)
{
	VerifyPass pass;
	bool complete;

	memset(counts, 0, sizeof(VerifyCounts));
	run_begin(run);
	if (run->m != NULL)
	{
		pass = verify_pass_load(run->m->id, true);
		if (pass.stage != VERIFY_DONE && pass.requester == run->lease)
		{
			complete = verify_ranges_sum(run->m->id, counts);
			record(run->m, &pass, counts, complete);
			pass.stage = VERIFY_DONE;
			verify_pass_save(run->m->id, &pass);
		}
	}
	run_commit(run);
}

/* ------------------------------------------------------------------------
 * Who asks
 * ------------------------------------------------------------------------
 */

/* See stages.h. */
bool
verify_all(Run *run, TimestampTz deadline, struct VerifyCounts *counts)
{
	bool opened = false;
	bool complete = false;
	bool idle = false;
	int failures = 0;

	while (deadline == 0 || GetCurrentTimestamp() < deadline)
	{
		Standing standing = look_at_pass(run);
		StepResult result;
		ErrorData *error;

		complete = opened && standing == PASS_READ;
		if (complete)
			break;
		if (idle)
			run_sleep(run, POLL_MS);
		if (standing == PASS_NOT_OURS || !opened)
			opened = begin_pass(run, true, false);
		result = read_on(run, &error);
		if (error != NULL && !attempt_again(run, error, &failures))
			ReThrowError(error);
		if (result == STEP_MORE)
			failures = 0;
		idle = result == STEP_WAIT;
		CHECK_FOR_INTERRUPTS();
	}
	end_pass(run, counts);
	return complete;
}

/* See stages.h. */
StepResult
verify_step(Run *run, bool full, bool background, struct VerifyCounts *counts)
{
	Standing standing = look_at_pass(run);

	if (standing == PASS_NOT_OURS && !begin_pass(run, full, background))
		return STEP_WAIT;
	if (standing != PASS_READ)
	{
		(void) verify_work(run);
		if (look_at_pass(run) != PASS_READ)
			return STEP_MORE;
	}
	end_pass(run, counts);
	return STEP_DONE;
}

/* See stages.h. */
bool
verify_has_work(const Migration *m)
{
	return (m->state == STATE_LIVE || m->state == STATE_SWAPPED) && !migration_is_key(m) &&
		   !m->paused && m->goal != STATE_CANCELLED && verify_pass_has_work(m->id);
}

/* See stages.h. */
VerifyDue
verify_due(const Run *run)
{
	int seconds = settings_get_int(run->m, "verify_interval_s");
	VerifyPass pass = verify_pass_load(run->m->id, false);

	if ((pass.stage == VERIFY_PREPARING || pass.stage == VERIFY_READING) &&
		pass.requester == run->lease)
		return pass.background && seconds > 0 ? VERIFY_DUE : VERIFY_UNWANTED;
	if (verify_has_work(run->m))
		return VERIFY_OF_OTHERS;
	if (seconds > 0 &&
		TimestampDifferenceExceeds(pass.ended_at, GetCurrentTimestamp(), seconds * 1000L))
		return VERIFY_DUE;
	return VERIFY_NOTHING;
}

/* See stages.h. */
void
verify_give_up(Run *run)
{
	VerifyCounts counts;

	end_pass(run, &counts);
}

/* See stages.h. */
bool
verify_holds(Migration *m)
{
	return m->verified_at != 0 && verification_has_mark(m->id, guard_mark(m));
}
