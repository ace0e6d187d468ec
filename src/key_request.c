/*-------------------------------------------------------------------------
 *
 * key_request.c
 *	  backfill_key(): check a request to fill a sharding key in place, and record
 *	  the migration of kind "key" that does it.
 *
 * Nothing is done to the table here.  What to do stands in the migration's
 * definition (column, value, on_null_key), by which the same request is known
 * when it is made again.  The caller's search_path is kept beside it: filling a
 * row fires the table's own triggers, whose functions may need it.
 *
 * Requests for one table come one after the other, by the lock that
 * partition_by_*() and add_sharding_key() take as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "arguments.h"
#include "catalog.h"
#include "catalog/pg_class.h"
#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "relinfo.h"
#include "sharding_key.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(migrate_ext_backfill_key);

/* What a call asks for. */
typedef struct FillRequest
{
	Oid source;
	char *column;
	Jsonb *options;
	const char *on_null_key;

	/* worked out */
	Relation rel;
	char *table;
	ShardingKey *key;
	Jsonb *definition;
} FillRequest;

/* 22023 for what isn't known. */
static void
check_options(FillRequest *request)
{
	JsonbIterator *iterator = JsonbIteratorInit(&request->options->root);
	JsonbIteratorToken token;
	JsonbValue value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		char *name;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		if (strcmp(name, "on_null_key") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown option \"%s\"", name),
					 errhint("The only option of migrate_ext.backfill_key is on_null_key.")));
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (value.type != jbvString)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("option \"%s\" must be a string", name)));
	}
	request->on_null_key = argument_on_null_key(request->options);
}

/* The column, and how its value is derived: 42703, 55000. */
static void
read_key(FillRequest *request)
{
	AttrNumber attnum = get_attnum(request->source, request->column);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of table \"%s\" does not exist", request->column,
							   request->table),
						errhint("Add it by migrate_ext.add_sharding_key. The name is that of the "
								"column as it is stored, without quotes.")));
	request->key = attnum > 0 ? sharding_key_of_column(request->source, attnum) : NULL;
	if (request->key == NULL || request->key->value == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("there is nothing to fill column \"%s\" of table \"%s\" with", request->column,
					request->table),
			 request->key == NULL ? errdetail("It is not recorded as a sharding key.")
								  : errdetail("It is recorded as a sharding key without a value."),
			 errhint("migrate_ext.add_sharding_key with a value tells how the key is derived.")));
}

static Jsonb *
define(const FillRequest *request)
{
	return json_parse(psprintf("{\"method\": \"key\", \"column\": %s, \"value\": %s, "
							   "\"on_null_key\": %s}",
							   json_quote(request->column), json_quote(request->key->value),
							   json_quote(request->on_null_key)));
}

/*
 * The name of the unfinished migration that does what is asked for, or NULL.
 * 42710 for one that fills the same column in another way.
 */
static char *
find_same(const FillRequest *request)
{
	ListCell *cell;

	foreach (cell, catalog_key_migrations(request->source))
	{
		Migration *m = lfirst(cell);

		if (compareJsonbContainers(&m->definition->root, &request->definition->root) == 0)
			return m->name;
		if (strcmp(json_field(m->definition, "column"), request->column) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("migration \"%s\" fills the column already, with another definition",
							m->name),
					 errdetail("It is %s, asked for was %s.", json_text(m->definition),
							   json_text(request->definition)),
					 errhint("Ask for the same, or complete or cancel that migration first.")));
	}
	return NULL;
}

/* The table's name, where that is taken schema.table, else schema.table.column. */
static char *
choose_name(const FillRequest *request)
{
	char *qualified;

	if (catalog_unfinished_named(request->table) == NULL)
		return request->table;
	qualified =
		psprintf("%s.%s", get_namespace_name(RelationGetNamespace(request->rel)), request->table);
	if (catalog_unfinished_named(qualified) == NULL)
		return qualified;
	return psprintf("%s.%s", qualified, request->column);
}

static Migration *
record(const FillRequest *request)
{
	Migration *m = palloc0(sizeof(Migration));
	const char *search_path = GetConfigOption("search_path", false, false);

	m->name = choose_name(request);
	m->kind = "key";
	m->schema_name = get_namespace_name(RelationGetNamespace(request->rel));
	m->table_name = request->table;
	m->source = request->source;
	m->owner = request->rel->rd_rel->relowner;
	m->state = m->goal = STATE_CREATED;
	m->options =
		json_parse(psprintf("{\"on_null_key\": %s, \"search_path\": %s, "
							"\"owner\": \"%u\"}",
							json_quote(request->on_null_key), json_quote(search_path), m->owner));
	m->settings = json_parse("{}");
	m->definition = request->definition;
	catalog_insert(m);
	event_add(m, "created", psprintf("{\"definition\": %s}", json_text(m->definition)),
			  "column %s of %s is to be filled", quote_identifier(request->column),
			  sql_qualified(m->schema_name, m->table_name));
	return m;
}

/* backfill_key(source, column_name, options): the migration's name */
Datum
migrate_ext_backfill_key(PG_FUNCTION_ARGS)
{
	FillRequest request = {0};
	char *name;

	argument_require_writable("migrate_ext.backfill_key()");
	argument_require(fcinfo, 0, "source");
	request.source = PG_GETARG_OID(0);
	request.column = argument_text(fcinfo, 1, "column_name");
	request.options = argument_options(fcinfo, 2);
	check_options(&request);

	LockDatabaseObject(RelationRelationId, request.source, 0, ExclusiveLock);
	request.rel = relinfo_open(request.source);
	request.table = pstrdup(RelationGetRelationName(request.rel));
	relinfo_check_fillable(request.source);
	read_key(&request);
	request.definition = define(&request);

	name = find_same(&request);
	if (name != NULL)
		ereport(NOTICE, (errmsg("migration \"%s\" already exists, doing nothing", name)));
	else
		name = record(&request)->name;
	relation_close(request.rel, NoLock);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}
