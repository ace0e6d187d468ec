/*-------------------------------------------------------------------------
 *
 * derive.c
 *	  The value of a sharding key for one row; see derive.h.
 *
 * The executor can't evaluate a subquery outside of a query.  So the value is a
 * statement of its own, "SELECT (value) FROM (SELECT $1 AS id, ...) s", whose
 * plan is kept in the session; the columns that the value reads are its
 * parameters.  In an expression it stands as a call of migrate_ext.derive_key(),
 * a stable function to whoever looks at the tree.
 *
 * It reads with the latest snapshot whatever the isolation level: a writer at
 * REPEATABLE READ may be older than the parent of the row that he writes, and
 * NULL would be the wrong answer.  What it reads may change the next moment; the
 * key is derived anew when its row is next written.
 *
 * Where many rows are read with one snapshot, children of a parent mostly stand
 * side by side: a series (derive_series_begin) remembers the last parameters and
 * what they came to.  Parameters are the same if their bytes are: values that are
 * equal but look different, as 1.0 and 1.00 do, may well derive different keys.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "derive.h"
#include "executor/spi.h"
#include "expression.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "parser/parse_func.h"
#include "run.h"
#include "sqlgen.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(migrate_ext_derive_key);

/* Arguments of derive_key() before the statement's own: a type, the statement. */
#define DERIVE_FIXED_ARGS 2

struct DerivePlan
{
	char *statement;
	int nargs;
	Oid types[FUNC_MAX_ARGS];
	SPIPlanPtr plan;
	bool byval; /* of the result */
	int16 len;

	/* the last reading, if it is of this series */
	uint64 series;
	MemoryContext context;
	bool *arg_byval;
	int16 *arg_len;
	NullableDatum *args;
	NullableDatum result;
};

/* As many as there are definitions that this session has met: a few. */
static List *plans = NIL;

/* The series that is going on, if it is. */
static uint64 series = 0;
static bool in_series = false;
static int64 readings;

/* ------------------------------------------------------------------------
 * Analysis
 * ------------------------------------------------------------------------
 */

/* What a value has in it that decides how it is run, or that it isn't. */
static bool
subquery_walker(Node *node, bool *found)
{
	ListCell *cell;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		*found = true;
	if (IsA(node, Query))
	{
		foreach (cell, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

			if (rte->rtekind == RTE_RELATION &&
				get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
				ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
								errmsg("the value of a sharding key can't read temporary table "
									   "\"%s\"",
									   get_rel_name(rte->relid)),
								errdetail("No other session sees its rows.")));
		}
		return query_tree_walker((Query *) node, subquery_walker, found, 0);
	}
	return expression_tree_walker(node, subquery_walker, found);
}

/*
 * "SELECT (value)::type FROM (SELECT $1 AS id, $2 COLLATE "C" AS name) s".  The
 * text doesn't show what brings the value to the column's type: said anew here,
 * it holds whatever the types of what the value reads become.
 */
char *
derive_statement(Relation rel, Derivation *derivation)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(
		&sql, "SELECT %s",
		sql_assignment(derive_text(rel, derivation), derivation->type, derivation->typmod));
	for (int i = 0; i < derivation->nargs; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), derivation->attnums[i] - 1);

		appendStringInfo(&sql, "%s$%d", i == 0 ? " FROM (SELECT " : ", ", i + 1);
		if (att->attcollation != get_typcollation(att->atttypid))
			appendStringInfo(&sql, " COLLATE %s", generate_collation_name(att->attcollation));
		appendStringInfo(&sql, " AS %s", quote_identifier(NameStr(att->attname)));
	}
	if (derivation->nargs > 0)
		appendStringInfoString(&sql, ") " ROW_ALIAS);
	return sql.data;
}

Derivation *
derive_analyze(Relation rel, const char *column, Oid type, int32 typmod, const char *value)
{
	ExpressionInput input = {rel, column, type, typmod, value, "the value of a sharding key", true};
	Derivation *derivation = palloc0(sizeof(Derivation));
	Bitmapset *columns;
	int attnum = -1;

	derivation->type = type;
	derivation->typmod = typmod;
	derivation->expr = expression_analyze(&input);
	(void) subquery_walker(derivation->expr, &derivation->subqueries);
	columns = expression_columns(derivation->expr);
	if (bms_is_member(0, columns))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the value of a sharding key can't use the row as a whole"),
						errhint("Name the columns that it needs, as in \"" ROW_ALIAS ".id\".")));
	if (bms_num_members(columns) > FUNC_MAX_ARGS - DERIVE_FIXED_ARGS)
		ereport(ERROR, (errcode(ERRCODE_TOO_MANY_COLUMNS),
						errmsg("the value of a sharding key reads more than %d columns",
							   FUNC_MAX_ARGS - DERIVE_FIXED_ARGS)));
	derivation->attnums = palloc(Max(bms_num_members(columns), 1) * sizeof(AttrNumber));
	derivation->types = palloc(Max(bms_num_members(columns), 1) * sizeof(Oid));
	while ((attnum = bms_next_member(columns, attnum)) >= 0)
	{
		derivation->types[derivation->nargs] =
			TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid;
		derivation->attnums[derivation->nargs++] = attnum;
	}
	return derivation;
}

char *
derive_text(Relation rel, Derivation *derivation)
{
	return deparse_expression(derivation->expr,
							  deparse_context_for(ROW_ALIAS, RelationGetRelid(rel)), true, false);
}

Node *
derive_node(Relation rel, Derivation *derivation)
{
	Oid type = exprType(derivation->expr);
	List *name = list_make2(makeString("migrate_ext"), makeString("derive_key"));
	List *args;
	FuncExpr *call;

	if (!derivation->subqueries)
		return derivation->expr;
	args =
		list_make2(makeNullConst(type, -1, InvalidOid),
				   makeConst(TEXTOID, -1, InvalidOid, -1,
							 CStringGetTextDatum(derive_statement(rel, derivation)), false, false));
	for (int i = 0; i < derivation->nargs; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), derivation->attnums[i] - 1);

		args = lappend(
			args, makeVar(1, att->attnum, att->atttypid, att->atttypmod, att->attcollation, 0));
	}
	/* a variadic function's call has at least one of them */
	if (derivation->nargs == 0)
		args = lappend(args, makeNullConst(INT4OID, -1, InvalidOid));
	call = makeFuncExpr(LookupFuncName(name, -1, NULL, false), type, args,
						exprCollation(derivation->expr), InvalidOid, COERCE_EXPLICIT_CALL);
	return (Node *) call;
}

/* ------------------------------------------------------------------------
 * Running
 * ------------------------------------------------------------------------
 */

static DerivePlan *
find_plan(const char *statement, int nargs, const Oid *types)
{
	ListCell *cell;

	foreach (cell, plans)
	{
		DerivePlan *plan = lfirst(cell);

		if (plan->nargs == nargs && memcmp(plan->types, types, nargs * sizeof(Oid)) == 0 &&
			strcmp(plan->statement, statement) == 0)
			return plan;
	}
	return NULL;
}

DerivePlan *
derive_plan(const char *statement, int nargs, const Oid *types)
{
	DerivePlan *plan = find_plan(statement, nargs, types);
	MemoryContext old_context;
	SPIPlanPtr prepared;
	List *sources;
	Oid type;
	int nestlevel;

	if (plan != NULL)
		return plan;
	nestlevel = NewGUCNestLevel();
	pin_expression_settings();
	SPI_connect();
	prepared = SPI_prepare(statement, nargs, (Oid *) types);
	if (prepared == NULL)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not prepare the value of a sharding key: %s",
							   SPI_result_code_string(SPI_result)),
						errdetail("The statement is: %s", statement)));
	sources = SPI_plan_get_plan_sources(prepared);
	type = TupleDescAttr(((CachedPlanSource *) linitial(sources))->resultDesc, 0)->atttypid;

	old_context = MemoryContextSwitchTo(TopMemoryContext);
	plan = palloc0(sizeof(DerivePlan));
	plan->statement = pstrdup(statement);
	plan->nargs = nargs;
	memcpy(plan->types, types, nargs * sizeof(Oid));
	plan->plan = prepared;
	get_typlenbyval(type, &plan->len, &plan->byval);
	plan->context =
		AllocSetContextCreate(TopMemoryContext, "migrate_ext key", ALLOCSET_SMALL_SIZES);
	plan->args = palloc(Max(nargs, 1) * sizeof(NullableDatum));
	plan->arg_byval = palloc(Max(nargs, 1) * sizeof(bool));
	plan->arg_len = palloc(Max(nargs, 1) * sizeof(int16));
	for (int i = 0; i < nargs; i++)
		get_typlenbyval(types[i], &plan->arg_len[i], &plan->arg_byval[i]);
	plans = lappend(plans, plan);
	SPI_keepplan(prepared);
	MemoryContextSwitchTo(old_context);
	SPI_finish();
	AtEOXact_GUC(false, nestlevel);
	return plan;
}

/* Run the statement with the active snapshot. */
static Datum
read_value(DerivePlan *plan, Datum *values, const bool *isnull, bool *result_isnull)
{
	MemoryContext outer = CurrentMemoryContext;
	char nulls[FUNC_MAX_ARGS + 1];
	Datum result;
	int code;

	for (int i = 0; i < plan->nargs; i++)
		nulls[i] = isnull[i] ? 'n' : ' ';
	SPI_connect();
	code = SPI_execute_plan(plan->plan, values, nulls, true, 0);
	if (code != SPI_OK_SELECT || SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not derive the value of a sharding key: %s",
							   SPI_result_code_string(code)),
						errdetail("The statement is: %s", plan->statement)));
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, result_isnull);
	if (!*result_isnull)
	{
		MemoryContext old_context = MemoryContextSwitchTo(outer);

		result = plan->len == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(result))
								 : datumCopy(result, plan->byval, plan->len);
		MemoryContextSwitchTo(old_context);
	}
	SPI_finish();
	return result;
}

/* Has the last row of this series had the same parameters? */
static bool
is_remembered(DerivePlan *plan, Datum *values, const bool *isnull)
{
	if (plan->series != series)
		return false;
	for (int i = 0; i < plan->nargs; i++)
	{
		if (isnull[i] != plan->args[i].isnull)
			return false;
		if (!isnull[i] &&
			!datumIsEqual(values[i], plan->args[i].value, plan->arg_byval[i], plan->arg_len[i]))
			return false;
	}
	return true;
}

/* Only what has come to an end is remembered: an error leaves nothing behind. */
static void
remember(DerivePlan *plan, Datum *values, const bool *isnull, Datum result, bool result_isnull)
{
	MemoryContext old_context;

	plan->series = 0;
	MemoryContextReset(plan->context);
	old_context = MemoryContextSwitchTo(plan->context);
	for (int i = 0; i < plan->nargs; i++)
	{
		plan->args[i].isnull = isnull[i];
		if (!isnull[i])
			plan->args[i].value = datumCopy(values[i], plan->arg_byval[i], plan->arg_len[i]);
	}
	plan->result.isnull = result_isnull;
	if (!result_isnull)
		plan->result.value = datumCopy(result, plan->byval, plan->len);
	MemoryContextSwitchTo(old_context);
	plan->series = series;
}

/* The value for a row of a series. */
static Datum
run_in_series(DerivePlan *plan, Datum *values, const bool *isnull, bool *result_isnull)
{
	Datum result;

	if (is_remembered(plan, values, isnull))
	{
		*result_isnull = plan->result.isnull;
		return *result_isnull ? (Datum) 0 : datumCopy(plan->result.value, plan->byval, plan->len);
	}
	readings++;
	result = read_value(plan, values, isnull, result_isnull);
	remember(plan, values, isnull, result, *result_isnull);
	return result;
}

Datum
derive_run_pinned(DerivePlan *plan, Datum *values, const bool *isnull, bool *result_isnull)
{
	Datum result;

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	result = read_value(plan, values, isnull, result_isnull);
	PopActiveSnapshot();
	return result;
}

/* The value for any row, settings pinned here. */
static Datum
run_plan(DerivePlan *plan, Datum *values, const bool *isnull, bool *result_isnull)
{
	int nestlevel;
	Datum result;

	if (in_series)
		return run_in_series(plan, values, isnull, result_isnull);
	nestlevel = NewGUCNestLevel();
	pin_expression_settings();
	result = derive_run_pinned(plan, values, isnull, result_isnull);
	AtEOXact_GUC(false, nestlevel);
	return result;
}

void
derive_series_begin(void)
{
	Assert(!in_series);
	series++;
	readings = 0;
	in_series = true;
}

int64
derive_series_end(void)
{
	in_series = false;
	return readings;
}

double
derive_cost(Relation rel, Derivation *derivation)
{
	DerivePlan *plan;
	CachedPlan *cached;
	double cost = 0;

	if (!derivation->subqueries)
		return 0;
	plan = derive_plan(derive_statement(rel, derivation), derivation->nargs, derivation->types);
	SPI_connect();
	cached = SPI_plan_get_cached_plan(plan->plan);
	if (cached != NULL)
	{
		cost = linitial_node(PlannedStmt, cached->stmt_list)->planTree->total_cost;
		ReleaseCachedPlan(cached, CurrentResourceOwner);
	}
	SPI_finish();
	return cost;
}

/*
 * derive_key(type, statement, columns...): internal, see derive_node().  With
 * the rights of whoever calls it.
 */
Datum
migrate_ext_derive_key(PG_FUNCTION_ARGS)
{
	DerivePlan *plan = fcinfo->flinfo->fn_extra;
	Datum values[FUNC_MAX_ARGS];
	bool isnull[FUNC_MAX_ARGS];
	Oid types[FUNC_MAX_ARGS];
	Datum result;
	bool result_isnull;
	int nargs = PG_NARGS() - DERIVE_FIXED_ARGS;

	if (PG_ARGISNULL(1) || get_fn_expr_variadic(fcinfo->flinfo))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("migrate_ext.derive_key() is internal to migrate_ext")));
	for (int i = 0; i < nargs; i++)
	{
		types[i] = get_fn_expr_argtype(fcinfo->flinfo, i + DERIVE_FIXED_ARGS);
		values[i] = PG_GETARG_DATUM(i + DERIVE_FIXED_ARGS);
		isnull[i] = PG_ARGISNULL(i + DERIVE_FIXED_ARGS);
	}
	if (plan == NULL)
	{
		plan = derive_plan(text_to_cstring(PG_GETARG_TEXT_PP(1)), nargs, types);
		fcinfo->flinfo->fn_extra = plan;
	}
	result = run_plan(plan, values, isnull, &result_isnull);
	if (result_isnull)
		PG_RETURN_NULL();
	return result;
}
