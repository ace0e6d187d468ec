/*-------------------------------------------------------------------------
 *
 * compare.c
 *	  The statements that compare the two tables; see compare.h.
 *
 * A range of the identity is compared by one statement, a full join of the two
 * sides: both are read in one snapshot.  The first range has no lower bound and
 * the last one no upper: together they hold every row of either side, wherever
 * it came from.
 *
 * The front side is the one the application writes: its rows are mapped to the
 * other's format, and should be found there.  Missing and extra are said of the
 * back side.  Rows count as equal where their images are, byte for byte: 1.0
 * and 1.00 are different.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "changelog.h"
#include "columns.h"
#include "compare.h"
#include "nodes/nodeFuncs.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/*
 * Rows in a range: fewer than the least aren't worth the statement's planning;
 * more than the most don't fit a hash table of the default work_mem any better.
 */
#define FIRST_RANGE_ROWS 20000
#define MIN_RANGE_ROWS 1000
#define MAX_RANGE_ROWS 1000000
#define MAX_RANGE_GROWTH 4.0

/* Names and pieces of SQL for one direction, made anew for every range. */
struct Sides
{
	Oid front;
	Oid back;
	int nkeys;
	char **front_keys; /* quoted names of the identity's columns */
	char **back_keys;
	Oid *front_types;
	char *excluded; /* FROM item of identities not to look at, or NULL */

	/* keys that are derived, see key_columns_of(); sets of attribute numbers */
	Bitmapset *source_derived;
	Bitmapset *target_derived;
	char *own_key; /* SQL over the source's row s: has it its keys itself? */
	char *no_key;  /* SQL over s: does its partition key come out NULL? */
	char *joins;   /* what that needs */
	bool skip;	   /* such rows are left out */
};

/* ------------------------------------------------------------------------
 * The two sides
 * ------------------------------------------------------------------------
 */

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/*
 * The identity's values must have the same order on both sides, or a range of
 * one would not be a range of the other: the columns are carried as they are,
 * or from one size of integer to another.
 */
static void
check_key_column(ColumnMap *map, AttrNumber from, AttrNumber to, const char *name)
{
	if (to > 0 && map->from_attnum[to - 1] == from)
		return;
	if (to > 0 && map->expr[to - 1] != NULL && IsA(map->expr[to - 1], FuncExpr) &&
		is_integer(get_atttype(map->from, from)) && is_integer(get_atttype(map->to, to)))
	{
		FuncExpr *cast = (FuncExpr *) map->expr[to - 1];

		if (cast->funcformat != COERCE_EXPLICIT_CALL && IsA(linitial(cast->args), Var) &&
			((Var *) linitial(cast->args))->varattno == from)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("can't compare tables whose rows have other names"),
			 errdetail("Column \"%s\" of the key that names a row is computed on the way.", name)));
}

/*
 * The failed rows' identities, as an item of FROM; NULL if there are none.  They
 * are objects by the source's column names, which the target's key columns have
 * as well.  types are the front's: after a swap there may be a key that the
 * source's can't hold, and that's why the row failed.
 *
 *		pg_catalog.jsonb_to_recordset('[{"a": 5}]'::pg_catalog.jsonb) x (a pg_catalog.int8)
 */
static char *
failed_identities(Migration *m, Identity *identity, const Oid *types)
{
	List *failed = failed_row_identities(m, false);
	StringInfoData objects;
	StringInfoData columns;
	ListCell *cell;

	if (failed == NIL)
		return NULL;
	initStringInfo(&objects);
	foreach (cell, failed)
		appendStringInfo(&objects, "%s%s", objects.len > 0 ? ", " : "", json_text(lfirst(cell)));
	initStringInfo(&columns);
	for (int i = 0; i < identity->natts; i++)
		appendStringInfo(&columns, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(get_attname(m->source, identity->attnums[i], false)),
						 format_type_extended(
							 types[i], -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	return psprintf("pg_catalog.jsonb_to_recordset(%s::pg_catalog.jsonb) x (%s)",
					quote_literal_cstr(psprintf("[%s]", objects.data)), columns.data);
}

/*
 * What the comparison needs to know of keys that are derived, or NULL.  In the
 * source a derived key stays NULL, so it isn't compared there: forward it is
 * compared with what it comes to now, which may be another value than when the
 * row was carried over (stale_key); backward, only where the source has one.
 *
 * A row of the source that has no key is left out, if options.on_null_key says
 * so.  Backward, one that lacks its own counts as that, whatever would be derived
 * today: its parent has come since, and undo finds the row where it has been all
 * along.  But not after somebody tampered with the triggers, when it may be one
 * whose DELETE was missed.
 */
static void
key_columns_of(Migration *m, Sides *sides)
{
	ColumnMap *map = columns_build(m, DIRECTION_FORWARD);
	Bitmapset *root_key = columns_of_root_key(m->target);
	StringInfoData own;
	StringInfoData none;
	bool today = sides->front == m->source || m->tainted || guard_reverse_was_touched(m);
	int i = -1;

	initStringInfo(&own);
	initStringInfo(&none);
	appendStringInfoString(&own, "true");
	appendStringInfoString(&none, "false");
	sides->skip = columns_skip_null_key(m);
	/* backward they are needed only to tell rows that were left out */
	sides->joins = sides->front == m->source || (sides->skip && today) ? columns_joins(map) : "";
	for (int j = 0; j < map->natts; j++)
	{
		if (map->derived[j] == NULL)
			continue;
		sides->source_derived = bms_add_member(sides->source_derived, map->derived[j]->source);
		sides->target_derived = bms_add_member(sides->target_derived, j + 1);
		appendStringInfo(&own, " AND s.%s IS NOT NULL",
						 quote_identifier(get_attname(m->source, map->derived[j]->source, false)));
	}
	while (sides->skip && (i = bms_next_member(root_key, i)) >= 0)
	{
		DerivedColumn *derived = map->derived[i - 1];
		AttrNumber own_attnum = derived != NULL ? derived->source : map->from_attnum[i - 1];

		if (derived != NULL && today)
			appendStringInfo(&none, " OR %s IS NULL", derived->value);
		else if (own_attnum > 0)
			appendStringInfo(&none, " OR s.%s IS NULL",
							 quote_identifier(get_attname(m->source, own_attnum, false)));
	}
	sides->own_key = own.data;
	sides->no_key = none.data;
}

/*
 * Describe both sides.  Both are locked by the caller.
 */
Sides *
compare_sides(Migration *m, bool with_failed)
{
	Direction direction = direction_of(m);
	ColumnMap *map = columns_build(m, direction);
	Identity *identity = relinfo_identity(m->source, false);
	Sides *sides = palloc0(sizeof(Sides));

	sides->front = map->from;
	sides->back = map->to;
	sides->nkeys = identity->natts;
	sides->front_keys = palloc(sides->nkeys * sizeof(char *));
	sides->back_keys = palloc(sides->nkeys * sizeof(char *));
	sides->front_types = palloc(sides->nkeys * sizeof(Oid));
	for (int i = 0; i < sides->nkeys; i++)
	{
		char *name = get_attname(m->source, identity->attnums[i], false);
		AttrNumber from = get_attnum(map->from, name);

		check_key_column(map, from, get_attnum(map->to, name), name);
		sides->front_keys[i] = pstrdup(quote_identifier(name));
		sides->back_keys[i] = sides->front_keys[i];
		sides->front_types[i] = get_atttype(map->from, from);
	}
	if (!with_failed)
		sides->excluded = failed_identities(m, identity, sides->front_types);
	key_columns_of(m, sides);
	return sides;
}

/* "s.a, s.b" */
static char *
key_list(Sides *sides, char **keys, const char *alias)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < sides->nkeys; i++)
		appendStringInfo(&list, "%s%s.%s", i > 0 ? ", " : "", alias, keys[i]);
	return list.data;
}

/* A partitioned table is read with its partitions, another alone. */
static char *
from_item(Oid relid, const char *alias)
{
	return psprintf("%s%s %s", get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					sql_relation(relid), alias);
}

/*
 * " AND NOT EXISTS (SELECT FROM pg_catalog.jsonb_to_recordset(...) x (a ...) WHERE x.a = s.a)"
 */
static void
append_exclusion(StringInfo where, Sides *sides, char **keys, const char *alias)
{
	if (sides->excluded == NULL)
		return;
	appendStringInfo(where, " AND NOT EXISTS (SELECT FROM %s WHERE ", sides->excluded);
	for (int i = 0; i < sides->nkeys; i++)
		appendStringInfo(where, "%sx.%s = %s.%s", i > 0 ? " AND " : "", keys[i], alias, keys[i]);
	appendStringInfoChar(where, ')');
}

/* The WHERE clause of a range: low < keys <= high, without the excluded. */
static char *
range_condition(Sides *sides, char **keys, const char *alias, const char *low, const char *high)
{
	char *list = key_list(sides, keys, alias);
	StringInfoData where;

	initStringInfo(&where);
	appendStringInfoString(&where, "true");
	if (low != NULL)
		appendStringInfo(&where, " AND (%s) > (%s)", list, low);
	if (high != NULL)
		appendStringInfo(&where, " AND (%s) <= (%s)", list, high);
	append_exclusion(&where, sides, keys, alias);
	return where.data;
}

/* ------------------------------------------------------------------------
 * A range
 * ------------------------------------------------------------------------
 */

/*
 * The upper bound of the next range, as SQL text; NULL if what is left fits in
 * one range.
 *
 *		SELECT quote_literal(s.a::text) || '::pg_catalog.int8' FROM ONLY public.t s
 *		 WHERE s.a > ('5'::pg_catalog.int8) ORDER BY s.a OFFSET 20000 LIMIT 1
 */
char *
compare_next_bound(Sides *sides, const char *low, int64 rows)
{
	char *keys = key_list(sides, sides->front_keys, "s");
	StringInfoData literal;

	initStringInfo(&literal);
	for (int i = 0; i < sides->nkeys; i++)
	{
		char *type = format_type_extended(sides->front_types[i], -1,
										  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);

		appendStringInfo(&literal, "%spg_catalog.quote_literal(s.%s::pg_catalog.text) || %s",
						 i > 0 ? " || ', ' || " : "", sides->front_keys[i],
						 quote_literal_cstr(psprintf("::%s", type)));
	}
	return sql_text("SELECT %s FROM %s WHERE %s ORDER BY %s OFFSET " INT64_FORMAT " LIMIT 1",
					literal.data, from_item(sides->front, "s"),
					low != NULL ? psprintf("(%s) > (%s)", keys, low) : "true", keys, rows);
}

/* See compare.h. */
int64
compare_rows_after(Sides *sides, const char *low)
{
	return sql_int64("SELECT pg_catalog.count(*) FROM %s WHERE %s", from_item(sides->front, "s"),
					 low != NULL
						 ? psprintf("(%s) > (%s)", key_list(sides, sides->front_keys, "s"), low)
						 : "true");
}

/* "f.k1 = b.k1 AND f.k2 = b.k2", and the lists that name them */
static char *
join_condition(Sides *sides)
{
	StringInfoData on;

	initStringInfo(&on);
	for (int i = 0; i < sides->nkeys; i++)
		appendStringInfo(&on, "%sf.k%d = b.k%d", i > 0 ? " AND " : "", i, i);
	return on.data;
}

/* ", s.a AS k0, s.b AS k1" */
static char *
key_items(Sides *sides, char **keys, const char *alias)
{
	StringInfoData items;

	initStringInfo(&items);
	for (int i = 0; i < sides->nkeys; i++)
		appendStringInfo(&items, ", %s.%s AS k%d", alias, keys[i], i);
	return items.data;
}

/* Columns of a table but for those, in order; or only those. */
static char *
table_columns(Oid relid, const char *alias, const Bitmapset *those, bool only)
{
	Relation rel = table_open(relid, NoLock);
	TupleDesc desc = RelationGetDescr(rel);
	AttrNumber *attnums = palloc(desc->natts * sizeof(AttrNumber));
	int natts = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && bms_is_member(i + 1, those) == only)
			attnums[natts++] = i + 1;
	}
	table_close(rel, NoLock);
	return sql_columns(relid, natts, attnums, alias);
}

/*
 * What of the select list is a derived key's: the list of all attributes of the
 * back side without the others.
 */
static char *
derived_list(Migration *m, Sides *sides, Direction direction)
{
	Bitmapset *derived =
		direction == DIRECTION_FORWARD ? sides->target_derived : sides->source_derived;
	Bitmapset *others = bms_add_range(NULL, 1, MaxHeapAttributeNumber);

	return columns_select_list_without(m, direction, false, bms_del_members(others, derived));
}

/* What more the two subqueries of a comparison shall select: ", x AS y"; see joined_sides(). */
typedef struct MoreItems
{
	const char *front;
	const char *back;
} MoreItems;

/*
 * One side's subquery: "(SELECT ROW(..) AS r, ROW(..) AS d, .. FROM .. WHERE ..)".  OFFSET 0: in a
 * full join its columns would be computed before rows are left out, and a failed row's may fail.
 */
static char *
side_query(Sides *sides, bool is_source, bool is_front, const char *row, const char *derived,
		   const char *more, const char *where)
{
	const char *alias = is_source || is_front ? "s" : "t";
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "(SELECT ROW(%s) AS r, ROW(%s) AS d", row, derived);
	if (is_source)
		appendStringInfo(&sql, ", %s AS own, (%s) AS none", sides->own_key, sides->no_key);
	appendStringInfo(&sql, "%s%s FROM %s%s WHERE %s%s)",
					 key_items(sides, is_front ? sides->front_keys : sides->back_keys, alias), more,
					 from_item(is_front ? sides->front : sides->back, alias),
					 is_source ? sides->joins : "", where,
					 sides->excluded != NULL ? " OFFSET 0" : "");
	return sql.data;
}

/* Where the two sides' rows of a range are, in statements of one direction. */
typedef struct RangeText
{
	bool forward;
	const char *source; /* alias of the source's side in the join, f or b */
	const char *target;
	const char *none; /* "AND NOT f.none" where rows without key are left out */
	char *front_where;
	char *back_where;
	const Bitmapset *derived;
} RangeText;

static RangeText
range_text(Migration *m, Sides *sides, const char *low, const char *high)
{
	RangeText text = {.forward = sides->front == m->source};

	text.source = text.forward ? "f" : "b";
	text.target = text.forward ? "b" : "f";
	text.none = sides->skip ? psprintf(" AND NOT %s.none", text.source) : "";
	text.front_where = range_condition(sides, sides->front_keys, "s", low, high);
	text.back_where = range_condition(sides, sides->back_keys, text.forward ? "t" : "s", low, high);
	text.derived = text.forward ? sides->target_derived : sides->source_derived;
	return text;
}

/*
 * Both sides of a range, joined:
 *
 *		FROM (SELECT ROW(s.a, s.b::pg_catalog.int8) AS r, ROW(COALESCE(s.c, d3_0.v)) AS d,
 *					 s.c IS NOT NULL AS own, false AS none, s.a AS k0
 *				FROM ONLY public.t s LEFT JOIN LATERAL ... WHERE ...) f
 *		FULL JOIN (SELECT ROW(t.a, t.b) AS r, ROW(t.c) AS d, t.a AS k0
 *					 FROM public.t_new t WHERE ...) b
 *		  ON f.k0 = b.k0
 *
 * The key's columns are NOT NULL, so one that is NULL means that the join found
 * nothing.  "d" has the derived keys, "own" tells that the source's row has them
 * itself, "none" that it has no key and is left out.
 */
static char *
joined_sides(Migration *m, Sides *sides, const RangeText *text, const MoreItems *more)
{
	Direction direction = text->forward ? DIRECTION_FORWARD : DIRECTION_REVERSE;
	const char *back_alias = text->forward ? "t" : "s";
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, " FROM %s f",
					 side_query(sides, text->forward, true,
								columns_select_list_without(m, direction, false, text->derived),
								derived_list(m, sides, direction), more->front, text->front_where));
	appendStringInfo(&sql, " FULL JOIN %s b ON %s",
					 side_query(sides, !text->forward, false,
								table_columns(sides->back, back_alias, text->derived, false),
								table_columns(sides->back, back_alias, text->derived, true),
								more->back, text->back_where),
					 join_condition(sides));
	return sql.data;
}

/* See compare.h. */
char *
compare_counts(Migration *m, Sides *sides, const char *low, const char *high)
{
	RangeText text = range_text(m, sides, low, high);
	MoreItems more = {"", ""};
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(
		&sql,
		"SELECT count(f.k0), count(*) FILTER (WHERE b.k0 IS NULL%s),"
		" count(*) FILTER (WHERE f.k0 IS NULL%s),"
		" count(*) FILTER (WHERE f.r *<> b.r%s),"
		" count(%s.k0), (SELECT count(*) FROM %s WHERE %s),",
		text.forward ? text.none : "", text.forward ? "" : text.none,
		text.derived != NULL ? psprintf(" OR %s.own AND f.d *<> b.d", text.source) : "",
		text.source, from_item(m->source, "s"), text.forward ? text.front_where : text.back_where);
	appendStringInfo(
		&sql, " count(*) FILTER (WHERE %s), count(*) FILTER (WHERE %s)",
		sides->skip ? psprintf("%s.k0 IS NULL AND %s.none", text.target, text.source) : "false",
		text.derived != NULL && text.forward ? "NOT f.own AND f.r *= b.r AND f.d *<> b.d"
											 : "false");
	appendStringInfoString(&sql, joined_sides(m, sides, &text, &more));
	return sql.data;
}

/* See compare.h. */
char *
compare_front_rows(Migration *m, Sides *sides, const char *low, const char *high)
{
	return psprintf("SELECT %s FROM %s%s WHERE %s", columns_select_list(m, direction_of(m), false),
					from_item(sides->front, "s"), sides->joins,
					range_condition(sides, sides->front_keys, "s", low, high));
}

/* ------------------------------------------------------------------------
 * Rows that differ
 * ------------------------------------------------------------------------
 */

/*
 * The attribute of the target that a column of the source becomes as it is, or
 * that is derived where that column is NULL; 0 if there is none.
 */
static AttrNumber
target_attribute(const ColumnMap *map, AttrNumber source)
{
	for (int i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL ? map->derived[i]->source == source
									: map->from_attnum[i] == source)
			return i + 1;
	}
	return 0;
}

/*
 * Is the partition key, on any level, computed by an expression of
 * options.columns?  Then the columns that it is made of don't tell where a row
 * stands that was put there by somebody else.
 */
static bool
key_is_computed(Migration *m)
{
	char *columns = json_field(m->options, "columns");

	return columns != NULL &&
		   sql_int64("SELECT EXISTS (SELECT FROM pg_catalog.pg_partition_tree(%u) t"
					 " JOIN pg_catalog.pg_partitioned_table k ON k.partrelid = t.relid"
					 " CROSS JOIN LATERAL pg_catalog.unnest(k.partattrs::pg_catalog.int2[]) u (n)"
					 " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = k.partrelid"
					 " AND a.attnum = u.n"
					 " WHERE u.n = 0 OR %s::pg_catalog.jsonb ? a.attname)::pg_catalog.int4",
					 m->target, quote_literal_cstr(columns)) != 0;
}

/*
 * The hint of an entry: the values that tell the leaf, of the target's row where
 * there is one, for that is the row which nobody else would find.  Where they
 * aren't known all of them are NULL, and all leaves are searched.
 */
static void
append_hints(Migration *m, const RangeText *text, const LogColumns *columns, StringInfo items,
			 StringInfo source_items, StringInfo target_items)
{
	ColumnMap *map = columns_build(m, DIRECTION_FORWARD);
	bool known = !key_is_computed(m);

	for (int i = columns->nidentity; i < columns->natts; i++)
		known = known && target_attribute(map, columns->attnums[i]) != 0;
	for (int i = columns->nidentity; i < columns->natts; i++)
	{
		AttrNumber source = columns->attnums[i];
		AttrNumber target = known ? target_attribute(map, source) : 0;
		char *type = format_type_extended(get_atttype(m->source, source), -1,
										  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
		Bitmapset *others = bms_add_range(NULL, 1, MaxHeapAttributeNumber);

		if (!known)
		{
			appendStringInfo(items, ", NULL::%s", type);
			continue;
		}
		appendStringInfo(items, ", CASE WHEN %s.k0 IS NULL THEN %s.h%d ELSE %s.h%d END::%s",
						 text->target, text->source, i, text->target, i, type);
		appendStringInfo(target_items, ", %s.%s AS h%d", text->forward ? "t" : "s",
						 quote_identifier(get_attname(m->target, target, false)), i);
		if (text->forward)
			appendStringInfo(source_items, ", %s AS h%d",
							 columns_select_list_without(m, DIRECTION_FORWARD, false,
														 bms_del_member(others, target)),
							 i);
		else
			appendStringInfo(source_items, ", s.%s AS h%d",
							 quote_identifier(get_attname(m->source, source, false)), i);
	}
}

/* The condition of a joined pair of rows that differ, a stale key included. */
static char *
differs(const RangeText *text)
{
	return psprintf("b.k0 IS NULL%s OR f.k0 IS NULL%s OR f.r *<> b.r%s",
					text->forward ? text->none : "", text->forward ? "" : text->none,
					text->derived == NULL ? ""
					: text->forward		  ? " OR f.d *<> b.d"
										  : " OR b.own AND f.d *<> b.d");
}

/* See compare.h. */
char *
compare_entries(Migration *m, Sides *sides, const LogColumns *columns, const char *low,
				const char *high)
{
	RangeText text = range_text(m, sides, low, high);
	StringInfoData items;
	StringInfoData source_items;
	StringInfoData target_items;
	MoreItems more;

	initStringInfo(&items);
	initStringInfo(&source_items);
	initStringInfo(&target_items);
	for (int i = 0; i < columns->nidentity; i++)
		appendStringInfo(
			&items, "%sCOALESCE(%s.k%d, %s.k%d)::%s", i > 0 ? ", " : "", text.target, i,
			text.source, i,
			format_type_extended(get_atttype(m->source, columns->attnums[i]), -1,
								 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	append_hints(m, &text, columns, &items, &source_items, &target_items);
	more.front = text.forward ? source_items.data : target_items.data;
	more.back = text.forward ? target_items.data : source_items.data;
	return psprintf("SELECT %s%s WHERE %s", items.data, joined_sides(m, sides, &text, &more),
					differs(&text));
}

/* jsonb_build_object('a', COALESCE(f.k0, b.k0), ...) */
static char *
identity_object(Migration *m, Sides *sides)
{
	Identity *identity = relinfo_identity(m->source, false);
	StringInfoData object;

	initStringInfo(&object);
	for (int i = 0; i < sides->nkeys; i++)
		appendStringInfo(&object, "%s%s, COALESCE(f.k%d, b.k%d)", i > 0 ? ", " : "",
						 quote_literal_cstr(get_attname(m->source, identity->attnums[i], false)), i,
						 i);
	return psprintf("pg_catalog.jsonb_build_object(%s)", object.data);
}

/*
 * The back side's columns one by one, as "v1", "v2", ... of both sides, and the
 * array of the names of those that differ.  A derived key that the source's row
 * lacks is compared with what it comes to (forward), or not at all (backward).
 */
static char *
column_items(Migration *m, Sides *sides, const RangeText *text, StringInfo front, StringInfo back)
{
	Direction direction = text->forward ? DIRECTION_FORWARD : DIRECTION_REVERSE;
	Relation rel = table_open(sides->back, NoLock);
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), i);
		Bitmapset *others = bms_add_range(NULL, 1, MaxHeapAttributeNumber);

		if (att->attisdropped)
			continue;
		appendStringInfo(
			front, ", ROW(%s) AS v%d",
			columns_select_list_without(m, direction, false, bms_del_member(others, i + 1)), i);
		appendStringInfo(back, ", ROW(%s.%s) AS v%d", text->forward ? "t" : "s",
						 quote_identifier(NameStr(att->attname)), i);
		appendStringInfo(&names, "%sCASE WHEN %sf.v%d *<> b.v%d THEN %s END",
						 names.len > 0 ? ", " : "",
						 !text->forward && bms_is_member(i + 1, text->derived) ? "b.own AND " : "",
						 i, i, quote_literal_cstr(NameStr(att->attname)));
	}
	table_close(rel, NoLock);
	return psprintf("pg_catalog.array_remove(ARRAY[%s]::pg_catalog.text[], NULL)", names.data);
}

/* See compare.h. */
char *
compare_differences(Migration *m, Sides *sides, const char *low, const char *high)
{
	RangeText text = range_text(m, sides, low, high);
	StringInfoData front;
	StringInfoData back;
	StringInfoData keys;
	MoreItems more;
	char *columns;

	initStringInfo(&front);
	initStringInfo(&back);
	initStringInfo(&keys);
	appendStringInfoString(&front, ", pg_catalog.to_jsonb(s) AS j");
	appendStringInfo(&back, ", pg_catalog.to_jsonb(%s) AS j", text.forward ? "t" : "s");
	columns = column_items(m, sides, &text, &front, &back);
	more.front = front.data;
	more.back = back.data;
	for (int i = 0; i < sides->nkeys; i++)
		appendStringInfo(&keys, "%sCOALESCE(f.k%d, b.k%d)", i > 0 ? ", " : "", i, i);
	return psprintf(
		"SELECT %s, CASE WHEN b.k0 IS NULL THEN 'missing' WHEN f.k0 IS NULL THEN 'extra'"
		" WHEN %s THEN 'stale_key' ELSE 'different' END,"
		" CASE WHEN b.k0 IS NOT NULL AND f.k0 IS NOT NULL THEN %s END, %s.j, %s.j%s"
		" WHERE %s ORDER BY %s",
		identity_object(m, sides),
		text.derived != NULL && text.forward ? "NOT f.own AND f.r *= b.r" : "false", columns,
		text.source, text.target, joined_sides(m, sides, &text, &more), differs(&text), keys.data);
}

/* ------------------------------------------------------------------------
 * Ranges
 * ------------------------------------------------------------------------
 */

/*
 * For this transaction: a range is a small part of the table, which the planner
 * can't know where there are no statistics yet, or of two columns; and compiling
 * the statement for each range would take longer than it saves.
 */
void
compare_set_planner(void)
{
	pin_setting("enable_seqscan", "off");
	forbid_compiling();
}

int64
compare_next_size(int64 rows, int target_ms, double took_ms)
{
	double wanted;

	if (rows == 0)
		return FIRST_RANGE_ROWS;
	wanted = rows * (double) target_ms / Max(took_ms, 1.0);
	wanted = Min(wanted, rows * MAX_RANGE_GROWTH);
	return (int64) Min(Max(wanted, MIN_RANGE_ROWS), MAX_RANGE_ROWS);
}
