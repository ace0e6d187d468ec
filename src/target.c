/*-------------------------------------------------------------------------
 *
 * target.c
 *	  partition_by_range(), partition_by_list(), partition_by_hash() and
 *	  create_migration(): check a request, make the target, record the migration.
 *
 * All happens in the caller's transaction, under two locks: ACCESS SHARE on the
 * source, so that its columns stay what they are, and a lock on the source that
 * only these functions take, so that two requests for one table come one after
 * the other and the second finds what the first made.  Nothing on the source
 * changes, and writers never wait.
 *
 *	1. the request by itself: NULLs, options, names;
 *	2. the request against the source: kind, owner, key, step; it is normalized
 *	   into the definition, by which the same request is known when it is made
 *	   again, as deployments do;
 *	3. as the source's owner: the target without partitions, the data looked at,
 *	   the partitions;
 *	4. the migration's row and its event.
 *
 * Any error in any step leaves nothing, since it ends the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "arguments.h"
#include "axis.h"
#include "bounds.h"
#include "catalog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "columns.h"
#include "commands/defrem.h"
#include "compare.h"
#include "compat.h"
#include "fmgr.h"
#include "index_drop.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "reconcile.h"
#include "relinfo.h"
#include "run.h"
#include "sharding_key.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "target.h"
#include "target_table.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Rows without key are counted up to here, then there are simply too many. */
#define NULL_KEYS_MAX 1000000

/* What a call asks for. */
typedef struct Request
{
	/* as given */
	const char *function;
	Strategy strategy;
	Oid source;
	char *key;
	char *migration; /* or NULL */
	Jsonb *options;

	/* by range */
	ArgKind kind;
	Datum step;
	NullableDatum start;
	NullableDatum stop;
	RangeInput range;
	Axis *axis;

	/* by hash */
	int partitions;

	/* given target */
	Oid target;

	/* worked out */
	Relation rel;
	Oid type; /* of the key, below domains */
	Jsonb *definition;
} Request;

/* ------------------------------------------------------------------------
 * Options
 * ------------------------------------------------------------------------
 */

/* All there are; what they hold beyond their type is checked where it is used. */
static const struct
{
	const char *name;
	int strategies; /* that take it */
	bool object;	/* else a string */
} known_options[] = {
	{"timezone", STRATEGY_RANGE, false},  {"groups", STRATEGY_LIST, true},
	{"columns", STRATEGY_ANY, true},	  {"reverse_columns", STRATEGY_ANY, true},
	{"on_null_key", STRATEGY_ANY, false},
};

static char *
options_of(Strategy strategy)
{
	StringInfoData buf;
	int i;

	initStringInfo(&buf);
	for (i = 0; i < lengthof(known_options); i++)
	{
		if (known_options[i].strategies & strategy)
			appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "", known_options[i].name);
	}
	return buf.data;
}

/* 22023 for an option that the function doesn't know, or of the wrong type. */
static void
check_option(const Request *request, const char *name, const JsonbValue *value)
{
	bool object = value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
	int i;

	for (i = 0; i < lengthof(known_options); i++)
	{
		if (strcmp(known_options[i].name, name) == 0 &&
			(known_options[i].strategies & request->strategy))
			break;
	}
	if (i == lengthof(known_options))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown option \"%s\"", name),
			 errhint("Options of %s are: %s.", request->function, options_of(request->strategy))));
	if (known_options[i].object ? !object : value->type != jbvString)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" must be %s", name,
							   known_options[i].object ? "an object" : "a string")));
}

static void
check_options(const Request *request)
{
	JsonbIterator *iterator = JsonbIteratorInit(&request->options->root);
	JsonbIteratorToken token;
	JsonbValue value;
	char *name = NULL;
	char *given;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			check_option(request, name, &value);
	}

	(void) argument_on_null_key(request->options);
	given = json_field(request->options, "timezone");
	if (given != NULL && pg_tzset(given) == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("time zone \"%s\" not recognized", given),
						errhint("The view pg_timezone_names lists the names.")));
}

/* ------------------------------------------------------------------------
 * The request against the source
 * ------------------------------------------------------------------------
 */

const char *
target_strategy_name(Strategy strategy)
{
	switch (strategy)
	{
		case STRATEGY_RANGE:
			return "range";
		case STRATEGY_LIST:
			return "list";
		case STRATEGY_HASH:
			return "hash";
		default:
			return "given";
	}
}

/*
 * The key's column: 42703 if there is none, 42P17 where PostgreSQL can't
 * partition by it, 42704 if its type can't be compared or hashed.
 */
Oid
target_check_key(Relation rel, const char *key, Strategy strategy)
{
	const char *table = RelationGetRelationName(rel);
	AttrNumber attnum = get_attnum(RelationGetRelid(rel), key);
	Oid am = strategy == STRATEGY_HASH ? HASH_AM_OID : BTREE_AM_OID;
	Form_pg_attribute att;

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", key, table),
				 errhint("The key is the name of a column as it is stored, without quotes.")));
	if (attnum < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						errmsg("system column \"%s\" can't be the key of partitions", key)));
	att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	if (att->attgenerated)
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						errmsg("generated column \"%s\" of table \"%s\" can't be the key of "
							   "partitions",
							   key, table),
						errdetail("PostgreSQL does not partition by generated columns.")));
	if (!OidIsValid(GetDefaultOpClass(att->atttypid, am)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("column \"%s\" of type %s can't be the key of partitions", key,
						format_type_be(att->atttypid)),
				 errdetail("The type has no default operator class for access method \"%s\".",
						   am == HASH_AM_OID ? "hash" : "btree")));
	return getBaseType(att->atttypid);
}

/* Positions of step, start and stop; 22023 where they don't fit the key. */
static void
read_range(Request *request)
{
	char *timezone = json_field(request->options, "timezone");
	RangeInput *range = &request->range;

	if (range->headroom < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("headroom must not be negative"),
				 errdetail("Given were %d.", range->headroom)));
	request->axis = axis_create(request->key, request->type, request->kind, request->step,
								timezone ? timezone : "UTC");
	range->has_start = !request->start.isnull;
	if (range->has_start)
		range->start = axis_argument(request->axis, request->kind, request->start.value);
	range->has_stop = !request->stop.isnull;
	if (range->has_stop)
		range->stop = axis_argument(request->axis, request->kind, request->stop.value);
	if (range->has_start && range->has_stop && range->start >= range->stop)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("start must be before stop"),
				 errdetail("Start is %s, stop is %s.", axis_show(request->axis, range->start),
						   axis_show(request->axis, range->stop))));
}

/*
 * The request in one spelling: '30 days' and 30 times 24 hours, or a step given
 * as text and one given as bigint, come to the same.
 */
static Jsonb *
define(const Request *request)
{
	const RangeInput *range = &request->range;
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "{\"method\": \"%s\", \"options\": %s",
					 target_strategy_name(request->strategy), json_text(request->options));
	if (request->key != NULL)
		appendStringInfo(&buf, ", \"key\": %s", json_quote(request->key));
	if (request->strategy == STRATEGY_HASH)
		appendStringInfo(&buf, ", \"partitions\": %d", request->partitions);
	if (request->strategy == STRATEGY_RANGE)
	{
		appendStringInfo(&buf, ", \"step\": %s, \"headroom\": %d",
						 json_quote(axis_step(request->axis)), range->headroom);
		if (range->has_start)
			appendStringInfo(&buf, ", \"start\": %s",
							 json_quote(axis_show(request->axis, range->start)));
		if (range->has_stop)
			appendStringInfo(&buf, ", \"stop\": %s",
							 json_quote(axis_show(request->axis, range->stop)));
	}
	appendStringInfoChar(&buf, '}');
	return json_parse(buf.data);
}

/* ------------------------------------------------------------------------
 * The same request again, and names
 * ------------------------------------------------------------------------
 */

/*
 * Is there an unfinished migration of the table already?  If it is what is
 * asked for, returns its name; 42710 if it is something else under the same
 * name, which a request without a name means too.  The application's table is
 * the source until the swap and the target afterwards, and the same script
 * names it alike.
 */
static char *
find_same(const Request *request)
{
	Migration *m = catalog_of_table(request->source);

	if (m == NULL || request->source != front_of(m, direction_of(m)))
		return NULL;
	if (request->migration != NULL && strcmp(request->migration, m->name) != 0)
		return NULL;
	if (compareJsonbContainers(&m->definition->root, &request->definition->root) == 0 &&
		(request->strategy != STRATEGY_GIVEN || request->target == m->target))
		return m->name;
	ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
					errmsg("migration \"%s\" already exists with another definition", m->name),
					errdetail("It is %s, asked for was %s.", json_text(m->definition),
							  json_text(request->definition)),
					errhint("Ask for the same, or complete or cancel that migration first.")));
	return NULL; /* keep the compiler quiet */
}

/* Is there an unfinished migration of that name, whosever it is? */
static bool
name_is_used(const char *name)
{
	return catalog_unfinished_named(name) != NULL;
}

/*
 * The migration's name: as given, else the table's, else schema.table.  Should
 * somebody else take it meanwhile, catalog_insert() raises 42710.
 */
static char *
choose_name(const Request *request)
{
	const char *table = RelationGetRelationName(request->rel);

	if (request->migration == NULL)
		return name_is_used(table)
				   ? psprintf("%s.%s", get_namespace_name(RelationGetNamespace(request->rel)),
							  table)
				   : pstrdup(table);
	if (name_is_used(request->migration))
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("migration \"%s\" already exists", request->migration),
						errdetail("It is the migration of another table."),
						errhint("Give another name in the parameter \"migration\".")));
	return request->migration;
}

static void
check_given_name(const char *name)
{
	if (*name == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("the name of a migration must not be empty")));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG), errmsg("migration name \"%s\" is too long", name),
				 errdetail("It has %zu bytes, %d are allowed.", strlen(name), NAMEDATALEN - 1)));
}

/* ------------------------------------------------------------------------
 * Making the target
 * ------------------------------------------------------------------------
 */

/*
 * The query for the key of every row: the column, or what options.columns makes
 * of it.
 */
static char *
key_query(const Request *request, Migration *m)
{
	char *columns = json_field(request->options, "columns");

	if (json_field(m->options, "derived") != NULL || columns_skip_null_key(m))
		return psprintf(
			"SELECT t.%s AS k FROM (SELECT %s FROM ONLY %s s%s) t WHERE t.%s IS NOT NULL",
			quote_identifier(request->key), columns_select_list(m, DIRECTION_FORWARD, true),
			sql_relation(request->source), columns_joins(columns_build(m, DIRECTION_FORWARD)),
			quote_identifier(request->key));
	if (columns == NULL || json_field(json_parse(columns), request->key) == NULL)
		return psprintf("SELECT s.%s AS k FROM ONLY %s s", quote_identifier(request->key),
						sql_relation(request->source));
	return psprintf("SELECT t.%s AS k FROM (SELECT %s FROM ONLY %s s) t",
					quote_identifier(request->key), columns_select_list(m, DIRECTION_FORWARD, true),
					sql_relation(request->source));
}

/*
 * 23502 if rows have no key: no partition can take them, since the target's
 * primary key will contain it.
 */
static void
check_null_keys(const Request *request, const char *rows)
{
	AttrNumber attnum = get_attnum(request->source, request->key);
	int64 count;

	if (TupleDescAttr(RelationGetDescr(request->rel), attnum - 1)->attnotnull)
		return;
	if (sql_int64("SELECT EXISTS (SELECT FROM (%s) q WHERE q.k IS NULL)::pg_catalog.int4", rows) ==
		0)
		return;
	count = sql_int64("SELECT pg_catalog.count(*) FROM (SELECT FROM (%s) q WHERE q.k IS NULL "
					  "LIMIT %d) n",
					  rows, NULL_KEYS_MAX);
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("column \"%s\" of table \"%s\" contains null values", request->key,
					RelationGetRelationName(request->rel)),
			 errdetail("%s" INT64_FORMAT " rows have no key; the key of a partitioned table is "
					   "NOT NULL.",
					   count == NULL_KEYS_MAX ? "At least " : "", count),
			 errhint("Fill the column, or choose another key.")));
}

/* Can the target's column of that name not be NULL? */
static bool
is_not_null(Oid target, const char *name)
{
	AttrNumber attnum = OidIsValid(target) ? get_attnum(target, name) : InvalidAttrNumber;
	HeapTuple tuple;
	bool result;

	if (attnum <= 0)
		return false;
	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(target), Int16GetDatum(attnum));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull;
	ReleaseSysCache(tuple);
	return result;
}

static bool
is_one_of(List *names, const char *name)
{
	ListCell *cell;

	foreach (cell, names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

/* See target.h. */
Jsonb *
target_options_with_derived(Oid source, Oid target, Jsonb *options, List *keys)
{
	char *text = json_field(options, "columns");
	Jsonb *columns = text != NULL ? json_parse(text) : NULL;
	Relation rel = relation_open(source, AccessShareLock);
	StringInfoData derived;

	initStringInfo(&derived);
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);
		const char *name = NameStr(att->attname);
		ShardingKey *key;

		if (att->attisdropped || att->attnotnull ||
			(!is_one_of(keys, name) && !is_not_null(target, name)) ||
			(columns != NULL && json_field(columns, name) != NULL))
			continue;
		key = sharding_key_of_column(source, att->attnum);
		if (key != NULL && key->value != NULL)
			appendStringInfo(&derived, "%s%s: %s", derived.len > 0 ? ", " : "", json_quote(name),
							 json_quote(key->value));
	}
	relation_close(rel, NoLock);
	options = DatumGetJsonbP(
		DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(options), CStringGetTextDatum("derived")));
	if (derived.len == 0)
		return options;
	return DatumGetJsonbP(DirectFunctionCall2(
		jsonb_concat, JsonbPGetDatum(options),
		JsonbPGetDatum(json_parse(psprintf("{\"derived\": {%s}}", derived.data)))));
}

/* See target.h. */
List *
target_key_names(Oid target)
{
	Bitmapset *attnums = columns_of_root_key(target);
	List *names = NIL;
	int attnum = -1;

	while ((attnum = bms_next_member(attnums, attnum)) >= 0)
		names = lappend(names, get_attname(target, attnum, false));
	return names;
}

/* Create the target as the owner, who we are by now; returns its partitions. */
static List *
make_target(const Request *request, Migration *m)
{
	BoundsInput input = {request->source, m->table_name};
	char *groups = json_field(request->options, "groups");
	List *partitions;

	m->target =
		target_table_create(request->source, target_strategy_name(request->strategy), request->key);
	input.schema = RelationGetNamespace(request->rel);
	input.key = request->key;
	input.type = request->type;
	input.rows = key_query(request, m);
	if (json_field(m->options, "derived") == NULL && !columns_skip_null_key(m))
		check_null_keys(request, input.rows);

	if (request->strategy == STRATEGY_RANGE)
		partitions = bounds_range(&input, request->axis, &request->range);
	else if (request->strategy == STRATEGY_LIST)
		partitions = bounds_list(&input, groups ? json_parse(groups) : NULL);
	else
		partitions = bounds_hash(&input, request->partitions);
	target_table_add_partitions(request->source, m->target, partitions);
	return partitions;
}

/* ------------------------------------------------------------------------
 * The request as a whole
 * ------------------------------------------------------------------------
 */

/* Steps 1 and 2 of the file's head; NULL, or the name of the same migration. */
static char *
check_request(Request *request)
{
	char *same;

	if (request->migration != NULL)
		check_given_name(request->migration);
	check_options(request);

	/* one request for a table at a time, see the file's head */
	LockDatabaseObject(RelationRelationId, request->source, 0, ExclusiveLock);
	request->rel = relinfo_open(request->source);

	/* whoever may not do this learns nothing of the migration there is */
	if (!object_ownercheck(RelationRelationId, request->source, GetUserId()) ||
		catalog_of_table(request->source) == NULL)
		relinfo_check_source(request->source);
	if (request->key != NULL)
		request->type = target_check_key(request->rel, request->key, request->strategy);
	if (request->strategy == STRATEGY_RANGE)
		read_range(request);
	request->definition = define(request);

	same = find_same(request);
	if (same == NULL)
		relinfo_check_source(request->source);
	return same;
}

static void
add_created_event(const Request *request, Migration *m, List *partitions)
{
	char *target = sql_relation(m->target);
	int count =
		list_length(request->strategy == STRATEGY_GIVEN ? relinfo_leaves(m->target) : partitions);
	char *detail;

	detail = psprintf("{\"target\": %s, \"partitions\": %d, \"definition\": %s}",
					  json_quote(target), count, json_text(request->definition));
	if (request->strategy == STRATEGY_GIVEN)
		event_add(m, "created", detail, "migration to the given table %s with %d partitions",
				  target, count);
	else
		event_add(m, "created", detail, "made %s by %s (%s) with %d partitions", target,
				  target_strategy_name(request->strategy), quote_identifier(request->key), count);
}

/* The target has rows or indexes, which are to stay. */
static void
adopt(Migration *m)
{
	reconcile_ask(m, true);
	index_record_given(m);
	ereport(NOTICE,
			(errmsg("table \"%s\" is adopted with the rows and indexes it has",
					get_rel_name(m->target)),
			 errdetail("It is compared with the source and put right, row by row. A target that "
					   "is empty and has no indexes is copied to, which is faster.")));
}

/* All of it; returns the migration's name as a Datum of text. */
static Datum
create(Request *request)
{
	char *same = check_request(request);
	Migration *m;
	UserSwitch save;
	List *partitions = NIL;
	bool adopted = false;

	if (same != NULL)
	{
		ereport(NOTICE, (errmsg("migration \"%s\" already exists, doing nothing", same)));
		relation_close(request->rel, NoLock);
		return CStringGetTextDatum(same);
	}

	m = palloc0(sizeof(Migration));
	m->name = choose_name(request);
	m->kind = "partition";
	m->schema_name = get_namespace_name(RelationGetNamespace(request->rel));
	m->table_name = pstrdup(RelationGetRelationName(request->rel));
	m->source = request->source;
	m->target = request->target;
	m->owner = request->rel->rd_rel->relowner;
	m->state = STATE_CREATED;
	m->goal = STATE_CREATED;
	m->options = request->options;
	m->settings = json_parse("{}");
	m->definition = request->definition;
	m->made_target = request->strategy != STRATEGY_GIVEN;

	if (!m->made_target)
	{
		user_switch_owner(&save, m->owner);
		adopted = target_check_given(m->source, m->target);
		user_switch_back(&save);
	}
	m->options = target_options_with_derived(m->source, m->target, request->options,
											 m->made_target ? list_make1(request->key)
															: target_key_names(m->target));
	user_switch_owner(&save, m->owner);
	if (m->made_target)
		partitions = make_target(request, m);
	target_check_carried(request->rel, m->target, columns_build(m, DIRECTION_FORWARD));
	if (adopted)
	{
		(void) compare_sides(m, true); /* can it be compared? */
		target_check_part_keys(m);
	}

	/* what the columns are from now on, see guard_check_source(): in pinned settings */
	m->source_shape = relinfo_shape(m->source);
	m->target_shape = relinfo_target_shape(m->target);
	user_switch_back(&save);

	catalog_insert(m);
	catalog_save_shapes(m);
	add_created_event(request, m, partitions);
	if (adopted)
		adopt(m);
	relation_close(request->rel, NoLock);
	return CStringGetTextDatum(m->name);
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------
 */

/* What all of them have: source, key, and at the end migration and options. */
static void
read_arguments(FunctionCallInfo fcinfo, Request *request, const char *function, Strategy strategy)
{
	memset(request, 0, sizeof(Request));
	request->function = function;
	request->strategy = strategy;
	argument_require_writable(psprintf("%s()", function));
	argument_require(fcinfo, 0, "source");
	request->source = PG_GETARG_OID(0);
	if (strategy != STRATEGY_GIVEN)
		request->key = argument_text(fcinfo, 1, "key");
	if (!PG_ARGISNULL(PG_NARGS() - 2))
		request->migration = argument_text(fcinfo, PG_NARGS() - 2, "migration");
	request->options = argument_options(fcinfo, PG_NARGS() - 1);
}

/* The three variants have their arguments in the same places. */
static Datum
partition_by_range(FunctionCallInfo fcinfo, ArgKind kind)
{
	Request request;

	read_arguments(fcinfo, &request, "migrate_ext.partition_by_range", STRATEGY_RANGE);
	argument_require(fcinfo, 2, "step");
	argument_require(fcinfo, 5, "headroom");
	request.kind = kind;
	request.step = PG_GETARG_DATUM(2);
	request.start = fcinfo->args[3];
	request.stop = fcinfo->args[4];
	request.range.headroom = PG_GETARG_INT32(5);
	return create(&request);
}

PG_FUNCTION_INFO_V1(migrate_ext_partition_by_range_bigint);
PG_FUNCTION_INFO_V1(migrate_ext_partition_by_range_interval);
PG_FUNCTION_INFO_V1(migrate_ext_partition_by_range_text);
PG_FUNCTION_INFO_V1(migrate_ext_partition_by_list);
PG_FUNCTION_INFO_V1(migrate_ext_partition_by_hash);
PG_FUNCTION_INFO_V1(migrate_ext_create_migration);

Datum
migrate_ext_partition_by_range_bigint(PG_FUNCTION_ARGS)
{
	return partition_by_range(fcinfo, ARG_BIGINT);
}

Datum
migrate_ext_partition_by_range_interval(PG_FUNCTION_ARGS)
{
	return partition_by_range(fcinfo, ARG_INTERVAL);
}

Datum
migrate_ext_partition_by_range_text(PG_FUNCTION_ARGS)
{
	return partition_by_range(fcinfo, ARG_TEXT);
}

Datum
migrate_ext_partition_by_list(PG_FUNCTION_ARGS)
{
	Request request;

	read_arguments(fcinfo, &request, "migrate_ext.partition_by_list", STRATEGY_LIST);
	return create(&request);
}

Datum
migrate_ext_partition_by_hash(PG_FUNCTION_ARGS)
{
	Request request;

	read_arguments(fcinfo, &request, "migrate_ext.partition_by_hash", STRATEGY_HASH);
	argument_require(fcinfo, 2, "partitions");
	request.partitions = PG_GETARG_INT32(2);
	return create(&request);
}

Datum
migrate_ext_create_migration(PG_FUNCTION_ARGS)
{
	Request request;

	read_arguments(fcinfo, &request, "migrate_ext.create_migration", STRATEGY_GIVEN);
	argument_require(fcinfo, 1, "target");
	request.target = PG_GETARG_OID(1);
	return create(&request);
}
