/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  Compares all rows of the two tables.
 *
 * Rows are compared in ranges of the identity, (lo, hi], in its order.  A range
 * is a transaction of its own, and one statement: so both sides are read in one
 * snapshot, and since each writer's transaction writes both of them, they must
 * be equal in it, however busy the table is.  No snapshot lives longer than a
 * range takes.  The first range has no lower bound and the last one no upper:
 * together they hold every row of either side, wherever it came from.
 *
 * The front side is the one the application writes: its rows are mapped to the
 * other's format, and should be found there.  Missing and extra are said of the
 * back side.  Rows count as equal where their images are, byte for byte: 1.0
 * and 1.00 are different.  A row of the source that is found twice in the target
 * counts as one too many of the target.  Rows in failed_rows are known to
 * differ, and counted apart.
 *
 * The result counts for a swap only if nothing but the writers has touched the
 * tables meanwhile: see still_same().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "columns.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "portability/instr_time.h"
#include "relinfo.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "stages.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * Rows in a range: the first one, then fitted to batch_target_ms, so that a
 * pause takes effect and no snapshot grows old.  Fewer than the least aren't
 * worth the statement's planning; more than the most don't fit a hash table of
 * the default work_mem any better.
 */
#define FIRST_RANGE_ROWS 20000
#define MIN_RANGE_ROWS 1000
#define MAX_RANGE_ROWS 1000000
#define MAX_RANGE_GROWTH 4.0

/* How often a paused verification looks whether it may go on. */
#define PAUSED_POLL_MS 500

/* Columns of the comparison's result. */
enum
{
	COUNT_FRONT,
	COUNT_MISSING,
	COUNT_EXTRA,
	COUNT_DIFFERENT,
	COUNT_JOINED_SOURCE,
	COUNT_SOURCE,
	COUNT_SKIPPED,
	COUNT_STALE,
	NUM_COUNTS
};

/* A verification on its way. */
typedef struct Verification
{
	/* as it was at the beginning */
	MigrationState state;
	int32 epoch;
	FullTransactionId stable_xid;
	TransactionId trigger_xmin;
	bool needs_mending;
	int64 mark;

	/* where it is */
	char *low; /* SQL text of the bound, NULL before the first range */
	bool last; /* the last range has been compared */
	int64 range_rows;
	MemoryContext context; /* reset after every range */

	VerifyCounts *counts;
} Verification;

/* Names and pieces of SQL for one direction, made anew for every range. */
typedef struct Sides
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
} Sides;

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
	sides->joins = sides->front == m->source || (sides->skip && today) ? columns_joins(m) : "";
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
static Sides *
sides_of(Migration *m)
{
	Direction direction = m->state == STATE_SWAPPED ? DIRECTION_REVERSE : DIRECTION_FORWARD;
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
static char *
next_bound(Sides *sides, const char *low, int64 rows)
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

/* One side's subquery: "(SELECT ROW(..) AS r, ROW(..) AS d, .. FROM .. WHERE ..)" */
static char *
side_query(Sides *sides, bool is_source, bool is_front, const char *row, const char *derived,
		   char **keys, const char *where)
{
	const char *alias = is_source || is_front ? "s" : "t";
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "(SELECT ROW(%s) AS r, ROW(%s) AS d", row, derived);
	if (is_source)
		appendStringInfo(&sql, ", %s AS own, (%s) AS none", sides->own_key, sides->no_key);
	appendStringInfo(&sql, "%s FROM %s%s WHERE %s)", key_items(sides, keys, alias),
					 from_item(is_front ? sides->front : sides->back, alias),
					 is_source ? sides->joins : "", where);
	return sql.data;
}

/*
 * The comparison:
 *
 *		SELECT count(f.k0), ..., (SELECT count(*) FROM ONLY public.t s WHERE ...)
 *		  FROM (SELECT ROW(s.a, s.b::pg_catalog.int8) AS r, ROW(COALESCE(s.c, d3_0.v)) AS d,
 *					   s.c IS NOT NULL AS own, false AS none, s.a AS k0
 *				  FROM ONLY public.t s LEFT JOIN LATERAL ... WHERE ...) f
 *		  FULL JOIN (SELECT ROW(t.a, t.b) AS r, ROW(t.c) AS d, t.a AS k0
 *					   FROM public.t_new t WHERE ...) b
 *			ON f.k0 = b.k0
 *
 * The key's columns are NOT NULL, so one that is NULL means that the join found
 * nothing.  "d" has the derived keys, "own" tells that the source's row has them
 * itself, "none" that it has no key and is left out.
 */
static char *
comparison(Migration *m, Sides *sides, const char *low, const char *high)
{
	bool forward = sides->front == m->source;
	Direction direction = forward ? DIRECTION_FORWARD : DIRECTION_REVERSE;
	const Bitmapset *derived = forward ? sides->target_derived : sides->source_derived;
	const char *source = forward ? "f" : "b";
	const char *back_alias = forward ? "t" : "s";
	char *front_where = range_condition(sides, sides->front_keys, "s", low, high);
	char *back_where = range_condition(sides, sides->back_keys, back_alias, low, high);
	const char *none = sides->skip ? psprintf(" AND NOT %s.none", source) : "";
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "SELECT count(f.k0), count(*) FILTER (WHERE b.k0 IS NULL%s),"
					 " count(*) FILTER (WHERE f.k0 IS NULL%s),"
					 " count(*) FILTER (WHERE f.r *<> b.r%s),"
					 " count(%s.k0), (SELECT count(*) FROM %s WHERE %s),",
					 forward ? none : "", forward ? "" : none,
					 derived != NULL ? psprintf(" OR %s.own AND f.d *<> b.d", source) : "", source,
					 from_item(m->source, "s"), forward ? front_where : back_where);
	appendStringInfo(
		&sql, " count(*) FILTER (WHERE %s), count(*) FILTER (WHERE %s)",
		sides->skip ? psprintf("%s.k0 IS NULL AND %s.none", forward ? "b" : "f", source) : "false",
		derived != NULL && forward ? "NOT f.own AND f.r *= b.r AND f.d *<> b.d" : "false");
	appendStringInfo(&sql, " FROM %s f",
					 side_query(sides, forward, true,
								columns_select_list_without(m, direction, false, derived),
								derived_list(m, sides, direction), sides->front_keys, front_where));
	appendStringInfo(&sql, " FULL JOIN %s b ON %s",
					 side_query(sides, !forward, false,
								table_columns(sides->back, back_alias, derived, false),
								table_columns(sides->back, back_alias, derived, true),
								sides->back_keys, back_where),
					 join_condition(sides));
	return sql.data;
}

/* Run it, as the owner. */
static void
compare(const char *sql, int64 *values)
{
	int code;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	code = SPI_execute(sql, true, 0);
	if (code != SPI_OK_SELECT || SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not compare: %s", SPI_result_code_string(code)),
						errdetail("The statement is: %s", sql)));
	for (int i = 0; i < NUM_COUNTS; i++)
	{
		bool isnull;

		values[i] = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull));
	}
	PopActiveSnapshot();
	SPI_finish();
}

/* Add a range's result up. */
static void
add_counts(VerifyCounts *counts, const int64 *values, bool forward)
{
	/* the source's key is unique: joined twice, the target has the row twice */
	int64 twice = values[COUNT_JOINED_SOURCE] - values[COUNT_SOURCE];

	counts->checked += values[COUNT_FRONT] - (forward ? twice : 0);
	counts->missing += values[COUNT_MISSING] + (forward ? 0 : twice);
	counts->extra += values[COUNT_EXTRA] + (forward ? twice : 0);
	counts->different += Max(values[COUNT_DIFFERENT] - twice, 0);
	counts->skipped += values[COUNT_SKIPPED];
	counts->stale_key += values[COUNT_STALE];
}

/*
 * Has anything but the writers touched the tables since the verification
 * began?  A swap, a new copy, a drain while live, a mended trigger.
 */
static bool
still_same(Verification *v, Migration *m)
{
	return m != NULL && m->state == v->state && m->epoch == v->epoch &&
		   FullTransactionIdEquals(m->stable_xid, v->stable_xid) &&
		   m->trigger_xmin == v->trigger_xmin && !m->needs_mending && !v->needs_mending &&
		   guard_mark(m) == v->mark;
}

static void
remember(Verification *v, Migration *m)
{
	v->state = m->state;
	v->epoch = m->epoch;
	v->stable_xid = m->stable_xid;
	v->trigger_xmin = m->trigger_xmin;
	v->needs_mending = m->needs_mending;
	v->mark = guard_mark(m);
}

/* 55000 if this isn't, or is no longer, what the caller asked to verify. */
static void
check_state(Run *run, Verification *v)
{
	Migration *m = run->m;

	if (m == NULL || (m->state != STATE_LIVE && m->state != STATE_SWAPPED) ||
		(v->low != NULL && m->state != v->state))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("can't compare the tables of migration \"%s\"", m ? m->name : "(gone)"),
				 errdetail("Its state is %s.", m ? state_name(m->state) : "(gone)"),
				 errhint("Tables are compared while the state is live or swapped.")));
}

/*
 * Fit the range's size to the time it took.
 */
static void
learn_pace(Verification *v, int target_ms, instr_time took)
{
	double wanted = v->range_rows * (double) target_ms / Max(INSTR_TIME_GET_MILLISEC(took), 1.0);

	wanted = Min(wanted, v->range_rows * MAX_RANGE_GROWTH);
	v->range_rows = (int64) Min(Max(wanted, MIN_RANGE_ROWS), MAX_RANGE_ROWS);
}

/*
 * For this transaction: a range is a small part of the table, which the planner
 * can't know where there are no statistics yet, or of two columns; and compiling
 * the statement for each range would take longer than it saves.
 */
static void
set_for_range(void)
{
	(void) set_config_option("enable_seqscan", "off", PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	(void) set_config_option("jit", "off", PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

/*
 * Compare the next range, in the current transaction.  Locks both tables
 * AccessShareLock, source first.  Errors as guard_check().
 */
static void
verify_range(Run *run, Verification *v)
{
	Migration *m = run->m;
	Sides *sides;
	char *high;
	int64 values[NUM_COUNTS];
	instr_time start;
	instr_time took;

	LockRelationOid(m->source, AccessShareLock);
	LockRelationOid(m->target, AccessShareLock);
	guard_check(m);
	INSTR_TIME_SET_CURRENT(start);
	sides = sides_of(m);

	set_for_range();
	run_as_owner(run);
	high = next_bound(sides, v->low, v->range_rows - 1);
	compare(comparison(m, sides, v->low, high), values);
	run_as_self(run);

	add_counts(v->counts, values, sides->front == m->source);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	learn_pace(v, settings_get_int(m, "batch_target_ms"), took);
	if (v->low != NULL)
		pfree(v->low);
	v->low = high != NULL ? MemoryContextStrdup(run->scratch, high) : NULL;
	v->last = high == NULL;
}

/* ------------------------------------------------------------------------
 * All of it
 * ------------------------------------------------------------------------
 */

/* One transaction: a range, or nothing while the migration is paused. */
static void
step(Run *run, Verification *v)
{
	MemoryContext old_context;
	bool paused;

	run_begin(run);
	check_state(run, v);
	if (v->low == NULL)
		remember(v, run->m);
	paused = run->m->paused;
	if (!paused)
	{
		run_report(run, "verifying: " INT64_FORMAT " rows compared", v->counts->checked);
		old_context = MemoryContextSwitchTo(v->context);
		verify_range(run, v);
		MemoryContextSwitchTo(old_context);
	}
	run_commit(run);
	MemoryContextReset(v->context);
	if (paused)
		run_sleep(run, PAUSED_POLL_MS);
}

/* Write the result down. */
static void
record(Run *run, Verification *v, bool complete)
{
	VerifyCounts *counts = v->counts;
	bool clean = counts->missing == 0 && counts->extra == 0 && counts->different == 0 &&
				 counts->stale_key == 0;
	bool holds;

	run_begin(run);
	if (run->m != NULL)
	{
		holds = clean && complete && still_same(v, run->m);
		counts->failed = failed_row_count(run->m->id);
		verification_add(run->m->id, counts, complete, holds ? &v->mark : NULL);
		if (!clean)
			catalog_save_verified(run->m, false); /* whatever an earlier one found */
		else if (holds)
			catalog_save_verified(run->m, true);
		event_add(run->m, "verified",
				  psprintf("{\"complete\": %s, \"checked\": " INT64_FORMAT
						   ", \"missing\": " INT64_FORMAT ", \"extra\": " INT64_FORMAT
						   ", \"different\": " INT64_FORMAT ", \"failed\": " INT64_FORMAT "}",
						   complete ? "true" : "false", counts->checked, counts->missing,
						   counts->extra, counts->different, counts->failed),
				  INT64_FORMAT " rows compared%s: " INT64_FORMAT " missing, " INT64_FORMAT
							   " extra, " INT64_FORMAT " different%s",
				  counts->checked, complete ? "" : " before time was up", counts->missing,
				  counts->extra, counts->different,
				  counts->stale_key == 0 && counts->skipped == 0
					  ? ""
					  : psprintf(", " INT64_FORMAT
								 " with a key derived from what has changed since, " INT64_FORMAT
								 " left out",
								 counts->stale_key, counts->skipped));
	}
	run_commit(run);
}

/*
 * Compare everything, outside of a transaction; *counts is filled in and
 * recorded.  False if the deadline (0: none) passed before the end.  Errors:
 * 55000 in a state in which the tables aren't kept equal, those of guard_check().
 */
bool
verify_all(Run *run, TimestampTz deadline, struct VerifyCounts *counts)
{
	Verification v = {0};

	memset(counts, 0, sizeof(VerifyCounts));
	v.counts = counts;
	v.range_rows = FIRST_RANGE_ROWS;
	v.context = AllocSetContextCreate(run->scratch, "migrate_ext verify", ALLOCSET_DEFAULT_SIZES);

	while (!v.last && (deadline == 0 || GetCurrentTimestamp() < deadline))
	{
		step(run, &v);
		CHECK_FOR_INTERRUPTS();
	}
	record(run, &v, v.last);
	MemoryContextDelete(v.context);
	return v.last;
}

/* See stages.h. */
bool
verify_holds(Migration *m)
{
	return m->verified_at != 0 && verification_has_mark(m->id, guard_mark(m));
}
