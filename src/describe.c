/*-------------------------------------------------------------------------
 *
 * describe.c
 *	  What a table is and what hangs on it; what it is made of is in
 *	  sql/60_describe.sql, this asks.
 *
 * The definitions of views and the like are deparsed as the superuser with an
 * empty search_path, so that they come out the same whoever asks; nothing of a
 * user's runs.  The statement is large and is also asked under a swap's locks:
 * its plan is kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "arguments.h"
#include "catalog_spi.h"
#include "compat.h"
#include "describe.h"
#include "sqlgen.h"

PG_FUNCTION_INFO_V1(migrate_ext_describe);
PG_FUNCTION_INFO_V1(migrate_ext_catalog_difference);

#define DESCRIBE_SQL "SELECT description::text FROM migrate_ext.describe_relation($1)"
#define DIFFERENCE_SQL \
	"SELECT path, a::text, b::text FROM migrate_ext.catalog_difference_rows($1, $2)"

static SPIPlanPtr describe_plan = NULL;
static SPIPlanPtr difference_plan = NULL;

Jsonb *
describe_relation(Oid relid)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(relid)};
	CatalogCall call = {.plan = &describe_plan};
	char *text = NULL;

	if (catalog_begin(&call, DESCRIBE_SQL, lengthof(types), types, values, NULL) > 0)
		text = catalog_value_text(&call, 0, 1);
	catalog_end(&call);
	return json_parse(text ? text : "{}");
}

List *
describe_differences(Jsonb *a, Jsonb *b)
{
	Oid types[] = {JSONBOID, JSONBOID};
	Datum values[] = {JsonbPGetDatum(a), JsonbPGetDatum(b)};
	CatalogCall call = {.plan = &difference_plan};
	List *differences = NIL;
	uint64 count = catalog_begin(&call, DIFFERENCE_SQL, lengthof(types), types, values, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(call.outer);
		Difference *difference = palloc(sizeof(Difference));

		difference->path = catalog_value_text(&call, i, 1);
		difference->a = catalog_value_text(&call, i, 2);
		difference->b = catalog_value_text(&call, i, 3);
		differences = lappend(differences, difference);
		MemoryContextSwitchTo(old_context);
	}
	catalog_end(&call);
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
