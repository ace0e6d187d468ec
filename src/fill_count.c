/*-------------------------------------------------------------------------
 *
 * fill_count.c
 *	  How often, and when last, a row was inserted without its sharding key.
 *
 * Who is about to swap must know whether the application itself gives the key:
 * on a partitioned table no trigger can.  The fill trigger knows, and tells it
 * by way of a sequence of its own for each key, migrate_ext.fill_<key>:
 *
 * - Its value is the time of the latest such INSERT, in seconds since 1970.  It
 *   is set at most once a second by a session, and like any sequence's it
 *   survives a crash and a ROLLBACK, and makes no writer wait for another's
 *   transaction.  Of two sessions in the same second the earlier one may win.
 * - Its statistics count them, as PostgreSQL counts the rows inserted into a
 *   table: in the session's memory, handed on about once a second.  "Inserted"
 *   of the sequence are the rows without key; "returned" is what the table's own
 *   count of inserted rows was when the key was made.  So the share is that of
 *   two counts that a crash or pg_stat_reset() both begin anew, and a
 *   rolled-back INSERT is in both.
 *
 * Nothing of this is paid by an INSERT that gives the key.  An UPDATE isn't
 * counted: it fills old rows, and nobody expects it to name the key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "fill_count.h"
#include "fmgr.h"
#include "pgstat.h"
#include "run.h"
#include "sqlgen.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define COUNTER_PREFIX "fill_"

Oid
fill_count_find(int64 key)
{
	Oid counter = get_relname_relid(psprintf(COUNTER_PREFIX INT64_FORMAT, key),
									get_namespace_oid("migrate_ext", false));

	return OidIsValid(counter) && get_rel_relkind(counter) == RELKIND_SEQUENCE ? counter
																			   : InvalidOid;
}

/* Nobody but the fill trigger of its own key uses a counter, so nobody is waited for. */
static void
drop_counter(Oid counter)
{
	(void) deleteDependencyRecordsForClass(RelationRelationId, counter, ExtensionRelationId,
										   DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
	(void) sql_run("DROP SEQUENCE %s", sql_relation(counter));
}

/* Columns and tables are dropped without a word to us: their counters go now. */
static void
drop_unused(void)
{
	int64 counter;

	while ((counter = sql_int64("SELECT COALESCE((SELECT c.oid FROM pg_catalog.pg_class c"
								" WHERE c.relnamespace = 'migrate_ext'::pg_catalog.regnamespace"
								" AND c.relkind = 'S' AND c.relname ~ '^" COUNTER_PREFIX "[0-9]+$'"
								" AND NOT EXISTS (SELECT FROM migrate_ext.sharding_key k"
								" WHERE c.relname = '" COUNTER_PREFIX "' || k.id) LIMIT 1), 0)")) !=
		   0)
		drop_counter((Oid) counter);
}

/* The table's count of inserted rows, with what this session has not handed on yet. */
static int64
inserted_so_far(Oid source)
{
	PgStat_StatTabEntry *stats = pgstat_fetch_stat_tabentry(source);
	int64 pending = DatumGetInt64(
		DirectFunctionCall1(pg_stat_get_xact_tuples_inserted, ObjectIdGetDatum(source)));

	return (stats != NULL ? stats->tuples_inserted : 0) + pending;
}

/*
 * A member of the extension: pg_dump leaves it out, DROP EXTENSION drops it.
 */
void
fill_count_create(int64 key, Oid source)
{
	int64 inserted = inserted_so_far(source);
	ObjectAddress sequence;
	ObjectAddress extension;
	Relation counter;

	drop_unused();
	if (OidIsValid(fill_count_find(key)))
		drop_counter(fill_count_find(key));
	(void) sql_run("CREATE SEQUENCE migrate_ext." COUNTER_PREFIX INT64_FORMAT " CACHE 1", key);
	(void) sql_run("COMMENT ON SEQUENCE migrate_ext." COUNTER_PREFIX INT64_FORMAT
				   " IS 'when a row was last inserted without its sharding key, in seconds since"
				   " 1970; its statistics count them'",
				   key);
	ObjectAddressSet(sequence, RelationRelationId, fill_count_find(key));
	ObjectAddressSet(extension, ExtensionRelationId, get_extension_oid("migrate_ext", false));
	recordDependencyOn(&sequence, &extension, DEPENDENCY_EXTENSION);
	CommandCounterIncrement();

	counter = relation_open(sequence.objectId, RowExclusiveLock);
	if (inserted > 0)
		pgstat_count_index_tuples(counter, inserted);
	relation_close(counter, NoLock);
}

bool
fill_count_add(Oid counter, int64 *noted)
{
	int64 now = (GetCurrentTimestamp() / USECS_PER_SEC) +
				(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400);
	Relation rel = try_relation_open(counter, RowExclusiveLock);
	UserSwitch save;

	if (rel == NULL)
		return false;
	pgstat_count_heap_insert(rel, 1);
	if (now != *noted)
	{
		user_switch_superuser(&save);
		(void) DirectFunctionCall2(setval_oid, ObjectIdGetDatum(counter), Int64GetDatum(now));
		user_switch_back(&save);
		*noted = now;
	}
	relation_close(rel, NoLock);
	return true;
}
