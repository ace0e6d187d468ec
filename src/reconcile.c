/*-------------------------------------------------------------------------
 *
 * reconcile.c
 *	  Comparing both tables and putting right what differs; see reconcile.h.
 *
 * A target that had rows before (filled in part by hand-written triggers, by
 * another tool, by an attempt that was given up) isn't copied to: nobody could
 * tell which rows it has.  It is compared with the source, range by range, and
 * the identity of each row that is missing, extra or different is appended to
 * the change log.  The drain then makes the target's row equal to the source's
 * current one, as it does for any changed row.  So it does not matter how old
 * the comparison is, nor that writers go on: what they change after a range's
 * snapshot they log themselves, or write through.
 *
 * An entry carries the place of the target's row where there is one, for that is
 * the row which has to be found; the source's own place the drain finds by
 * reading it.
 *
 * How far it has come is committed with the entries: after a crash it goes on
 * with the next range.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "attempt.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "catalog_spi.h"
#include "changelog.h"
#include "compare.h"
#include "debug_point.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "reconcile.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "stages.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Rows fetched at once: they are small, and there may be as many as the table has. */
#define FETCH_ROWS 1000

/* A range under way. */
typedef struct Range
{
	bool pending; /* there was one to compare */
	char *low;	  /* as SQL text, NULL: from the beginning */
	char *high;	  /* NULL: to the end */
	int64 rows;	  /* of the front side */
	int64 differed;
} Range;

/*
 * Rows of the next range.  A guess of this process, of no worth to anybody else
 * and lost without harm.
 */
static struct
{
	int64 migration_id;
	int64 rows;
} pace;

/* ------------------------------------------------------------------------
 * What is to be compared
 * ------------------------------------------------------------------------
 */

void
reconcile_ask(Migration *m, bool adopted)
{
	Oid types[] = {INT8OID, BOOLOID};
	Datum values[] = {Int64GetDatum(m->id), BoolGetDatum(adopted)};

	(void) catalog_exec(
		"INSERT INTO migrate_ext.comparison AS c (migration, adopted) VALUES ($1, $2)"
		" ON CONFLICT (migration) DO UPDATE SET adopted = c.adopted OR $2,"
		" after = NULL, compared = 0, differed = 0, finished = false",
		2, types, values, NULL);
}

void
reconcile_forget(Migration *m)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};

	(void) catalog_exec("DELETE FROM migrate_ext.comparison WHERE migration = $1", 1, types, values,
						NULL);
}

static bool
exists(const Migration *m, const char *condition)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};

	return catalog_exists(
		psprintf("SELECT 1 FROM migrate_ext.comparison WHERE migration = $1 AND %s", condition), 1,
		types, values);
}

bool
reconcile_adopted(const Migration *m)
{
	return exists(m, "adopted");
}

bool
reconcile_pending(const Migration *m)
{
	return exists(m, "NOT finished");
}

/* Where the last range ended; false if all is compared. */
static bool
load_place(const Migration *m, char **low)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};
	CatalogCall call = {0};
	bool found;
	bool isnull;

	found = catalog_begin(&call,
						  "SELECT after FROM migrate_ext.comparison"
						  " WHERE migration = $1 AND NOT finished FOR UPDATE",
						  1, types, values, NULL) > 0;
	*low = NULL;
	if (found)
	{
		Datum value = catalog_value(&call, 0, 1, &isnull);

		if (!isnull)
			*low = MemoryContextStrdup(call.outer, TextDatumGetCString(value));
	}
	catalog_end(&call);
	return found;
}

static void
save_place(const Migration *m, const Range *range)
{
	Oid types[] = {INT8OID, TEXTOID, INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(m->id), range->high ? CStringGetTextDatum(range->high) : 0,
					  Int64GetDatum(range->rows), Int64GetDatum(range->differed)};

	(void) catalog_exec("UPDATE migrate_ext.comparison SET after = $2, compared = compared + $3,"
						" differed = differed + $4, finished = $2 IS NULL WHERE migration = $1",
						4, types, values, range->high ? NULL : " n  ");
}

/* ------------------------------------------------------------------------
 * A range
 * ------------------------------------------------------------------------
 */

/* Append the rows of a portal to the log; returns how many. */
static int64
append_all(Portal portal, ChangeLog *log, const LogColumns *columns)
{
	Datum *values = palloc(columns->natts * sizeof(Datum));
	bool *isnull = palloc(columns->natts * sizeof(bool));
	int64 count = 0;

	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			for (int i = 0; i < columns->natts; i++)
				values[i] = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, i + 1,
										  &isnull[i]);
			(void) changelog_append(log, values, isnull);
			count++;
		}
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	return count;
}

/* As the owner; entries and rows are of one snapshot. */
static int64
log_differences(const char *sql, ChangeLog *log, const LogColumns *columns)
{
	SPIPlanPtr plan;
	Portal portal;
	int64 count;

	SPI_connect();
	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not compare: %s", SPI_result_code_string(SPI_result)),
						errdetail("The statement is: %s", sql)));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	count = append_all(portal, log, columns);
	SPI_cursor_close(portal);
	SPI_finish();
	return count;
}

static void
compare_range(Migration *m, Range *range)
{
	LogColumns *columns = palloc0(sizeof(LogColumns));
	Sides *sides = compare_sides(m, true);
	ChangeLog *log;

	changelog_columns(m->log, columns);
	log = changelog_open(m->log);
	PushActiveSnapshot(GetLatestSnapshot());
	range->high = compare_next_bound(sides, range->low, range->rows - 1);
	if (range->high == NULL)
		range->rows = compare_rows_after(sides, range->low);
	PopActiveSnapshot();
	PushActiveSnapshot(GetLatestSnapshot());
	range->differed =
		log_differences(compare_entries(m, sides, columns, range->low, range->high), log, columns);
	PopActiveSnapshot();
	changelog_close(log);
}

/* See reconcile.h.  The place is kept here alone: an error undoes all of it. */
int64
reconcile_now(Migration *m)
{
	Range range = {.rows = compare_next_size(0, 0, 0)};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "migrate_ext reconcile",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = MemoryContextSwitchTo(context);
	UserSwitch user;
	int64 differed = 0;

	user_switch_owner(&user, m->owner);
	compare_set_planner();
	do
	{
		compare_range(m, &range);
		differed += range.differed;
		MemoryContextSwitchTo(outer);
		range.low = range.high != NULL ? pstrdup(range.high) : NULL;
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	} while (range.low != NULL);
	user_switch_back(&user);
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
	return differed;
}

/* The body of an attempt. */
static void
reconcile_range(Run *run, void *arg)
{
	Range *range = arg;
	Migration *m = run->m;
	instr_time start;
	instr_time took;

	range->pending = false;
	if (m == NULL || m->paused || m->state < STATE_CATCHING_UP || m->state > STATE_SWAPPED)
		return;
	run_limit_lock_waits(run);
	LockRelationOid(front_of(m, direction_of(m)), AccessShareLock);
	LockRelationOid(back_of(m, direction_of(m)), AccessShareLock);
	/* the place first: whoever asks for it anew may have changed the definition */
	range->pending = load_place(m, &range->low);
	guard_check(m);
	if (!range->pending)
		return;

	INSTR_TIME_SET_CURRENT(start);
	compare_set_planner();
	range->rows = throttle_rows(m, range->rows);
	run_as_owner(run);
	compare_range(m, range);
	run_as_self(run);
	throttle_note(m, range->rows, InvalidBlockNumber);
	save_place(m, range);
	if (range->high == NULL)
		event_add(m, "reconciled", NULL, "both tables have been compared: what differed is logged");
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	pace.rows = compare_next_size(range->rows, settings_get_int(m, "batch_target_ms"),
								  INSTR_TIME_GET_MILLISEC(took));
	ME_DEBUG_POINT("reconcile_before_commit");
}

StepResult
reconcile_step(Run *run)
{
	Range range = {0};
	ErrorData *error = NULL;

	run_report(run, "comparing both tables");
	if (pace.migration_id != run->migration_id)
	{
		pace.migration_id = run->migration_id;
		pace.rows = compare_next_size(0, 0, 0);
	}
	range.rows = pace.rows;
	if (!run_attempt(run, reconcile_range, &range, &error))
	{
		if (!attempt_is_lock_failure(error))
			ReThrowError(error);
		return STEP_WAIT;
	}
	return range.pending ? STEP_MORE : STEP_DONE;
}
