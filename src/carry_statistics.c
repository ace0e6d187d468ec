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
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

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
	char *other;
	Oid schema;

	/* nothing but the table's lock holds them: one may have been dropped */
	if (!HeapTupleIsValid(front) || !HeapTupleIsValid(back))
		return;
	schema = ((Form_pg_statistic_ext) GETSTRUCT(front))->stxnamespace;
	name = pstrdup(NameStr(((Form_pg_statistic_ext) GETSTRUCT(front))->stxname));
	other = name_make(name, suffix);
	for (int number = 1; is_taken(other, schema); number++)
		other = name_make(name, psprintf("%d%s", number, suffix));
	rename_statistics(catalog, front, other);
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

const Carrier carry_statistics = {"extended statistics", prepare, collect, move};
