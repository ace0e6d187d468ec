/*-------------------------------------------------------------------------
 *
 * preflight_key.c
 *	  What preflight() finds by looking at rows and at expressions.
 *
 * What it costs is bounded, however large the table:
 *
 * - The rows written last are looked for in the last 256 blocks (2 MB) and among
 *   the 1,000 with the greatest identity; the 1,000 youngest of them count, by the
 *   transaction that wrote them.  Others that took up freed room are missed.
 * - How many rows have no key, or get none, is told by a sample of 32 blocks.
 * - Greatest values are read from the end of a B-tree that begins with the
 *   column; where there is none they aren't looked for.
 * - No statement runs whose plan costs more than COST_MAX (a value may read a
 *   table without an index that fits): that is told instead.
 *
 * All as the owner, since a value is his expression, and in a subtransaction: a
 * value that can't be evaluated any more, or fails for a row of the sample, is a
 * finding and not the end of the call.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "catalog_look.h"
#include "catalog_spi.h"
#include "columns.h"
#include "derive.h"
#include "executor/spi.h"
#include "expression.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "preflight_key.h"
#include "relinfo.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#define RECENT_BLOCKS 256
#define RECENT_ROWS 1000
#define SAMPLE_BLOCKS 32

/* In the planner's units: about a second's work of one process. */
#define COST_MAX 100000.0

/* As many of its statements as are searched. */
#define STATEMENTS_MAX "1000"

/* One look, while it is under way. */
typedef struct Look
{
	Migration *m;
	KeyLook *found;
	MemoryContext memory; /* of *found */
	ColumnMap *map;
	Bitmapset *key; /* the root's key columns, of the target */
	Relation source;
	Relation target;
} Look;

/* ------------------------------------------------------------------------
 * Helpers
 * ------------------------------------------------------------------------
 */

bool
preflight_begin_looking(Migration *m, UserSwitch *user)
{
	if (!ConditionalLockRelationOid(m->source, AccessShareLock))
	{
		catalog_look_missed();
		return false;
	}
	if (ConditionalLockRelationOid(m->target, AccessShareLock))
	{
		if (get_rel_name(m->source) != NULL && get_rel_name(m->target) != NULL)
		{
			user_switch_owner(user, m->owner);
			return true;
		}
		UnlockRelationOid(m->target, AccessShareLock);
	}
	UnlockRelationOid(m->source, AccessShareLock);
	catalog_look_missed();
	return false;
}

void
preflight_end_looking(Migration *m, UserSwitch *user)
{
	user_switch_back(user);
	UnlockRelationOid(m->target, AccessShareLock);
	UnlockRelationOid(m->source, AccessShareLock);
}

/* Everything is copied: what it is made of may be gone with the subtransaction. */
static void
tell(KeyLook *found, MemoryContext memory, const char *severity, const char *object,
	 const char *problem, const char *remedy)
{
	MemoryContext old_context = MemoryContextSwitchTo(memory);
	char **row = palloc(PREFLIGHT_COLUMNS * sizeof(char *));

	row[0] = pstrdup(severity);
	row[1] = pstrdup(object);
	row[2] = pstrdup(problem);
	row[3] = pstrdup(remedy);
	found->rows = lappend(found->rows, row);
	MemoryContextSwitchTo(old_context);
}

/* As the SQL of preflight() has it, which runs with our empty search_path, too. */
static char *
column_object(Relation rel, const char *column)
{
	return psprintf("column %s of %s", quote_identifier(column),
					sql_relation(RelationGetRelid(rel)));
}

/*
 * Run a query of one row of bigints, unless its plan is too expensive: then
 * false, and *cost tells.
 */
static bool
run_bounded(const char *sql, int n, int64 *values, bool *isnull, double *cost)
{
	SPIPlanPtr plan;
	CachedPlan *cached;
	bool cheap;
	int i;

	SPI_connect();
	plan = SPI_prepare(sql, 0, NULL);
	cached = plan ? SPI_plan_get_cached_plan(plan) : NULL;
	if (cached == NULL)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not plan a statement of migrate_ext: %s",
							   SPI_result_code_string(SPI_result)),
						errdetail_internal("%s", sql)));
	*cost = linitial_node(PlannedStmt, cached->stmt_list)->planTree->total_cost;
	ReleaseCachedPlan(cached, NULL); /* a plan that isn't kept has no owner */
	cheap = *cost <= COST_MAX;
	if (cheap &&
		(SPI_execute_plan(plan, NULL, NULL, true, 0) != SPI_OK_SELECT || SPI_processed != 1))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not execute a statement of migrate_ext"),
						errdetail_internal("%s", sql)));
	for (i = 0; cheap && i < n; i++)
		values[i] = DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull[i]));
	SPI_finish();
	return cheap;
}

/* The source's column that column i of the target is, or is derived for; or 0. */
static AttrNumber
source_column(Look *look, int i)
{
	if (look->map->derived[i] != NULL)
		return look->map->derived[i]->source;
	return look->map->expr[i] == NULL ? look->map->from_attnum[i] : 0;
}

static char *
target_column(Look *look, int i)
{
	return NameStr(TupleDescAttr(RelationGetDescr(look->target), i)->attname);
}

static bool
is_never_null(Look *look, int i)
{
	AttrNumber attnum = source_column(look, i);

	return attnum > 0 && TupleDescAttr(RelationGetDescr(look->source), attnum - 1)->attnotnull;
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/*
 * How many transactions ago the key was added; -1 if it wasn't, or that is too
 * long ago to tell.
 */
static int32
age_of_key(Oid relation, AttrNumber attnum)
{
	Oid types[] = {OIDOID, INT2OID};
	Datum values[] = {ObjectIdGetDatum(relation), Int16GetDatum(attnum)};
	bool isnull;
	Datum age = catalog_scalar("SELECT pg_catalog.age(xmin) FROM migrate_ext.sharding_key"
							   " WHERE relation = $1 AND attnum = $2",
							   lengthof(types), types, values, &isnull);

	return isnull ? -1 : DatumGetInt32(age);
}

/*
 * The rows that may have been written last: those at the table's end, and those
 * with the greatest identity, which new ones have wherever they found room, if
 * it counts up.
 */
static char *
recent_rows(Look *look, AttrNumber attnum, BlockNumber first)
{
	Identity *identity = relinfo_identity(look->m->source, true);
	char *table = sql_relation(look->m->source);
	char *list = psprintf("SELECT s.ctid, s.%s IS NULL AS missing, pg_catalog.age(s.xmin) AS age"
						  " FROM ONLY %s s",
						  quote_identifier(get_attname(look->m->source, attnum, false)), table);
	StringInfoData sql;
	int i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s WHERE s.ctid >= '(%u,0)'::pg_catalog.tid", list, first);
	if (identity == NULL)
		return sql.data;
	appendStringInfo(&sql, " UNION (%s ORDER BY ", list);
	for (i = 0; i < identity->natts; i++)
		appendStringInfo(
			&sql, "%ss.%s DESC", i > 0 ? ", " : "",
			quote_identifier(get_attname(look->m->source, identity->attnums[i], false)));
	appendStringInfo(&sql, " LIMIT %d)", RECENT_ROWS);
	return sql.data;
}

/* Do the rows written last have their key? */
static void
look_at_recent(Look *look, int i)
{
	AttrNumber attnum = source_column(look, i);
	BlockNumber blocks = relinfo_blocks(look->m->source);
	BlockNumber first = blocks > RECENT_BLOCKS ? blocks - RECENT_BLOCKS : 0;
	int32 age = age_of_key(look->m->source, attnum);
	char *object = column_object(look->source, get_attname(look->m->source, attnum, false));
	char *what = psprintf("%s%s", age >= 0 ? "since it was added" : "last",
						  first > 0 ? ", as far as they were looked for" : "");
	int64 counts[2];
	bool isnull[2];
	double cost;
	char *sql = psprintf("SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE r.missing)"
						 " FROM (SELECT q.missing FROM (%s) q WHERE q.age >= 0%s"
						 " ORDER BY q.age LIMIT %d) r",
						 recent_rows(look, attnum, first),
						 age >= 0 ? psprintf(" AND q.age < %d", age) : "", RECENT_ROWS);

	if (!run_bounded(sql, lengthof(counts), counts, isnull, &cost))
		tell(look->found, look->memory, "info", object,
			 psprintf("was not looked at in the rows written last: the planner puts that at %.0f",
					  cost),
			 "nothing");
	else if (counts[1] > 0)
		tell(look->found, look->memory, "warning", object,
			 psprintf("is NULL in " INT64_FORMAT " of the " INT64_FORMAT " rows written %s",
					  counts[1], counts[0], what),
			 "find what writes them: after the swap an INSERT without the key fails");
	else if (counts[0] > 0)
		tell(look->found, look->memory, "info", object,
			 psprintf("is given in all of the " INT64_FORMAT " rows written %s", counts[0], what),
			 "nothing");
}

/* The select list of the key columns, and which of them may be NULL, as a condition. */
static char *
key_list(Look *look, char **condition)
{
	Bitmapset *without = NULL;
	StringInfoData buf;
	int i;

	initStringInfo(&buf);
	for (i = 0; i < look->map->natts; i++)
	{
		if (!bms_is_member(i + 1, look->key) || is_never_null(look, i))
			without = bms_add_member(without, i + 1);
		else
			appendStringInfo(&buf, "%sq.%s IS NULL", buf.len > 0 ? " OR " : "",
							 quote_identifier(target_column(look, i)));
	}
	*condition = buf.data;
	return buf.len > 0 ? columns_select_list_without(look->m, DIRECTION_FORWARD, true, without)
					   : NULL;
}

/* How many rows have no partition key, or get none? */
static void
look_at_sample(Look *look)
{
	BlockNumber blocks = relinfo_blocks(look->m->source);
	char *condition;
	char *list = key_list(look, &condition);
	bool skip = columns_skip_null_key(look->m);
	char *object = psprintf("key of %s", sql_relation(look->m->target));
	int64 counts[2];
	bool isnull[2];
	double cost;
	char *sql;

	if (list == NULL)
		return;
	sql = psprintf("SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE %s)"
				   " FROM (SELECT %s FROM ONLY %s s TABLESAMPLE SYSTEM (%.6f) REPEATABLE (1)%s) q",
				   condition, list, sql_relation(look->m->source),
				   blocks > SAMPLE_BLOCKS ? 100.0 * SAMPLE_BLOCKS / blocks : 100.0,
				   columns_joins(look->map));
	if (!run_bounded(sql, lengthof(counts), counts, isnull, &cost))
		tell(look->found, look->memory, "info", object,
			 psprintf("was not tried on a sample of rows: the planner puts that at %.0f", cost),
			 "look whether an index is missing for what the value reads: the trigger and the "
			 "drain need it, too");
	else if (counts[1] > 0)
		tell(look->found, look->memory, skip ? "info" : "warning", object,
			 psprintf("comes out NULL for " INT64_FORMAT " of " INT64_FORMAT " rows%s", counts[1],
					  counts[0], blocks > SAMPLE_BLOCKS ? " of a sample" : ""),
			 skip ? "as asked for by on_null_key they stay in the original only, and are counted "
					"in progress and verifications"
				  : "they stand in failed_rows and stop the swap: give them a key, or make the "
					"migration with {\"on_null_key\": \"skip\"}, which leaves them in the "
					"original only");
}

/* ------------------------------------------------------------------------
 * Values
 * ------------------------------------------------------------------------
 */

/* Names of the tables that a value reads, as a text; adds to *arg. */
static bool
tables_walker(Node *node, List **tables)
{
	ListCell *cell;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		foreach (cell, ((Query *) node)->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

			if (rte->rtekind == RTE_RELATION)
				*tables = list_append_unique_oid(*tables, rte->relid);
		}
		return query_tree_walker((Query *) node, tables_walker, tables, 0);
	}
	return expression_tree_walker(node, tables_walker, tables);
}

static int
integer_width(Oid type)
{
	switch (getBaseType(type))
	{
		case INT2OID:
			return 2;
		case INT4OID:
			return 4;
		case INT8OID:
			return 8;
		case NUMERICOID:
			return 16; /* wider than any */
		default:
			return 0;
	}
}

/* A value that is cast to an integer type that can't hold all of it. */
static void
look_at_width(Look *look, const char *column, Node *expr)
{
	FuncExpr *cast = (FuncExpr *) expr;
	Oid type;

	if (!IsA(expr, FuncExpr) || list_length(cast->args) == 0 ||
		(cast->funcformat != COERCE_EXPLICIT_CAST && cast->funcformat != COERCE_IMPLICIT_CAST))
		return;
	type = exprType(linitial(cast->args));
	if (integer_width(cast->funcresulttype) == 0 ||
		integer_width(type) <= integer_width(cast->funcresulttype))
		return;
	tell(look->found, look->memory, "warning", column_object(look->source, column),
		 psprintf("is %s, and its value %s: where that is out of range, an INSERT without the key "
				  "fails with 22003",
				  format_type_be(cast->funcresulttype), format_type_be(type)),
		 psprintf("make the column anew as %s, if its values may come that far",
				  format_type_be(type)));
}

/* What the value of a derived key depends on beside its row. */
static void
look_at_value(Look *look, int i)
{
	Form_pg_attribute att =
		TupleDescAttr(RelationGetDescr(look->source), look->map->derived[i]->source - 1);
	char *derived = json_field(look->m->options, "derived");
	char *value = derived ? json_field(json_parse(derived), target_column(look, i)) : NULL;
	Derivation *derivation;
	List *tables = NIL;
	StringInfoData names;
	ListCell *cell;

	if (value == NULL)
		return;
	derivation =
		derive_analyze(look->source, NameStr(att->attname), att->atttypid, att->atttypmod, value);
	look_at_width(look, NameStr(att->attname), derivation->expr);
	(void) tables_walker(derivation->expr, &tables);
	if (tables == NIL)
		return;
	initStringInfo(&names);
	foreach (cell, tables)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", sql_relation(lfirst_oid(cell)));
	tell(
		look->found, look->memory, "info", column_object(look->source, NameStr(att->attname)),
		psprintf("has a value that reads %s: a change there reaches the target when the row itself "
				 "is next written; until then verify counts it as stale_key, and finalize refuses",
				 names.data),
		"UPDATE rows whose parent has changed, as in UPDATE ... SET id = id");
	tell(look->found, look->memory, "info", column_object(look->source, NameStr(att->attname)),
		 psprintf("has a value that names %s and columns there: where one is renamed or dropped, "
				  "INSERTs without the key fail, and the migration stops",
				  names.data),
		 "change nothing that the value names until the migration is completed");
}

/* ------------------------------------------------------------------------
 * Greatest values
 * ------------------------------------------------------------------------
 */

/*
 * Has the column an index whose end is its greatest value?  B-tree, all rows,
 * the column first.
 */
static bool
has_ordered_index(Oid relation, AttrNumber attnum)
{
	return sql_int64("SELECT count(*) FROM pg_catalog.pg_index i"
					 " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
					 " JOIN pg_catalog.pg_am a ON a.oid = c.relam AND a.amname = 'btree'"
					 " WHERE i.indrelid = %u AND i.indisvalid AND i.indpred IS NULL"
					 " AND i.indkey[0] = %d",
					 relation, attnum) > 0;
}

/* Integers of which one side has less than eight bytes? */
static bool
may_outgrow(Oid source, Oid target)
{
	int width = Min(integer_width(source), integer_width(target));

	return width > 0 && width < (int) sizeof(int64);
}

static void
look_at_greatest(Look *look)
{
	TupleDesc desc = RelationGetDescr(look->source);
	StringInfoData json;
	int i;

	initStringInfo(&json);
	for (i = 0; i < look->map->natts; i++)
	{
		AttrNumber attnum = get_attnum(look->m->source, target_column(look, i));
		Form_pg_attribute to = TupleDescAttr(RelationGetDescr(look->target), i);
		int64 value;
		bool isnull;
		double cost;

		if (to->attisdropped || attnum <= 0)
			continue;
		if (!may_outgrow(TupleDescAttr(desc, attnum - 1)->atttypid, to->atttypid))
			continue;
		if (!has_ordered_index(look->m->source, attnum) ||
			!run_bounded(psprintf("SELECT pg_catalog.max(s.%s)::pg_catalog.int8 FROM ONLY %s s",
								  quote_identifier(NameStr(to->attname)),
								  sql_relation(look->m->source)),
						 1, &value, &isnull, &cost) ||
			isnull)
			continue;
		appendStringInfo(&json, "%s%s: " INT64_FORMAT, json.len > 0 ? ", " : "",
						 json_quote(NameStr(to->attname)), value);
	}
	look->found->greatest = MemoryContextStrdup(look->memory, psprintf("{%s}", json.data));
}

/* ------------------------------------------------------------------------
 * All of it
 * ------------------------------------------------------------------------
 */

static void
look_at_all(Look *look)
{
	Migration *m = look->m;
	UserSwitch user;
	int i;

	if (!preflight_begin_looking(m, &user))
	{
		if (get_rel_name(m->source) != NULL && get_rel_name(m->target) != NULL)
			tell(look->found, look->memory, "info", "rows",
				 "were not looked at: somebody holds a lock on the source or the target",
				 "call preflight again");
		return;
	}
	look->map = columns_build(m, DIRECTION_FORWARD);
	look->key = columns_of_root_key(m->target);
	look->source = table_open(m->source, NoLock);
	look->target = table_open(m->target, NoLock);
	for (i = 0; i < look->map->natts; i++)
	{
		if (look->map->derived[i] != NULL)
			look_at_value(look, i);
		if (bms_is_member(i + 1, look->key) && source_column(look, i) > 0 &&
			!is_never_null(look, i))
			look_at_recent(look, i);
	}
	look_at_greatest(look);
	look_at_sample(look);
	table_close(look->target, NoLock);
	table_close(look->source, NoLock);
	preflight_end_looking(m, &user);
}

/* What can't be evaluated now can't be at the swap either. */
static void
tell_failure(Look *look)
{
	ErrorData *error;

	MemoryContextSwitchTo(look->memory);
	error = CopyErrorData();
	FlushErrorState();
	tell(look->found, look->memory, "error",
		 psprintf("migration %s", quote_identifier(look->m->name)),
		 psprintf("can not make the target's rows: %s (%s)", error->message,
				  unpack_sql_state(error->sqlerrcode)),
		 "put back what the expressions of the migration need, or cancel it and make it anew");
	FreeErrorData(error);
}

KeyLook *
preflight_key_look(Migration *m)
{
	KeyLook *found = palloc0(sizeof(KeyLook));
	Look look = {m, found, CurrentMemoryContext};
	ResourceOwner owner = CurrentResourceOwner;

	found->greatest = "{}";
	if (m->state > STATE_LIVE || !OidIsValid(m->target))
		return found;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(look.memory);
	PG_TRY();
	{
		look_at_all(&look);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		/* a cancel is the caller's */
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(look.memory);
		RollbackAndReleaseCurrentSubTransaction();
		tell_failure(&look);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(look.memory);
	CurrentResourceOwner = owner;
	return found;
}

/* ------------------------------------------------------------------------
 * Statements
 * ------------------------------------------------------------------------
 */

/*
 * The view, or NULL.  Where its library wasn't loaded at the server's start,
 * reading it is an error.
 */
static char *
statements_view(void)
{
	CatalogCall call = {.read_only = true};
	char *view = NULL;
	bool isnull;

	if (strstr(shared_preload_libraries_string, "pg_stat_statements") == NULL)
		return NULL;
	if (catalog_begin(&call,
					  "SELECT pg_catalog.format('%I.pg_stat_statements', n.nspname)"
					  " FROM pg_catalog.pg_extension e"
					  " JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
					  " WHERE e.extname = 'pg_stat_statements'",
					  0, NULL, NULL, NULL) > 0)
	{
		Datum name = catalog_value(&call, 0, 1, &isnull);

		view = MemoryContextStrdup(call.outer, TextDatumGetCString(name));
	}
	catalog_end(&call);
	return view;
}

/*
 * As the current user, to whom it shows no more than he may see: of others'
 * statements only what a member of pg_read_all_stats sees.
 */
Datum
preflight_key_statements(Migration *m)
{
	MemoryContext outer = CurrentMemoryContext;
	char *view = m->state < STATE_SWAPPED ? statements_view() : NULL;
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(m->table_name)};
	Datum result = (Datum) 0;
	bool isnull = true;
	char *sql;

	/* where there are more, those with ON CONFLICT matter most */
	sql = psprintf("SELECT pg_catalog.array_agg(q.query ORDER BY q.query COLLATE \"C\") FROM"
				   " (SELECT DISTINCT s.query, s.query OPERATOR(pg_catalog.~*) 'on\\s+conflict'"
				   " FROM %s s JOIN pg_catalog.pg_database d"
				   " ON d.oid OPERATOR(pg_catalog.=) s.dbid"
				   " WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"
				   " AND pg_catalog.strpos(pg_catalog.lower(s.query), pg_catalog.lower($1))"
				   " OPERATOR(pg_catalog.>) 0 ORDER BY 2 DESC, 1 LIMIT " STATEMENTS_MAX ") q",
				   view);
	if (view != NULL)
	{
		SPI_connect();
		if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, true, 0) !=
			SPI_OK_SELECT)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not read pg_stat_statements")));
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull)
		{
			MemoryContext spi = MemoryContextSwitchTo(outer);

			result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
			MemoryContextSwitchTo(spi);
		}
		SPI_finish();
	}
	return isnull ? PointerGetDatum(construct_empty_array(TEXTOID)) : result;
}
