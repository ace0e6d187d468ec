/*-------------------------------------------------------------------------
 *
 * index_drop.c
 *	  Dropping the target's indexes; see index_drop.h.
 *
 * Which ones are ours is told by an event: the index stage begins with a target
 * that has none and writes down what there is when it ends.  Until then all
 * are.  A list of OIDs holds whatever is renamed or built anew: it is the
 * partitioned indexes that it names, and REINDEX leaves their OIDs alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog.h"
#include "index_drop.h"
#include "lib/stringinfo.h"
#include "sqlgen.h"

/* The event that lists them. */
#define EVENT_INDEXES "indexes"

/*
 * The target's indexes, and those of its partitions that hang on no other; the
 * tables being t.
 */
#define TOP_INDEXES                                       \
	"FROM pg_catalog.pg_partition_tree(%u) t"             \
	" JOIN pg_catalog.pg_index i ON i.indrelid = t.relid" \
	" JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid" \
	" WHERE NOT c.relispartition"

void
index_record_made(Migration *m)
{
	char *list = sql_text("SELECT pg_catalog.json_agg(i.indexrelid::int8 ORDER BY i.indexrelid)"
						  " " TOP_INDEXES,
						  m->target);
	int64 count = sql_int64("SELECT pg_catalog.count(*) " TOP_INDEXES, m->target);

	event_add(m, EVENT_INDEXES, psprintf("{\"indexes\": %s}", list ? list : "[]"),
			  INT64_FORMAT " index%s made on %s", count, count == 1 ? "" : "es",
			  sql_relation(m->target));
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
	char *made = NULL;
	ListCell *lc;

	if (m->state < STATE_CATCHING_UP)
	{
		index_drop_all(m->target);
		return;
	}
	foreach (lc, event_since(m->id, 0))
	{
		Event *event = lfirst(lc);

		if (strcmp(event->kind, EVENT_INDEXES) == 0)
			made = json_field(json_parse(event->detail), "indexes");
	}
	if (made != NULL)
		drop_indexes(m->target, psprintf("i.indexrelid IN (SELECT made::pg_catalog.oid FROM"
										 " pg_catalog.json_array_elements_text('%s') made)",
										 made));
}
