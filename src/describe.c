/*-------------------------------------------------------------------------
 *
 * describe.c
 *	  What a table is and what hangs on it; what it is made of is in
 *	  sql/60_describe.sql, this asks.
 *
 * The definitions of views and the like are deparsed as the superuser with an
 * empty search_path, so that they come out the same whoever asks; nothing of a
 * user's runs.  The statement is large and is also asked under a swap's locks:
 * its plan is kept for the life of the process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "arguments.h"
#include "compat.h"
#include "describe.h"
#include "run.h"
#include "sqlgen.h"

PG_FUNCTION_INFO_V1(migrate_ext_describe);
PG_FUNCTION_INFO_V1(migrate_ext_catalog_difference);

#define DESCRIBE_SQL "SELECT description::text FROM migrate_ext.describe_relation($1)"
#define DIFFERENCE_SQL \
	"SELECT path, a::text, b::text FROM migrate_ext.catalog_difference_rows($1, $2)"

/* A statement of ours and its plan. */
typedef struct Statement
{
	const char *sql;
	int nargs;
	Oid types[2];
	SPIPlanPtr plan;
} Statement;

static Statement describe_statement = {DESCRIBE_SQL, 1, {OIDOID}, NULL};
static Statement difference_statement = {DIFFERENCE_SQL, 2, {JSONBOID, JSONBOID}, NULL};

static void
check_spi(int code, int expected, const char *sql)
{
	if (code != expected)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not execute a statement of migrate_ext: %s",
							   SPI_result_code_string(code)),
						errdetail_internal("%s", sql)));
}

/* Within SPI. */
static void
execute(Statement *statement, Datum *values)
{
	if (statement->plan == NULL)
	{
		SPIPlanPtr plan = SPI_prepare_cursor(statement->sql, statement->nargs, statement->types,
											 CURSOR_OPT_GENERIC_PLAN);

		check_spi(plan ? SPI_OK_SELECT : SPI_result, SPI_OK_SELECT, statement->sql);
		SPI_keepplan(plan);
		statement->plan = plan;
	}
	check_spi(SPI_execute_plan(statement->plan, values, NULL, false, 0), SPI_OK_SELECT,
			  statement->sql);
}

/* A column of a row of the result, in this memory; or NULL. */
static char *
result_text(MemoryContext memory, uint64 row, int column)
{
	char *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return text ? MemoryContextStrdup(memory, text) : NULL;
}

Jsonb *
describe_relation(Oid relid)
{
	Datum values[] = {ObjectIdGetDatum(relid)};
	MemoryContext memory = CurrentMemoryContext;
	bool pushed = !ActiveSnapshotSet();
	UserSwitch user;
	char *text = NULL;

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	user_switch_superuser(&user);
	forbid_compiling();
	check_spi(SPI_connect(), SPI_OK_CONNECT, DESCRIBE_SQL);
	execute(&describe_statement, values);
	if (SPI_processed > 0)
		text = result_text(memory, 0, 1);
	SPI_finish();
	user_switch_back(&user);
	if (pushed)
		PopActiveSnapshot();
	return json_parse(text ? text : "{}");
}

List *
describe_differences(Jsonb *a, Jsonb *b)
{
	Datum values[] = {JsonbPGetDatum(a), JsonbPGetDatum(b)};
	MemoryContext memory = CurrentMemoryContext;
	MemoryContext spi_memory;
	bool pushed = !ActiveSnapshotSet();
	UserSwitch user;
	List *differences = NIL;
	uint64 i;

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	user_switch_superuser(&user);
	forbid_compiling();
	check_spi(SPI_connect(), SPI_OK_CONNECT, DIFFERENCE_SQL);
	execute(&difference_statement, values);
	spi_memory = MemoryContextSwitchTo(memory);
	for (i = 0; i < SPI_processed; i++)
	{
		Difference *difference = palloc(sizeof(Difference));

		difference->path = result_text(memory, i, 1);
		difference->a = result_text(memory, i, 2);
		difference->b = result_text(memory, i, 3);
		differences = lappend(differences, difference);
	}
	MemoryContextSwitchTo(spi_memory);
	SPI_finish();
	user_switch_back(&user);
	if (pushed)
		PopActiveSnapshot();
	return differences;
}

/* What has columns, and belongs to the caller. */
static void
check_described(Oid relid)
{
	char relkind = get_rel_relkind(relid);

	if (relkind == '\0')
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relid)));
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(relkind), get_rel_name(relid));
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE &&
		relkind != RELKIND_VIEW && relkind != RELKIND_MATVIEW && relkind != RELKIND_FOREIGN_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a table or view", get_rel_name(relid)),
						errdetail_relkind_not_supported(relkind)));
}

/* describe(relation): for its owner, 42501 */
Datum
migrate_ext_describe(PG_FUNCTION_ARGS)
{
	Oid relid;

	argument_require(fcinfo, 0, "relation");
	relid = PG_GETARG_OID(0);
	check_described(relid);
	PG_RETURN_JSONB_P(describe_relation(relid));
}

static Datum
json_datum(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? JsonbPGetDatum(json_parse(text)) : (Datum) 0;
}

/* catalog_difference(a, b): no rows where they are alike but for what partitioning changes */
Datum
migrate_ext_catalog_difference(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell *cell;

	argument_require(fcinfo, 0, "a");
	argument_require(fcinfo, 1, "b");
	InitMaterializedSRF(fcinfo, 0);
	foreach (cell, describe_differences(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1)))
	{
		Difference *difference = lfirst(cell);
		Datum values[3];
		bool isnull[3] = {false};

		values[0] = CStringGetTextDatum(difference->path);
		values[1] = json_datum(difference->a, &isnull[1]);
		values[2] = json_datum(difference->b, &isnull[2]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	return (Datum) 0;
}
