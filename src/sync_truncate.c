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

#include "access/relation.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/predicate.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "columns.h"
#include "compat.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "sync.h"
#include "sync_internal.h"
#include "sync_trigger.h"

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

/* Does this foreign key of another table sleep until a swap?  See carry_fk_in.c. */
static bool
is_asleep(Oid child, Oid key)
{
	Relation rel = relation_open(child, AccessShareLock);
	bool asleep = false;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgconstraint == key && trigger->tgenabled == TRIGGER_DISABLED)
			asleep = true;
	}
	relation_close(rel, AccessShareLock);
	return asleep;
}

/*
 * Do foreign keys of other tables point at this one, and all of them sleep?  They
 * don't have to be obeyed, but TRUNCATE would.
 */
static bool
is_referenced_asleep(Oid relid)
{
	Relation rel = relation_open(relid, AccessExclusiveLock);
	int asleep = 0;
	int awake = 0;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger *trigger = &rel->trigdesc->triggers[i];

		if (RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK ||
			trigger->tgconstrrelid == relid)
			continue;
		if (is_asleep(trigger->tgconstrrelid, trigger->tgconstraint))
			asleep++;
		else
			awake++;
	}
	relation_close(rel, NoLock);
	return asleep > 0 && awake == 0;
}

/* What ExecuteTruncateGuts() does with a table, its triggers aside. */
static void
empty_storage(Relation rel)
{
	ReindexParams params = {0};
	Oid toast = rel->rd_rel->reltoastrelid;

	CheckTableNotInUse(rel, "TRUNCATE");
	CheckTableForSerializableConflictIn(rel);
	RelationSetNewRelfilenumber(rel, rel->rd_rel->relpersistence);
	if (OidIsValid(toast))
	{
		Relation toastrel = relation_open(toast, AccessExclusiveLock);

		RelationSetNewRelfilenumber(toastrel, toastrel->rd_rel->relpersistence);
		relation_close(toastrel, NoLock);
	}
	reindex_relation(NULL, RelationGetRelid(rel), REINDEX_REL_PROCESS_TOAST, &params);
	pgstat_count_truncate(rel);
}

/* The same as TRUNCATE, without a look at foreign keys. */
static void
truncate_storage(Oid relid)
{
	ListCell *lc;

	foreach (lc, find_all_inheritors(relid, AccessExclusiveLock, NULL))
	{
		Relation rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			empty_storage(rel);
		table_close(rel, NoLock);
	}
}

/* TRUNCATE [ONLY] table, as the owner of both. */
static void
truncate_table(Migration *m, Oid relid, bool only)
{
	UserSwitch user;

	user_switch_owner(&user, m->owner);
	if (is_referenced_asleep(relid))
		truncate_storage(relid);
	else
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
 * A column of the identity, of a row s of the original, as the target has it in
 * the column "attnum": mostly itself.  The map of columns is asked only where
 * one may be computed: it can't be made where the value of a key means nothing
 * any more, and TRUNCATE must go on then.
 */
static char *
original_value(Migration *m, AttrNumber own, AttrNumber attnum)
{
	Oid type = get_atttype(m->target, attnum);
	char *value;

	if (json_field(m->options, "columns") != NULL)
		return columns_select_list_without(
			m, DIRECTION_FORWARD, false,
			bms_del_member(bms_add_range(NULL, 1, MaxHeapAttributeNumber), attnum));
	value = psprintf("s.%s", quote_identifier(get_attname(m->source, own, false)));
	if (get_atttype(m->source, own) == type)
		return value;
	return psprintf(
		"%s::%s", value,
		format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

/* "s.id OPERATOR(pg_catalog.=) l.id", a term for each column of the identity */
static char *
same_row(Migration *m)
{
	Identity *identity = relinfo_identity(m->source, false);
	StringInfoData where;

	initStringInfo(&where);
	for (int i = 0; i < identity->natts; i++)
	{
		char *name = get_attname(m->source, identity->attnums[i], false);
		AttrNumber attnum = get_attnum(m->target, name);
		Oid type;

		if (attnum <= 0)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("the target has no column \"%s\" to tell rows by", name),
							errhint("Truncate the whole table, or delete the rows.")));
		type = get_atttype(m->target, attnum);
		if (i > 0)
			appendStringInfoString(&where, " AND ");
		generate_operator_clause(&where, original_value(m, identity->attnums[i], attnum), type,
								 lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr,
								 psprintf("l.%s", quote_identifier(name)), type);
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
 * Lock the original.  False: there is nothing to do, it is gone, empty (a TRUNCATE of
 * the whole comes to each leaf, too), or not the back side.
 */
static bool
is_to_follow(SyncTable *table, LOCKMODE lockmode)
{
	Relation original = try_table_open(table->m->source, lockmode);
	bool result;

	if (original == NULL)
		return false;
	result = sync_is_reverse(table, original) && RelationGetNumberOfBlocks(original) > 0;
	table_close(original, NoLock);
	return result;
}

/*
 * The same as what is to come needs it.  Nobody is locked out of a table that is not the
 * back side: before the swap it is the application's.
 */
static bool
open_original(SyncTable *table, LOCKMODE lockmode)
{
	return is_to_follow(table, AccessShareLock) && is_to_follow(table, lockmode);
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
	if (!open_original(table, whole ? AccessExclusiveLock : RowExclusiveLock))
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
