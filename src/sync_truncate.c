/*-------------------------------------------------------------------------
 *
 * sync_truncate.c
 *	  The sync trigger's answer to TRUNCATE.
 *
 * It holds ACCESS EXCLUSIVE on the table, so it must not wait for anything that
 * takes long.  Before the migration is live (an index build may be running on
 * the target) it only leaves a mark, and the leader starts the copy over.  Live,
 * the target is truncated in the same transaction; swapped, the original, or
 * those of its rows that stand in the partition which is about to be truncated.
 *
 * Whether it is live is told by the function that the row trigger calls, not by
 * a table, which the writer might read with an old snapshot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog.h"
#include "columns.h"
#include "executor/spi.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "storage/bufmgr.h"
#include "sync.h"
#include "sync_internal.h"
#include "sync_trigger.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(migrate_ext_sync_truncate);
PG_FUNCTION_INFO_V1(migrate_ext_sync_reverse_truncate);

/* Does the row trigger of this table write through? */
static bool
is_write_through(Relation source)
{
	List *name = list_make2(makeString("migrate_ext"), makeString("sync_write_through"));
	Oid function = LookupFuncName(name, 0, NULL, true);
	int i;

	for (i = 0; source->trigdesc != NULL && i < source->trigdesc->numtriggers; i++)
	{
		Trigger *trigger = &source->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, SYNC_TRIGGER_NAME) == 0)
			return trigger->tgfoid == function;
	}
	return false;
}

/* TRUNCATE [ONLY] table, as the owner of both. */
static void
truncate_table(Migration *m, Oid relid, bool only)
{
	UserSwitch user;

	user_switch_owner(&user, m->owner);
	(void) sql_run("TRUNCATE TABLE %s%s", only ? "ONLY " : "", sql_relation(relid));
	user_switch_back(&user);
}

/*
 * Run a statement with the latest snapshot, whatever the isolation level: an
 * old one doesn't show all rows that are to be deleted.
 */
static void
execute_latest(const char *sql)
{
	SPIPlanPtr plan;
	int code;

	if (SPI_connect() != SPI_OK_CONNECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not connect to the server programming interface")));
	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not prepare a statement: %s", SPI_result_code_string(SPI_result)),
				 errdetail_internal("%s", sql)));
	code = SPI_execute_snapshot(plan, NULL, NULL, GetLatestSnapshot(), InvalidSnapshot, false, true,
								0);
	if (code < 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not execute a statement: %s", SPI_result_code_string(code)),
						errdetail_internal("%s", sql)));
	SPI_finish();
}

/* The target's column that carries this column of the source. */
static AttrNumber
target_column(ColumnMap *map, AttrNumber attnum)
{
	AttrNumber same = get_attnum(map->to, get_attname(map->from, attnum, false));

	for (int i = 0; same == 0 && i < map->natts; i++)
	{
		if (map->from_attnum[i] == attnum)
			same = i + 1;
	}
	if (same == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("no column of the target carries the key column \"%s\"",
							   get_attname(map->from, attnum, false))));
	return same;
}

/* "s.id OPERATOR(pg_catalog.=) l.id", a term for each column of the identity */
static char *
same_row(Migration *m)
{
	ColumnMap *map = columns_build(m, DIRECTION_FORWARD);
	Identity *identity = relinfo_identity(m->source, false);
	StringInfoData where;

	initStringInfo(&where);
	for (int i = 0; i < identity->natts; i++)
	{
		AttrNumber attnum = target_column(map, identity->attnums[i]);
		Oid type = get_atttype(m->target, attnum);
		Bitmapset *others = bms_del_member(bms_add_range(NULL, 1, MaxHeapAttributeNumber), attnum);

		if (i > 0)
			appendStringInfoString(&where, " AND ");
		generate_operator_clause(
			&where, columns_select_list_without(m, DIRECTION_FORWARD, false, others), type,
			lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr,
			psprintf("l.%s", quote_identifier(get_attname(m->target, attnum, false))), type);
	}
	return where.data;
}

/*
 * Delete the rows of the original whose rows stand in a partition:
 *
 *	DELETE FROM ONLY t_orig s USING ONLY t_p0 l WHERE s.id OPERATOR(pg_catalog.=) l.id
 *
 * They are still there.  What the original's rows would come to isn't asked: a
 * key derived today may be another than the one that the row stands under.
 */
static void
delete_partition_rows(Migration *m, Oid leaf)
{
	UserSwitch user;

	user_switch_owner(&user, m->owner);
	execute_latest(psprintf("DELETE FROM ONLY %s s USING ONLY %s l WHERE %s",
							sql_relation(m->source), sql_relation(leaf), same_row(m)));
	user_switch_back(&user);
}

/*
 * Lock the original as what is to come needs it.  False: there is nothing to
 * do, it is gone, empty (a TRUNCATE of the whole comes to each leaf, too), or
 * not the back side.
 */
static bool
open_original(Migration *m, LOCKMODE lockmode)
{
	Relation original = try_table_open(m->source, lockmode);
	bool result;

	if (original == NULL)
		return false;
	result = !sync_trigger_is_forward(original) && RelationGetNumberOfBlocks(original) > 0;
	table_close(original, NoLock);
	return result;
}

/* TRUNCATE of the source. */
Datum
migrate_ext_sync_truncate(PG_FUNCTION_ARGS)
{
	SyncTable *table = sync_table(fcinfo, DIRECTION_FORWARD, false);
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (table == NULL)
		return PointerGetDatum(NULL);
	if (is_write_through(trigger->tg_relation))
	{
		sync_release();
		truncate_table(table->m, table->m->target, false);
	}
	else
		truncation_mark(table->migration_id);
	return PointerGetDatum(NULL);
}

/*
 * Before a TRUNCATE of the target or of one of its leaves.  Errors where a foreign key
 * still points at the original, as PostgreSQL words it.
 */
Datum
migrate_ext_sync_reverse_truncate(PG_FUNCTION_ARGS)
{
	SyncTable *table = sync_table(fcinfo, DIRECTION_REVERSE, false);
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool whole;

	if (table == NULL)
		return PointerGetDatum(NULL);
	whole = RelationGetRelid(trigger->tg_relation) == table->m->target;
	if (!open_original(table->m, whole ? AccessExclusiveLock : RowExclusiveLock))
	{
		sync_check_late(table);
		return PointerGetDatum(NULL);
	}
	sync_release();
	if (whole)
		truncate_table(table->m, table->m->source, true);
	else
		delete_partition_rows(table->m, RelationGetRelid(trigger->tg_relation));
	return PointerGetDatum(NULL);
}
