/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  Compares all rows of the two tables.
 *
 * Rows are compared in ranges of the identity, (lo, hi], in its order, by the
 * statements of compare.c.  A range is a transaction of its own, and one
 * statement: so both sides are read in one snapshot, and since each writer's
 * transaction writes both of them, they must be equal in it, however busy the
 * table is.  No snapshot lives longer than a range takes.
 *
 * A row of the source that is found twice in the target counts as one too many
 * of the target.  Rows in failed_rows are known to differ, and counted apart.
 *
 * The result counts for a swap only if nothing but the writers has touched the
 * tables meanwhile: see still_same().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog.h"
#include "compare.h"
#include "debug_point.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "run.h"
#include "settings.h"
#include "stages.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* How often a paused verification looks whether it may go on. */
#define PAUSED_POLL_MS 500

/* A verification on its way. */
typedef struct Verification
{
	/* as it was at the beginning */
	MigrationState state;
	int32 epoch;
	FullTransactionId stable_xid;
	TransactionId trigger_xmin;
	bool needs_mending;
	int64 mark;

	/* where it is */
	char *low; /* SQL text of the bound, NULL before the first range */
	bool last; /* the last range has been compared */
	int64 range_rows;
	MemoryContext context; /* reset after every range */

	VerifyCounts *counts;
} Verification;

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

/*
 * Has anything but the writers touched the tables since the verification
 * began?  A swap, a new copy, a drain while live, a mended trigger.
 */
static bool
still_same(Verification *v, Migration *m)
{
	return m != NULL && m->state == v->state && m->epoch == v->epoch &&
		   FullTransactionIdEquals(m->stable_xid, v->stable_xid) &&
		   m->trigger_xmin == v->trigger_xmin && !m->needs_mending && !v->needs_mending &&
		   guard_mark(m) == v->mark;
}

static void
remember(Verification *v, Migration *m)
{
	v->state = m->state;
	v->epoch = m->epoch;
	v->stable_xid = m->stable_xid;
	v->trigger_xmin = m->trigger_xmin;
	v->needs_mending = m->needs_mending;
	v->mark = guard_mark(m);
}

/* 55000 if this isn't, or is no longer, what the caller asked to verify. */
static void
check_state(Run *run, Verification *v)
{
	Migration *m = run->m;

	if (m == NULL || (m->state != STATE_LIVE && m->state != STATE_SWAPPED) ||
		(v->low != NULL && m->state != v->state))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("can't compare the tables of migration \"%s\"", m ? m->name : "(gone)"),
				 errdetail("Its state is %s.", m ? state_name(m->state) : "(gone)"),
				 errhint("Tables are compared while the state is live or swapped.")));
}

/*
 * Compare the next range, in the current transaction.  Locks both tables
 * AccessShareLock, source first.  Errors as guard_check().
 */
static void
verify_range(Run *run, Verification *v)
{
	Migration *m = run->m;
	Sides *sides;
	char *high;
	int64 values[NUM_COMPARE_COUNTS];
	instr_time start;
	instr_time took;
	int64 checked = v->counts->checked;

	LockRelationOid(m->source, AccessShareLock);
	LockRelationOid(m->target, AccessShareLock);
	guard_check(m);
	INSTR_TIME_SET_CURRENT(start);
	sides = compare_sides(m, false);

	compare_set_planner();
	run_as_owner(run);
	v->range_rows = throttle_rows(m, v->range_rows);
	high = compare_next_bound(sides, v->low, v->range_rows - 1);
	compare(compare_counts(m, sides, v->low, high), values);
	run_as_self(run);

	add_counts(v->counts, values, m->state != STATE_SWAPPED);
	throttle_note(m, v->counts->checked - checked, InvalidBlockNumber);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	v->range_rows = compare_next_size(v->range_rows, settings_get_int(m, "batch_target_ms"),
									  INSTR_TIME_GET_MILLISEC(took));
	if (v->low != NULL)
		pfree(v->low);
	v->low = high != NULL ? MemoryContextStrdup(run->scratch, high) : NULL;
	v->last = high == NULL;
}

/* ------------------------------------------------------------------------
 * All of it
 * ------------------------------------------------------------------------
 */

/* One transaction: a range, or nothing while the migration is paused. */
static void
step(Run *run, Verification *v)
{
	MemoryContext old_context;
	bool paused;

	if (!throttle_may_go(run))
		return;
	run_begin(run);
	check_state(run, v);
	if (v->low == NULL)
		remember(v, run->m);
	paused = run->m->paused;
	if (!paused)
	{
		run_report(run, "verifying: " INT64_FORMAT " rows compared", v->counts->checked);
		old_context = MemoryContextSwitchTo(v->context);
		verify_range(run, v);
		MemoryContextSwitchTo(old_context);
	}
	run_commit(run);
	ME_DEBUG_POINT("verify_after_range");
	MemoryContextReset(v->context);
	if (paused)
		run_sleep(run, PAUSED_POLL_MS);
}

/* Write the result down. */
static void
record(Run *run, Verification *v, bool complete)
{
	VerifyCounts *counts = v->counts;
	bool clean = counts->missing == 0 && counts->extra == 0 && counts->different == 0 &&
				 counts->stale_key == 0;
	bool holds;

	run_begin(run);
	if (run->m != NULL)
	{
		holds = clean && complete && still_same(v, run->m);
		counts->failed = failed_row_count(run->m->id);
		verification_add(run->m->id, counts, complete, holds ? &v->mark : NULL);
		if (!clean)
			catalog_save_verified(run->m, false); /* whatever an earlier one found */
		else if (holds)
			catalog_save_verified(run->m, true);
		event_add(run->m, "verified",
				  psprintf("{\"complete\": %s, \"checked\": " INT64_FORMAT
						   ", \"missing\": " INT64_FORMAT ", \"extra\": " INT64_FORMAT
						   ", \"different\": " INT64_FORMAT ", \"failed\": " INT64_FORMAT "}",
						   complete ? "true" : "false", counts->checked, counts->missing,
						   counts->extra, counts->different, counts->failed),
				  INT64_FORMAT " rows compared%s: " INT64_FORMAT " missing, " INT64_FORMAT
							   " extra, " INT64_FORMAT " different%s",
				  counts->checked, complete ? "" : " before time was up", counts->missing,
				  counts->extra, counts->different,
				  counts->stale_key == 0 && counts->skipped == 0
					  ? ""
					  : psprintf(", " INT64_FORMAT
								 " with a key derived from what has changed since, " INT64_FORMAT
								 " left out",
								 counts->stale_key, counts->skipped));
	}
	run_commit(run);
}

/*
 * Compare everything, outside of a transaction; *counts is filled in and
 * recorded.  False if the deadline (0: none) passed before the end.  Errors:
 * 55000 in a state in which the tables aren't kept equal, those of guard_check().
 */
bool
verify_all(Run *run, TimestampTz deadline, struct VerifyCounts *counts)
{
	Verification v = {0};

	memset(counts, 0, sizeof(VerifyCounts));
	v.counts = counts;
	v.range_rows = compare_next_size(0, 0, 0);
	v.context = AllocSetContextCreate(run->scratch, "migrate_ext verify", ALLOCSET_DEFAULT_SIZES);

	while (!v.last && (deadline == 0 || GetCurrentTimestamp() < deadline))
	{
		step(run, &v);
		CHECK_FOR_INTERRUPTS();
	}
	record(run, &v, v.last);
	MemoryContextDelete(v.context);
	return v.last;
}

/* See stages.h. */
bool
verify_holds(Migration *m)
{
	return m->verified_at != 0 && verification_has_mark(m->id, guard_mark(m));
}
