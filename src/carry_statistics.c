/*-------------------------------------------------------------------------
 *
 * carry_statistics.c
 *	  Extended statistics.
 *
 * They are made on the back table (and on partitions, for plans of one partition)
 * under names of their own, and the back table is analyzed once more.  At the
 * swap the counterparts exchange names; what an object is made of tells which
 * they are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "carry_kinds.h"
#include "carry_statements.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "relinfo.h"
#include "sqlgen.h"

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	static SPIPlanPtr plan = NULL;
	Oid back = back_of(m, direction);

	if (carry_by_statements(m, direction, "carry_statistics", &plan, look_only))
		return true;
	if (look_only)
		return false;
	if (direction == DIRECTION_FORWARD)
		catalog_forget_analyzed(m);
	else
		carry_run(relinfo_owner(back), psprintf("ANALYZE %s", sql_relation(back)));
	return false;
}

typedef struct StatisticsPair
{
	Oid front;
	Oid back;
} StatisticsPair;

static void *
collect(Migration *m, Direction direction)
{
	Oid types[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(front_of(m, direction)),
					  ObjectIdGetDatum(back_of(m, direction))};
	static SPIPlanPtr plan = NULL;
	CatalogCall call = {.plan = &plan};
	List *pairs = NIL;
	uint64 count = catalog_begin(&call,
								 "SELECT front_oid, back_oid"
								 " FROM migrate_ext.statistics_pairs($1, $2)",
								 lengthof(types), types, values, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(call.outer);
		StatisticsPair *pair = palloc(sizeof(StatisticsPair));
		bool isnull;

		pair->front = DatumGetObjectId(catalog_value(&call, i, 1, &isnull));
		pair->back = DatumGetObjectId(catalog_value(&call, i, 2, &isnull));
		pairs = lappend(pairs, pair);
		MemoryContextSwitchTo(old_context);
	}
	catalog_end(&call);
	return pairs;
}

static bool
is_taken(const char *name, Oid schema)
{
	return SearchSysCacheExists2(STATEXTNAMENSP, CStringGetDatum(name), ObjectIdGetDatum(schema));
}

static char *
free_name(const char *name, const char *suffix, Oid schema)
{
	char *other = name_make(name, suffix);

	for (int number = 1; is_taken(other, schema); number++)
		other = name_make(name, psprintf("%d%s", number, suffix));
	return other;
}

static void
rename_statistics(Relation catalog, HeapTuple tuple, const char *name)
{
	(void) namestrcpy(&((Form_pg_statistic_ext) GETSTRUCT(tuple))->stxname, name);
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	CommandCounterIncrement();
}

/*
 * The front's goes out of the way first: names are unique.  suffix: as the table
 * that is swapped out is called.
 */
static void
exchange_names(Relation catalog, const StatisticsPair *pair, const char *suffix)
{
	HeapTuple front = SearchSysCacheCopy1(STATEXTOID, ObjectIdGetDatum(pair->front));
	HeapTuple back = SearchSysCacheCopy1(STATEXTOID, ObjectIdGetDatum(pair->back));
	char *name;
	Oid schema;

	/* nothing but the table's lock holds them: one may have been dropped */
	if (!HeapTupleIsValid(front) || !HeapTupleIsValid(back))
		return;
	schema = ((Form_pg_statistic_ext) GETSTRUCT(front))->stxnamespace;
	name = pstrdup(NameStr(((Form_pg_statistic_ext) GETSTRUCT(front))->stxname));
	rename_statistics(catalog, front, free_name(name, suffix, schema));
	rename_statistics(catalog, back, name);
}

static void
move(Migration *m, Direction direction, void *pairs)
{
	Relation catalog = table_open(StatisticExtRelationId, RowExclusiveLock);
	ListCell *lc;

	foreach (lc, (List *) pairs)
		exchange_names(catalog, lfirst(lc),
					   direction == DIRECTION_FORWARD ? ORIGINAL_SUFFIX : TARGET_SUFFIX);
	table_close(catalog, NoLock);
}

/* ------------------------------------------------------------------------
 * For plan()
 * ------------------------------------------------------------------------
 */

static void
plan_rename(MigrationPlan *plan, const char *schema, const char *from, const char *to)
{
	plan_add(plan,
			 psprintf("ALTER STATISTICS %s RENAME TO %s", sql_qualified(schema, from),
					  quote_identifier(to)),
			 plan_swap_lock(plan), PLAN_EQUIVALENT);
}

/* Names of the counterparts that there are, and of those that there will be. */
static void
plan_names(MigrationPlan *plan)
{
	Migration *m = plan->m;
	Oid types[] = {INT8OID, OIDOID, OIDOID};
	Datum values[] = {Int64GetDatum(m->id), ObjectIdGetDatum(m->source),
					  ObjectIdGetDatum(m->target)};
	CatalogCall call = {0};
	uint64 count = catalog_begin(
		&call,
		"SELECT n.nspname, f.stxname, b.stxname::pg_catalog.text"
		" FROM migrate_ext.statistics_pairs($2, $3) p"
		" JOIN pg_catalog.pg_statistic_ext f ON f.oid = p.front_oid"
		" JOIN pg_catalog.pg_statistic_ext b ON b.oid = p.back_oid"
		" JOIN pg_catalog.pg_namespace n ON n.oid = f.stxnamespace"
		" UNION ALL SELECT schema, name, back_name FROM migrate_ext.statistics_coming($1, $2, $3)"
		" ORDER BY 1, 2",
		lengthof(types), types, values, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		char *schema = catalog_value_text(&call, i, 1);
		char *name = catalog_value_text(&call, i, 2);
		char *back_name = catalog_value_text(&call, i, 3);
		MemoryContext old_context = MemoryContextSwitchTo(call.outer);

		plan_rename(plan, schema, name,
					free_name(name, ORIGINAL_SUFFIX, get_namespace_oid(schema, false)));
		plan_rename(plan, schema, back_name, name);
		MemoryContextSwitchTo(old_context);
	}
	catalog_end(&call);
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	int before = list_length(plan->steps);

	if (part == CARRY_MOVE)
		plan_names(plan);
	if (part != CARRY_PREPARE)
		return;
	carry_plan_statements(plan, "carry_statistics");
	if (list_length(plan->steps) > before)
		plan->m->analyzed_at = 0; /* as prepare() does: once more */
}

const Carrier carry_statistics = {.name = "extended statistics",
								  .prepare = prepare,
								  .collect = collect,
								  .move = move,
								  .plan = plan_part};
