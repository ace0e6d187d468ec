/*-------------------------------------------------------------------------
 *
 * partman.c
 *	  Hands a table that is partitioned by range over to pg_partman 4 or 5: a row
 *	  of its table part_config, with which its maintenance makes the next partitions.
 *
 * create_parent(), which writes that row for who begins with pg_partman, would
 * lock the table, make partitions of its own around today and a template table.
 * Here all is there already.  What pg_partman goes by is, beside the row:
 *
 *		name	"<anything>_p<lower bound>": up to version 4 integers are sorted, and
 *				taken for the bound, as the name says; times are sorted by datetime_string
 *		bound	of the last partition: the next one begins an interval later
 *
 * So each partition must be called as we call them, and the last one must be a
 * step wide.  Rows in the default partition that are beyond the last one would
 * make its maintenance fail, of all its tables: they are refused as well.
 *
 * It is the table's owner who does this: pg_partman's rights are his, or not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"

#include "axis.h"
#include "catalog.h"
#include "partman.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"

/* The columns of part_config that settings may name; all else is ours to tell, or of no use here. */
static const char *const allowed[] = {
	"premake",
	"retention",
	"retention_schema",
	"retention_keep_table",
	"retention_keep_index",
	"infinite_time_partitions",
	"inherit_privileges",
	"ignore_default_data",
	"automatic_maintenance",
	"jobmon",
};

/* What pg_partman is to know. */
typedef struct Handover
{
	int version;  /* of the extension: 4 or 5 */
	char *config; /* schema.part_config, of the extension's schema */
	char *schema; /* of the extension */
	char *parent; /* schema.table, not quoted: as pg_partman names it */
	char *key;	  /* column */
	Axis *axis;
	char *last_bound;	   /* end of the last partition, a literal */
	Oid default_partition; /* or InvalidOid */
	Oid owner;
} Handover;

Jsonb *
partman_option(Jsonb *options)
{
	char *value = options ? json_field(options, "pg_partman") : NULL;

	if (value == NULL || strcmp(value, "false") == 0)
		return NULL;
	return json_parse(strcmp(value, "true") == 0 ? "{}" : value);
}

/* ------------------------------------------------------------------------
 * Can it be handed over?
 * ------------------------------------------------------------------------
 */

static void
find_extension(Handover *h)
{
	char *version = sql_text("SELECT extversion FROM pg_catalog.pg_extension"
							 " WHERE extname = 'pg_partman'");

	if (version == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"pg_partman\" is not installed in this database"),
						errhint("CREATE EXTENSION pg_partman, or complete without the option.")));
	h->version = atoi(version);
	if (h->version != 4 && h->version != 5)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("pg_partman %s is not known", version),
				 errdetail("Tables can be handed over to versions 4 and 5."),
				 errhint("Complete without the option, and call its create_parent() after that.")));
	h->schema = sql_text("SELECT n.nspname FROM pg_catalog.pg_extension e"
						 " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
						 " WHERE e.extname = 'pg_partman'");
	h->config = sql_qualified(h->schema, "part_config");
}

static void
refuse_partition(Oid partition, const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("pg_partman can't go on after partition %s", sql_relation(partition)),
					errdetail("%s", detail),
					errhint("Rename or detach it, or complete without the option.")));
}

/* It is called after its lower bound, which is one that pg_partman can read. */
static void
check_name(const Handover *h, Oid partition, PartitionRangeDatumKind kind, Datum lower)
{
	char *name = get_rel_name(partition);
	int64 position = 0;
	char *suffix;

	if (kind != PARTITION_RANGE_DATUM_VALUE || !axis_position(h->axis, lower, &position))
		refuse_partition(partition, "It begins with no value of the key.");
	suffix = axis_suffix(h->axis, position);
	if (strspn(suffix + strlen("_p"), "0123456789") == 0 || strstr(suffix, "bc") != NULL)
		refuse_partition(partition, "It can't sort values below zero, or before the year 1.");
	if (strlen(name) < strlen(suffix) || strcmp(name + strlen(name) - strlen(suffix), suffix) != 0)
		refuse_partition(partition,
						 psprintf("By its lower bound its name would end in \"%s\".", suffix));
}

/* Where the last partition ends, which must be a step after its beginning. */
static void
check_end(Handover *h, Oid partition, Datum lower, PartitionRangeDatumKind kind, Datum upper)
{
	int64 begins = 0;
	int64 ends = 0;

	if (kind != PARTITION_RANGE_DATUM_VALUE || !axis_position(h->axis, upper, &ends) ||
		axis_is_end(h->axis, ends))
		refuse_partition(partition, "No value of the key is beyond it.");
	if (!axis_position(h->axis, lower, &begins) || axis_next(h->axis, begins) != ends)
		refuse_partition(partition,
						 psprintf("It is not %s wide, as the others.", axis_step(h->axis)));
	h->last_bound = axis_bound(h->axis, ends);
}

/* Partitions in the order of their bounds: indexes[i] is the one that ends at datum i. */
static void
check_partitions(Handover *h, PartitionDesc desc)
{
	PartitionBoundInfo bounds = desc->boundinfo;
	int i;

	for (i = 1; bounds != NULL && i < bounds->ndatums; i++)
	{
		Oid partition;

		if (bounds->indexes[i] < 0) /* a gap */
			continue;
		partition = desc->oids[bounds->indexes[i]];
		check_name(h, partition, bounds->kind[i - 1][0], bounds->datums[i - 1][0]);
		if (i == bounds->ndatums - 1)
			check_end(h, partition, bounds->datums[i - 1][0], bounds->kind[i][0],
					  bounds->datums[i][0]);
	}
	if (h->last_bound == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" has no partition that pg_partman could go on after", h->parent)));
	h->default_partition = get_default_oid_from_partdesc(desc);
}

/* Of the key's types pg_partman knows fewer than we do. */
static void
check_key(Handover *h, const Migration *m, Relation target)
{
	char *method = json_field(m->definition, "method");
	char *timezone = json_field(m->options, "timezone");
	PartitionKey key = RelationGetPartitionKey(target);
	Oid type;

	if (method == NULL || strcmp(method, "range") != 0 || key == NULL ||
		key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 || key->partattrs[0] == 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("\"%s\" can't be handed over to pg_partman", h->parent),
						errdetail("It has not been made by migrate_ext.partition_by_range."),
						errhint("Complete without the option.")));
	h->key = get_attname(m->target, key->partattrs[0], false);
	type = key->parttypid[0];
	if (type != INT2OID && type != INT4OID && type != INT8OID && type != DATEOID &&
		type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" can't be handed over to pg_partman", h->parent),
			 errdetail("Column \"%s\" is of type %s; pg_partman knows smallint, integer, bigint,"
					   " date, timestamp and timestamptz.",
					   h->key, format_type_be(type)),
			 errhint("Complete without the option.")));
	h->axis =
		axis_create(h->key, type, ARG_TEXT, CStringGetTextDatum(json_field(m->definition, "step")),
					timezone ? timezone : "UTC");
}

/* All that is quickly told. */
static Handover *
look(const Migration *m)
{
	Handover *h = palloc0(sizeof(Handover));
	Relation target;

	migration_require_target(m, "option \"pg_partman\"");
	find_extension(h);
	target = relinfo_open(m->target);
	h->owner = target->rd_rel->relowner;
	h->parent = psprintf("%s.%s", m->schema_name, m->table_name);
	/* it takes the parts of a name by the dot, and puts them into a literal */
	if (strpbrk(m->schema_name, ".'") || strpbrk(m->table_name, ".'"))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("\"%s\" can't be handed over to pg_partman", h->parent),
						errdetail("It can't read names with a dot or a quote in them."),
						errhint("Complete without the option.")));
	check_key(h, m, target);
	check_partitions(h, RelationGetPartitionDesc(target, true));
	relation_close(target, NoLock);
	return h;
}

/* ------------------------------------------------------------------------
 * With these settings, now?
 * ------------------------------------------------------------------------
 */

static void
check_rights(const Handover *h)
{
	char *owner = GetUserNameFromId(h->owner, false);
	UserSwitch user;
	bool registered;

	if (sql_int64("SELECT (pg_catalog.has_schema_privilege(%u, %s, 'USAGE')"
				  " AND pg_catalog.has_table_privilege(%u, %s, 'SELECT')"
				  " AND pg_catalog.has_table_privilege(%u, %s, 'INSERT'))::pg_catalog.int4",
				  h->owner, quote_literal_cstr(h->schema), h->owner, quote_literal_cstr(h->config),
				  h->owner, quote_literal_cstr(h->config)) == 0)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("role \"%s\" may not register tables with pg_partman", owner),
						errdetail("It is the owner of \"%s\".", h->parent),
						errhint("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT, INSERT ON %s TO %s;",
								quote_identifier(h->schema), quote_identifier(owner), h->config,
								quote_identifier(owner))));
	/* whatever hangs on that table, it isn't a superuser who reads it */
	user_switch_owner(&user, h->owner);
	registered = sql_int64("SELECT pg_catalog.count(*) FROM %s WHERE parent_table = %s", h->config,
						   quote_literal_cstr(h->parent)) > 0;
	user_switch_back(&user);
	if (registered)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("\"%s\" is registered with pg_partman already", h->parent),
				 errhint("Delete its row of %s, or complete without the option.", h->config)));
}

static void
check_setting(const Handover *h, Jsonb *settings, const char *name)
{
	char *value = json_field(settings, name);
	int i;

	for (i = 0; i < lengthof(allowed) && strcmp(allowed[i], name) != 0; i++)
		;
	if (i == lengthof(allowed))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized setting \"%s\" of option \"pg_partman\"", name),
				 errhint("Settings are premake, retention, retention_schema, retention_keep_table, "
						 "retention_keep_index, infinite_time_partitions, inherit_privileges, "
						 "ignore_default_data, automatic_maintenance and jobmon.")));
	/* these its maintenance would fall over */
	if (value && strcmp(name, "retention") == 0)
		(void) sql_text("SELECT %s::pg_catalog.%s", quote_literal_cstr(value),
						axis_suffix_format(h->axis) ? "interval" : "int8");
	if (value && strcmp(name, "retention_schema") == 0)
		(void) get_namespace_oid(value, false);
}

static List *
setting_names(Jsonb *settings)
{
	JsonbIterator *it = JsonbIteratorInit(&settings->root);
	JsonbValue v;
	JsonbIteratorToken token;
	List *names = NIL;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_KEY)
			names = lappend(names, pnstrdup(v.val.string.val, v.val.string.len));
	return names;
}

static void
check_default_partition(const Handover *h)
{
	UserSwitch user;
	bool beyond;

	if (!OidIsValid(h->default_partition))
		return;
	user_switch_owner(&user, h->owner);
	beyond =
		sql_int64("SELECT EXISTS (SELECT FROM ONLY %s s WHERE s.%s >= %s)::pg_catalog.int4",
				  sql_relation(h->default_partition), quote_identifier(h->key), h->last_bound) != 0;
	user_switch_back(&user);
	if (beyond)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the default partition of \"%s\" has rows beyond the last partition",
							   h->parent),
						errdetail("pg_partman's maintenance would fail, of all its tables."),
						errhint("Move the rows of %s from %s on, or complete without the option.",
								sql_relation(h->default_partition), h->last_bound)));
}

void
partman_check(const Migration *m, Jsonb *settings)
{
	Handover *h = look(m);
	ListCell *lc;

	check_rights(h);
	foreach (lc, setting_names(settings))
		check_setting(h, settings, lfirst(lc));
	check_default_partition(h);
}

/* ------------------------------------------------------------------------
 * Handing over
 * ------------------------------------------------------------------------
 */

/*
 * How pg_partman is to call the next partitions of a time, NULL for a number.  Version 5
 * stops at quarters and weeks of the year, those with a letter; as it goes by
 * bounds alone, partitions may be called after their first day from then on.
 */
static char *
datetime_string(const Handover *h)
{
	char *format = axis_suffix_format(h->axis);

	return h->version >= 5 && format != NULL && strchr(format, '"') ? "YYYY_MM_DD" : format;
}

/*
 * INSERT INTO part_config (parent_table, ..., premake, retention) SELECT ..., r.premake, r.retention
 * FROM jsonb_populate_record(NULL::part_config, '{"premake": 6, "retention": ...}') r
 */
static void
insert_config(const Handover *h, Jsonb *settings)
{
	char *format = datetime_string(h);
	StringInfoData columns;
	StringInfoData values;
	ListCell *lc;

	initStringInfo(&columns);
	initStringInfo(&values);
	foreach (lc, setting_names(settings))
	{
		appendStringInfo(&columns, ", %s", quote_identifier(lfirst(lc)));
		appendStringInfo(&values, ", r.%s", quote_identifier(lfirst(lc)));
	}
	(void) sql_run("INSERT INTO %s (parent_table, control, partition_type, partition_interval,"
				   " datetime_string%s) SELECT %s, %s, %s, %s, %s%s"
				   " FROM pg_catalog.jsonb_populate_record(NULL::%s, %s) r",
				   h->config, columns.data, quote_literal_cstr(h->parent),
				   quote_literal_cstr(h->key), h->version >= 5 ? "'range'" : "'native'",
				   quote_literal_cstr(axis_step(h->axis)),
				   format ? quote_literal_cstr(format) : "NULL", values.data, h->config,
				   quote_literal_cstr(json_text(settings)));
}

/* As many partitions ahead as before, unless told otherwise. */
static Jsonb *
with_premake(const Migration *m, Jsonb *settings)
{
	int headroom = pg_strtoint32(json_field(m->definition, "headroom"));

	return DatumGetJsonbP(DirectFunctionCall2(
		jsonb_concat, JsonbPGetDatum(json_parse(psprintf("{\"premake\": %d}", Max(headroom, 1)))),
		JsonbPGetDatum(settings)));
}

void
partman_register(Migration *m, Jsonb *settings)
{
	Handover *h = look(m);
	UserSwitch user;

	settings = with_premake(m, settings);
	user_switch_owner(&user, h->owner);
	insert_config(h, settings);
	user_switch_back(&user);
	event_add(m, "pg_partman", json_text(settings),
			  "pg_partman makes the partitions of %s from now on%s",
			  sql_qualified(m->schema_name, m->table_name),
			  h->axis->type == TIMESTAMPTZOID
				  ? psprintf(": run its maintenance with TimeZone %s", h->axis->timezone)
				  : "");
}
