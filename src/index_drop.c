/*-------------------------------------------------------------------------
 *
 * index_drop.c
 *	  Dropping the target's indexes; see index_drop.h.
 *
 * Which ones are ours is told by events.  An adopted target's own are written
 * down when the migration is made; when the index stage ends it writes down what
 * there is besides.  Until then all but the given ones are ours.  A list of OIDs
 * holds whatever is renamed or built anew: it is the partitioned indexes that it
 * names, and REINDEX leaves their OIDs alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog.h"
#include "index_drop.h"
#include "lib/stringinfo.h"
#include "sqlgen.h"

/* The events that list them. */
#define EVENT_INDEXES "indexes"
#define EVENT_GIVEN "adopted"

/*
 * The target's indexes, and those of its partitions that hang on no other; the
 * tables being t.
 */
#define TOP_INDEXES                                       \
	"FROM pg_catalog.pg_partition_tree(%u) t"             \
	" JOIN pg_catalog.pg_index i ON i.indrelid = t.relid" \
	" JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid" \
	" WHERE NOT c.relispartition"

/* The list in the last event of that kind as a query for OIDs, or one for none. */
static char *
listed(Migration *m, const char *kind)
{
	char *detail = event_last_detail(m->id, kind);
	char *list = detail != NULL ? json_field(json_parse(detail), "indexes") : NULL;

	if (list == NULL)
		return NULL;
	return psprintf("(SELECT l::pg_catalog.oid FROM pg_catalog.json_array_elements_text('%s') l)",
					list);
}

/* Indexes of the target that are not among the given ones. */
static char *
not_given(Migration *m)
{
	char *given = listed(m, EVENT_GIVEN);

	return given == NULL ? "true" : psprintf("i.indexrelid NOT IN %s", given);
}

static void
record(Migration *m, const char *kind, const char *which, const char *what)
{
	char *list = sql_text("SELECT pg_catalog.json_agg(i.indexrelid::int8 ORDER BY i.indexrelid)"
						  " " TOP_INDEXES " AND %s",
						  m->target, which);
	int64 count = sql_int64("SELECT pg_catalog.count(*) " TOP_INDEXES " AND %s", m->target, which);

	event_add(m, kind, psprintf("{\"indexes\": %s}", list ? list : "[]"), what, count,
			  count == 1 ? "" : "es", sql_relation(m->target));
}

void
index_record_given(Migration *m)
{
	record(m, EVENT_GIVEN, "true", INT64_FORMAT " index%s of %s found, which is adopted");
}

void
index_record_made(Migration *m)
{
	record(m, EVENT_INDEXES, not_given(m), INT64_FORMAT " index%s made on %s");
}

/* Drop one after the other: a partition's own may go with its parent's. */
static void
drop_indexes(Oid target, const char *which)
{
	char *drop;

	for (;;)
	{
		drop = sql_text(
			"SELECT CASE WHEN k.oid IS NOT NULL"
			" THEN pg_catalog.format('ALTER TABLE %%s DROP CONSTRAINT %%I',"
			" i.indrelid::pg_catalog.regclass, k.conname)"
			" ELSE pg_catalog.format('DROP INDEX %%s', i.indexrelid::pg_catalog.regclass) END"
			" FROM (SELECT i.indexrelid, i.indrelid " TOP_INDEXES " AND %s LIMIT 1) i"
			" LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid"
			" AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')",
			target, which);
		if (drop == NULL)
			break;
		(void) sql_run("%s", drop);
		CommandCounterIncrement();
	}
}

void
index_drop_all(Oid target)
{
	drop_indexes(target, "true");
}

void
index_drop_made(Migration *m)
{
	char *made;

	if (m->state < STATE_CATCHING_UP)
	{
		drop_indexes(m->target, not_given(m));
		return;
	}
	made = listed(m, EVENT_INDEXES);
	if (made != NULL)
		drop_indexes(m->target, psprintf("i.indexrelid IN %s", made));
}
