/*-------------------------------------------------------------------------
 *
 * sync_cache.c
 *	  What a session remembers of the migrations that sync triggers serve.
 *
 * A trigger knows its migration's number (its argument) and the table it fired
 * on.  All else is read once and kept across transactions: one entry a table,
 * so that each leaf has its own map of columns.  It is read with the latest
 * snapshot, as the writer's own may be older than the migration.
 *
 * The relation cache tells when to read again: whatever changes source,
 * target, log or leaf (a column, the owner, a new partition) invalidates their
 * entries, and a lock on the table makes us see that in time.  The callback only
 * marks.  What a trigger does is told by its function, and which direction is in
 * force by the source's trigger and the state, which each swap makes us read again.
 *
 * A trigger whose migration or log is gone (a restored dump), or that stands on
 * a table which isn't the migration's (a detached partition), says so once and
 * lets the write pass.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "catalog.h"
#include "catalog/partition.h"
#include "sync_internal.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

static HTAB *sync_tables = NULL;

/* The entry found last: mostly the next one wanted. */
static SyncTable *last_table = NULL;

static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	SyncTable *table;

	if (sync_tables == NULL)
		return;
	hash_seq_init(&status, sync_tables);
	while ((table = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(relid) || table->relid == relid || table->m == NULL ||
			table->m->source == relid || table->m->target == relid || table->m->log == relid)
			table->valid = false;
	}
}

void
sync_cache_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

void
sync_warn(SyncTable *table, const char *reason)
{
	if (table->warned)
		return;
	table->warned = true;
	ereport(
		WARNING,
		(errmsg("migrate_ext does not carry over changes of table \"%s\"",
				get_rel_name(table->relid)),
		 errdetail("%s", reason),
		 table->m != NULL
			 ? errhint("Drop the trigger if the migration is no longer there.")
			 : errhint("A database restored from a dump has the triggers of a migration without "
					   "the migration: begin it anew, or drop them. DROP EXTENSION migrate_ext "
					   "CASCADE drops those of all tables.")));
}

/* Is this leaf (or the partitioned table itself) part of the target? */
static bool
belongs_to_target(Oid relid, Oid target)
{
	List *ancestors;

	if (relid == target)
		return true;
	if (!get_rel_relispartition(relid))
		return false;
	ancestors = get_partition_ancestors(relid);
	return list_member_oid(ancestors, target);
}

/* The column of relid that stands for this one of the source, by name and type. */
static AttrNumber
same_column(Relation source, AttrNumber attnum, Oid relid)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), attnum - 1);
	AttrNumber found;

	if (RelationGetRelid(source) == relid)
		return attnum;
	found = get_attnum(relid, NameStr(att->attname));
	if (found <= 0 || get_atttype(relid, found) != att->atttypid)
		return 0;
	return found;
}

/* Fill in what needs the tables; false with the reason if one is missing. */
static const char *
describe_table(SyncTable *table)
{
	Migration *m = table->m;
	Relation source;
	int i;

	if (table->direction == DIRECTION_FORWARD ? m->source != table->relid
											  : !belongs_to_target(table->relid, m->target))
		return "The table is not part of the trigger's migration.";
	if (!OidIsValid(m->log) || get_rel_name(m->log) == NULL)
		return "The migration has no change log.";
	source = try_relation_open(m->source, AccessShareLock);
	if (source == NULL || !OidIsValid(m->owner))
		return "The other table of the migration has been dropped.";

	changelog_columns(m->log, &table->columns);
	table->log_fits = changelog_types_fit(m->log, m->source);
	table->attnums = palloc0(table->columns.natts * sizeof(AttrNumber));
	for (i = 0; i < table->columns.natts && table->log_fits; i++)
		table->attnums[i] = same_column(source, table->columns.attnums[i], table->relid);
	relation_close(source, AccessShareLock);
	return NULL;
}

/*
 * Read an entry (anew).  Marked valid first, so that a change meanwhile shows;
 * an error on the way (a serialization failure, a cancel) leaves it unloaded,
 * to be read by the next trigger.
 */
static void
load_table(SyncTable *table)
{
	MemoryContext old_context;
	const char *problem = "The migration does not exist.";

	if (table->m != NULL)
		sync_release_migration(table->migration_id); /* may be using it */
	if (table->context == NULL)
		table->context =
			AllocSetContextCreate(CacheMemoryContext, "migrate_ext sync", ALLOCSET_SMALL_SIZES);
	table->m = NULL;
	MemoryContextReset(table->context);
	table->loaded = false;
	table->valid = true;

	old_context = MemoryContextSwitchTo(table->context);
	table->m = catalog_load_latest(table->migration_id);
	if (table->m != NULL)
		problem = describe_table(table);
	MemoryContextSwitchTo(old_context);
	table->usable = problem == NULL;
	table->loaded = true;
	if (problem != NULL)
		sync_warn(table, problem);
}

static SyncTable *
find_table(int64 migration_id, Oid relid, Direction direction)
{
	SyncTable key = {migration_id, relid, direction};
	SyncTable *table;
	bool found;

	if (sync_tables == NULL)
	{
		HASHCTL ctl;

		ctl.keysize = offsetof(SyncTable, valid);
		ctl.entrysize = sizeof(SyncTable);
		ctl.hcxt = CacheMemoryContext;
		sync_tables =
			hash_create("migrate_ext sync tables", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	table = hash_search(sync_tables, &key, HASH_ENTER, &found);
	if (!found)
		memset((char *) table + offsetof(SyncTable, valid), 0,
			   sizeof(SyncTable) - offsetof(SyncTable, valid));
	return table;
}

/* In direction reverse TRUNCATE is answered before it, while the rows are there. */
static void
check_protocol(FunctionCallInfo fcinfo, Direction direction, bool row)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool before = !row && direction == DIRECTION_REVERSE;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function was not called by trigger manager")));
	if ((TRIGGER_FIRED_BEFORE(trigger->tg_event) != 0) != before ||
		(TRIGGER_FIRED_FOR_ROW(trigger->tg_event) != 0) != row ||
		(!row && !TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event)))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function must be fired %s",
							   row		? "AFTER INSERT, UPDATE or DELETE FOR EACH ROW"
							   : before ? "BEFORE TRUNCATE FOR EACH STATEMENT"
										: "AFTER TRUNCATE FOR EACH STATEMENT")));
	if (trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function needs one argument, the number of a migration")));
}

/* See sync_internal.h. */
SyncTable *
sync_table(FunctionCallInfo fcinfo, Direction direction, bool row)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	SyncTable *table = last_table;
	Oid relid;
	int64 id;

	check_protocol(fcinfo, direction, row);
	relid = RelationGetRelid(trigger->tg_relation);
	id = strtoll(trigger->tg_trigger->tgargs[0], NULL, 10);
	if (table == NULL || table->migration_id != id || table->relid != relid ||
		table->direction != direction)
		last_table = table = find_table(id, relid, direction);

	/* reading it may itself bring news of changes */
	while (!table->valid || !table->loaded)
		load_table(table);
	return table->usable ? table : NULL;
}
