/*-------------------------------------------------------------------------
 *
 * repair.c
 *	  differences(), repair() and retry_failed(): which rows differ, and putting
 *	  them right.
 *
 * A row that differs was written by somebody past the sync trigger, or its key was derived
 * from what has changed since.  repair() names it in the change log; who leads the
 * migration then makes it what the application's table has, in short batches
 * that keep writers out for moments.  So nothing is written here, no writer waits
 * for the comparison, and finalize() and undo() wait for the log as always.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "arguments.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "compare.h"
#include "executor/spi.h"
#include "failed_rows.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "reconcile.h"
#include "run.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(migrate_ext_differences);
PG_FUNCTION_INFO_V1(migrate_ext_repair);
PG_FUNCTION_INFO_V1(migrate_ext_retry_failed);

/* Columns of differences(). */
#define NUM_COLUMNS 5

/* 55000 where the tables aren't kept equal; locks both, the application's first. */
static void
lock_equal_tables(Migration *m, const char *call)
{
	bool swapped = m->state == STATE_SWAPPED;

	migration_require_target(m, call);
	if (m->state != STATE_LIVE && m->state != STATE_SWAPPED)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is in state %s", m->name, state_name(m->state)),
						errdetail("%s compares tables that are kept equal: it needs state live or "
								  "swapped.",
								  call)));
	LockRelationOid(front_of(m, direction_of(m)), AccessShareLock);
	LockRelationOid(back_of(m, direction_of(m)), AccessShareLock);
	if (get_rel_name(m->source) == NULL || get_rel_name(m->target) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("%s of migration \"%s\" has been dropped",
						get_rel_name(m->source) == NULL ? "the source" : "the target", m->name),
				 errhint("Call migrate_ext.%s to end the migration.",
						 swapped ? "complete" : "cancel")));
}

/* ------------------------------------------------------------------------
 * differences()
 * ------------------------------------------------------------------------
 */

/* The rows of one range that differ, up to "max"; returns how many. */
static int64
put_range(ReturnSetInfo *result, const char *sql, int64 max)
{
	int code;
	int64 count;

	SPI_connect();
	code = SPI_execute(sql, true, max);
	if (code != SPI_OK_SELECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not compare: %s", SPI_result_code_string(code)),
						errdetail("The statement is: %s", sql)));
	count = SPI_processed;
	for (int64 row = 0; row < count; row++)
	{
		Datum values[NUM_COLUMNS];
		bool isnull[NUM_COLUMNS];

		for (int i = 0; i < NUM_COLUMNS; i++)
			values[i] =
				SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, i + 1, &isnull[i]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	SPI_finish();
	return count;
}

/* All ranges, each with a snapshot of its own, until "max" are found; as the owner. */
static void
put_differences(Migration *m, ReturnSetInfo *result, int64 max)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(outer, "migrate_ext differences", ALLOCSET_DEFAULT_SIZES);
	int64 rows = compare_next_size(0, 0, 0);
	char *low = NULL;
	char *high;

	MemoryContextSwitchTo(context);
	do
	{
		Sides *sides = compare_sides(m, true);

		PushActiveSnapshot(GetLatestSnapshot());
		high = compare_next_bound(sides, low, rows - 1);
		max -= put_range(result, compare_differences(m, sides, low, high), max);
		PopActiveSnapshot();
		low = high != NULL ? MemoryContextStrdup(outer, high) : NULL;
		MemoryContextReset(context);
		CHECK_FOR_INTERRUPTS();
	} while (low != NULL && max > 0);
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
}

/* differences(migration, max): the first of them, in the order of the key */
Datum
migrate_ext_differences(PG_FUNCTION_ARGS)
{
	Migration *m = catalog_find(argument_text(fcinfo, 0, "migration"), false);
	int32 max;
	UserSwitch user;

	argument_require(fcinfo, 1, "max");
	max = PG_GETARG_INT32(1);
	if (max < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max must be greater than zero"), errdetail("Given was %d.", max)));
	lock_equal_tables(m, "migrate_ext.differences()");
	InitMaterializedSRF(fcinfo, 0);
	user_switch_owner(&user, m->owner);
	compare_set_planner();
	put_differences(m, (ReturnSetInfo *) fcinfo->resultinfo, max);
	user_switch_back(&user);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * repair(), retry_failed()
 * ------------------------------------------------------------------------
 */

/* repair(migration): how many rows differ, and are put right */
Datum
migrate_ext_repair(PG_FUNCTION_ARGS)
{
	Migration *m;
	UserSwitch user;
	int64 count;

	argument_require_writable("migrate_ext.repair()");
	m = catalog_find(argument_text(fcinfo, 0, "migration"), true);
	lock_equal_tables(m, "migrate_ext.repair()");
	user_switch_superuser(&user);
	count = reconcile_now(m);
	if (count > 0)
		catalog_save_verified(m, false);
	event_add(m, "repair", NULL, INT64_FORMAT " row%s differed and %s put right", count,
			  count == 1 ? "" : "s", count == 1 ? "is" : "are");
	user_switch_back(&user);
	worker_wake_or_warn(m);
	PG_RETURN_INT64(count);
}

/* retry_failed(migration): how many failed rows are tried again */
Datum
migrate_ext_retry_failed(PG_FUNCTION_ARGS)
{
	Migration *m;
	UserSwitch user;
	int64 count;

	argument_require_writable("migrate_ext.retry_failed()");
	m = catalog_find(argument_text(fcinfo, 0, "migration"), true);
	migration_require_target(m, "migrate_ext.retry_failed()");
	if (m->state < STATE_LOGGING || m->state > STATE_SWAPPED)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is in state %s", m->name, state_name(m->state)),
						errdetail("It has no rows to carry over.")));
	user_switch_superuser(&user);
	count = failed_rows_relog(m);
	event_add(m, "retrying", NULL, INT64_FORMAT " failed row%s tried again", count,
			  count == 1 ? " is" : "s are");
	user_switch_back(&user);
	worker_wake_or_warn(m);
	PG_RETURN_INT64(count);
}
