/*-------------------------------------------------------------------------
 *
 * carry_comments.c
 *	  Comments on the table, its columns, constraints, indexes, triggers, policies
 *	  and statistics objects.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "nodes/pg_list.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "carry_kinds.h"
#include "carry_statements.h"
#include "catalog.h"
#include "index_def.h"
#include "preflight_key.h"
#include "run.h"

PG_FUNCTION_INFO_V1(migrate_ext_index_pairs);

/*
 * index_pairs(migration id): nothing for NULL, and nothing where somebody holds a
 * lock on a table that its definitions can't be read under: asked again later.
 */
Datum
migrate_ext_index_pairs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Migration *m;
	UserSwitch user;
	ListCell *lc;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	m = catalog_load(PG_GETARG_INT64(0), false);
	if (m == NULL || !preflight_begin_looking(m, &user))
		return (Datum) 0;
	foreach (lc, index_def_pairs(m))
	{
		IndexPair *pair = lfirst(lc);
		Datum values[] = {ObjectIdGetDatum(pair->source), ObjectIdGetDatum(pair->target)};
		bool isnull[] = {false, false};

		if (OidIsValid(pair->target))
			tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	preflight_end_looking(m, &user);
	return (Datum) 0;
}

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	static SPIPlanPtr plan = NULL;

	return carry_by_statements(m, direction, "carry_comments", &plan, look_only);
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	if (part == CARRY_PREPARE)
		carry_plan_statements(plan, "carry_comments");
}

const Carrier carry_comments = {.name = "comments", .prepare = prepare, .plan = plan_part};
