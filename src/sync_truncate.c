/*-------------------------------------------------------------------------
 *
 * sync_truncate.c
 *	  The sync trigger's answer to TRUNCATE.
 *
 * It holds ACCESS EXCLUSIVE on the table, so it must not wait for anything that
 * takes long.  Before the migration is live (an index build may be running on
 * the target) it only leaves a mark, and the leader starts the copy over.  Live,
 * the target is truncated in the same transaction; swapped, the original, or
 * those of its rows that stood in the partition which was truncated.
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
#include "run.h"
#include "sqlgen.h"
#include "storage/bufmgr.h"
#include "sync.h"
#include "sync_internal.h"
#include "sync_trigger.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

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

/*
 * Delete the rows of the original that belong to a partition:
 *
 *	DELETE FROM ONLY t_orig WHERE ctid = ANY (ARRAY(
 *		SELECT x."!ctid" FROM (SELECT s.ctid AS "!ctid", s.id AS id, ... FROM ONLY t_orig s) x
 *		WHERE <the partition's constraint>))
 *
 * The constraint speaks of the partition's columns, and x has those.
 */
static void
delete_partition_rows(Migration *m, Oid leaf)
{
	char *original = sql_relation(m->source);
	UserSwitch user;
	char *constraint;
	char *sql;

	user_switch_owner(&user, m->owner);
	constraint =
		sql_text("SELECT COALESCE(pg_catalog.pg_get_partition_constraintdef(%u), 'true')", leaf);
	sql = psprintf("DELETE FROM ONLY %s WHERE ctid = ANY (ARRAY("
				   "SELECT x.\"!ctid\" FROM (SELECT s.ctid AS \"!ctid\", %s FROM ONLY %s s%s) x"
				   " WHERE %s))",
				   original, columns_select_list(m, DIRECTION_FORWARD, true), original,
				   columns_joins(m), constraint);
	execute_latest(sql);
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
 * TRUNCATE of the target or of one of its leaves.  Errors where a foreign key
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
