/*-------------------------------------------------------------------------
 *
 * bounds.c
 *	  Which partitions a target gets: their names and bounds.
 *
 * The data are read by the query that the caller gives, as whoever he is (the
 * table's owner): once for NULLs, which is not done here, and for the least and
 * the greatest key, or its distinct values.
 *
 * All counts are checked before anything is allocated or made: a single row
 * with a date in the year 9999 asks for a hundred thousand partitions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/table.h"
#include "access/twophase.h"
#include "bounds.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "sqlgen.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Locks for everything that is no partition: parent, source, catalogs, other sessions. */
#define LOCK_SLACK 200

/*
 * List partitions are for a handful of values; with more of them planning
 * takes long, and whoever asks has most likely named the wrong column.
 */
#define LIST_VALUES_MAX 1000

/* Bytes of a value that its partition's name shows. */
#define LIST_SUFFIX_MAX 40

/* ------------------------------------------------------------------------
 * Limits
 * ------------------------------------------------------------------------
 */

/*
 * Locks a partition takes in one transaction: itself, its TOAST table and that
 * one's index when it is made; itself and its indexes when a query that can't
 * prune is planned.
 */
static int
locks_per_partition(Oid source)
{
	Relation rel = table_open(source, AccessShareLock);
	int indexes = list_length(RelationGetIndexList(rel));
	int toast = OidIsValid(rel->rd_rel->reltoastrelid) ? 2 : 0;

	table_close(rel, AccessShareLock);
	return 1 + Max(indexes, toast);
}

void
bounds_check_locks(Oid source, double partitions)
{
	int slots = MaxBackends + max_prepared_xacts;
	double room = (double) max_locks_per_xact * slots;
	int each = locks_per_partition(source);
	double needed = partitions * each + LOCK_SLACK;

	if (needed <= room)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("%.0f partitions are more than the server's lock table takes", partitions),
			 errdetail("At %d locks for each partition they need %.0f locks; "
					   "max_locks_per_transaction = %d makes room for %.0f.",
					   each, needed, max_locks_per_xact, room),
			 errhint("Choose a larger step or fewer partitions, or set max_locks_per_transaction "
					 "to %.0f and restart the server.",
					 ceil(needed / slots))));
}

void
bounds_check_values(const BoundsInput *input, double values)
{
	if (values > LIST_VALUES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("column \"%s\" has too many values for a partition each", input->key),
				 errdetail("There are more than %d.", LIST_VALUES_MAX),
				 errhint("Group the values by options.groups, or use "
						 "migrate_ext.partition_by_hash or partition_by_range.")));
	bounds_check_locks(input->source, values + 1);
}

/* ------------------------------------------------------------------------
 * Names
 * ------------------------------------------------------------------------
 */

static bool
is_planned(List *partitions, const char *name)
{
	ListCell *lc;

	foreach (lc, partitions)
	{
		if (strcmp(((Partition *) lfirst(lc))->name, name) == 0)
			return true;
	}
	return false;
}

/* Add a partition under a name that neither a relation nor another one has. */
static List *
add_partition(List *partitions, const BoundsInput *input, const char *suffix, char *bound)
{
	Partition *partition = palloc0(sizeof(Partition));
	int number;

	partition->name = name_free(input->table, suffix, input->schema);
	for (number = 1; is_planned(partitions, partition->name); number++)
		partition->name = name_free(input->table, psprintf("%d%s", number, suffix), input->schema);
	partition->bound = bound;
	return lappend(partitions, partition);
}

static List *
add_default(List *partitions, const BoundsInput *input)
{
	return add_partition(partitions, input, "_default", "DEFAULT");
}

/*
 * A value as part of a name: letters, digits and whatever isn't ASCII, with an
 * underscore for anything between, so that most names need no quotes.
 */
static char *
value_suffix(const char *value)
{
	bool number = isdigit((unsigned char) value[*value == '-']);
	StringInfoData buf;
	const char *end = value + pg_mbcliplen(value, strlen(value), LIST_SUFFIX_MAX);

	if (*value == '\0')
		return pstrdup("_p_empty");
	initStringInfo(&buf);
	appendStringInfoString(&buf, number ? "_p" : "_p_");
	if (number && *value == '-')
	{
		appendStringInfoChar(&buf, 'm');
		value++;
	}
	for (; value < end; value++)
	{
		unsigned char c = *value;

		if (IS_HIGHBIT_SET(c) || isalnum(c))
			appendStringInfoChar(&buf, IS_HIGHBIT_SET(c) ? c : pg_ascii_tolower(c));
		else if (buf.data[buf.len - 1] != '_')
			appendStringInfoChar(&buf, '_');
	}
	while (buf.data[buf.len - 1] == '_')
		buf.data[--buf.len] = '\0';
	return buf.data;
}

/* ------------------------------------------------------------------------
 * Ranges
 * ------------------------------------------------------------------------
 */

/*
 * The least or the greatest key of the rows: false if there is none.  ORDER BY
 * serves types without min() too, and both ends use an index on the key.
 */
static bool
read_end(const BoundsInput *input, const Axis *axis, bool greatest, int64 *position)
{
	bool infinite = input->type == DATEOID || input->type == TIMESTAMPOID ||
					input->type == TIMESTAMPTZOID || input->type == NUMERICOID;
	char *value;
	Oid typinput;
	Oid ioparam;

	value = sql_text("SELECT q.k FROM (%s) q WHERE %s ORDER BY q.k %s LIMIT 1", input->rows,
					 infinite ? "q.k > '-infinity' AND q.k < 'infinity'" : "q.k IS NOT NULL",
					 greatest ? "DESC" : "ASC");
	if (value == NULL)
		return false;
	getTypeInputInfo(input->type, &typinput, &ioparam);
	return axis_position(axis, OidInputFunctionCall(typinput, value, ioparam, -1), position);
}

char *
bounds_range_clause(const Axis *axis, int64 from, int64 to)
{
	return psprintf("FOR VALUES FROM (%s) TO (%s)", axis_bound(axis, from), axis_bound(axis, to));
}

/* The last position before stop. */
static int64
before_stop(const RangeInput *range)
{
	return range->stop > PG_INT64_MIN ? range->stop - 1 : range->stop;
}

/* Where the first partition begins, aligned. */
static int64
first_cut(const Axis *axis, const RangeInput *range, bool has_data, int64 least)
{
	if (range->has_start)
		return axis_floor(axis, range->start);
	if (has_data)
		return axis_floor(axis, least);
	if (range->has_stop)
		return axis_floor(axis, before_stop(range));
	return axis_floor(axis, axis_origin(axis));
}

/* Where the headroom begins, aligned. */
static int64
last_cut(const Axis *axis, const RangeInput *range, bool has_data, int64 greatest, int64 first)
{
	if (range->has_stop)
		return axis_next(axis, before_stop(range));
	if (has_data && greatest >= first)
		return axis_next(axis, greatest);
	return axis_next(axis, first);
}

List *
bounds_range_of(const BoundsInput *input, const Axis *axis, const RangeInput *range, bool has_data,
				int64 least, int64 greatest)
{
	int64 first = first_cut(axis, range, has_data, least);
	int64 last;
	int64 from;
	int headroom = range->headroom;
	List *partitions = NIL;

	if (range->has_stop && (range->has_start ? range->start : first) >= range->stop)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("start must be before stop"),
				 errdetail("The first partition would begin at %s, the last one end at %s.",
						   axis_show(axis, first), axis_show(axis, range->stop))));
	last = last_cut(axis, range, has_data, greatest, first);
	bounds_check_locks(input->source, ceil(axis_count(axis, first, last)) + headroom + 1);

	for (from = first; !axis_is_end(axis, from) && (from < last || headroom-- > 0);)
	{
		int64 to = axis_next(axis, from);
		Partition *partition;

		CHECK_FOR_INTERRUPTS();
		partitions = add_partition(partitions, input, axis_suffix(axis, from),
								   bounds_range_clause(axis, from, to));
		partition = llast(partitions);
		partition->from = from;
		partition->to = to;
		from = to;
	}
	return add_default(partitions, input);
}

List *
bounds_range(const BoundsInput *input, const Axis *axis, const RangeInput *range)
{
	int64 least = 0;
	int64 greatest = 0;
	bool has_data = !(range->has_start && range->has_stop);

	if (!range->has_start)
		has_data = read_end(input, axis, false, &least);
	if (has_data && !range->has_stop)
		has_data = read_end(input, axis, true, &greatest);
	return bounds_range_of(input, axis, range, has_data, least, greatest);
}

/* ------------------------------------------------------------------------
 * Lists
 * ------------------------------------------------------------------------
 */

/* The texts of a JSON array; 22023 for what can't be a value. */
static List *
array_values(JsonbContainer *array, const char *group)
{
	List *values = NIL;
	uint32 i;

	for (i = 0; i < JsonContainerSize(array); i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(array, i);

		if (value->type == jbvString)
			values = lappend(values, pnstrdup(value->val.string.val, value->val.string.len));
		else if (value->type == jbvNumeric)
			values = lappend(values, DatumGetCString(DirectFunctionCall1(
										 numeric_out, NumericGetDatum(value->val.numeric))));
		else if (value->type == jbvBool)
			values = lappend(values, pstrdup(value->val.boolean ? "true" : "false"));
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("group \"%s\" of options.groups has a value that is none", group),
					 errdetail("Values are strings, numbers and booleans; a key can't be NULL.")));
	}
	return values;
}

static char *
list_clause(List *values)
{
	StringInfoData buf;
	ListCell *lc;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "FOR VALUES IN (");
	foreach (lc, values)
		appendStringInfo(&buf, "%s%s", foreach_current_index (lc) > 0 ? ", " : "",
						 quote_literal_cstr(lfirst(lc)));
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/* groups: {"name": [value, ...], ...} */
static List *
list_of_groups(const BoundsInput *input, Jsonb *groups)
{
	JsonbIterator *iterator = JsonbIteratorInit(&groups->root);
	JsonbIteratorToken token;
	JsonbValue value;
	char *group = NULL;
	List *partitions = NIL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			group = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (value.type != jbvBinary || !JsonContainerIsArray(value.val.binary.data) ||
			JsonContainerSize(value.val.binary.data) == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("group \"%s\" of options.groups is no array of values", group),
							errhint("Give {\"group name\": [value, ...], ...}.")));
		partitions = add_partition(partitions, input, value_suffix(group),
								   list_clause(array_values(value.val.binary.data, group)));
	}
	return partitions;
}

List *
bounds_list_of(const BoundsInput *input, List *values)
{
	List *partitions = NIL;
	ListCell *lc;

	foreach (lc, values)
		partitions = add_partition(partitions, input, value_suffix(lfirst(lc)),
								   list_clause(list_make1(lfirst(lc))));
	return add_default(partitions, input);
}

/* Values of the data that there are not too many of, in their own order. */
static List *
read_values(const BoundsInput *input)
{
	char *array = sql_text("SELECT pg_catalog.jsonb_agg(d.k::pg_catalog.text ORDER BY d.k) FROM "
						   "(SELECT q.k FROM (%s) q WHERE q.k IS NOT NULL GROUP BY q.k "
						   "LIMIT %d) d",
						   input->rows, LIST_VALUES_MAX + 1);

	if (array == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("table \"%s\" has no rows to take the values of \"%s\" from",
							   get_rel_name(input->source), input->key),
						errhint("Give the values by options.groups.")));
	return array_values(&json_parse(array)->root, "");
}

List *
bounds_list(const BoundsInput *input, Jsonb *groups)
{
	List *values;

	if (groups != NULL)
	{
		if (!JB_ROOT_IS_OBJECT(groups) || JB_ROOT_COUNT(groups) == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("option \"groups\" must be an object with a group at least"),
							errhint("Give {\"group name\": [value, ...], ...}.")));
		bounds_check_locks(input->source, JB_ROOT_COUNT(groups) + 1);
		return add_default(list_of_groups(input, groups), input);
	}
	values = read_values(input);
	bounds_check_values(input, list_length(values));
	return bounds_list_of(input, values);
}

/* ------------------------------------------------------------------------
 * Hash
 * ------------------------------------------------------------------------
 */

List *
bounds_hash(const BoundsInput *input, int partitions)
{
	List *result = NIL;
	int i;

	if (partitions <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("partitions must be positive"),
				 errdetail("Given were %d.", partitions)));
	bounds_check_locks(input->source, partitions);
	for (i = 0; i < partitions; i++)
		result =
			add_partition(result, input, psprintf("_p%d", i),
						  psprintf("FOR VALUES WITH (MODULUS %d, REMAINDER %d)", partitions, i));
	return result;
}
