/*-------------------------------------------------------------------------
 *
 * sync_trigger.c
 *	  Creating, switching, checking and dropping the sync trigger; see
 *	  sync_trigger.h for which there are.
 *
 * The mode of the source's trigger is the function it calls.  It is switched
 * by CREATE OR REPLACE TRIGGER under SHARE ROW EXCLUSIVE: no writer is in
 * flight then, and the next one learns of it when it locks the table, however
 * old its snapshot is.  That statement turns ENABLE ALWAYS off, so it is set
 * again before anybody can see it.
 *
 * pg_trigger's row is rewritten by whoever disables or enables the trigger.  We
 * remember the xmin of the row as we left it: even what was done and undone
 * between two batches shows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "lock_queue.h"
#include "relinfo.h"
#include "reverse.h"
#include "run.h"
#include "sqlgen.h"
#include "straggler.h"
#include "sync_trigger.h"

static const char *
mode_function(SyncMode mode)
{
	return mode == SYNC_LOG ? "sync_log" : "sync_write_through";
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/* Of an open relation, from the relation cache; NULL if there is none. */
static Trigger *
cached_trigger(Relation rel, const char *name)
{
	int i;

	for (i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		if (strcmp(rel->trigdesc->triggers[i].tgname, name) == 0)
			return &rel->trigdesc->triggers[i];
	}
	return NULL;
}

/* See sync_trigger.h.  The caller has locked the source: so it stays so. */
bool
sync_trigger_is_forward(Relation source)
{
	Trigger *trigger = cached_trigger(source, SYNC_TRIGGER_NAME);

	return trigger != NULL && trigger->tgenabled == TRIGGER_FIRES_ALWAYS;
}

/* ------------------------------------------------------------------------
 * The source's triggers
 * ------------------------------------------------------------------------
 */

/* Remember the row trigger as it is now. */
static void
save_trigger(Migration *m)
{
	TriggerRow row;

	CommandCounterIncrement();
	if (!relinfo_trigger(m->source, SYNC_TRIGGER_NAME, &row))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("trigger \"%s\" for table \"%s\" does not exist", SYNC_TRIGGER_NAME,
							   get_rel_name(m->source))));
	m->trigger_oid = row.oid;
	m->trigger_xmin = row.xmin;
	catalog_save_trigger(m);
}

/*
 * Dropping the target or the log by accident would make the trigger fail, and
 * with it the application: DROP must say CASCADE, and takes the trigger along.
 */
static void
depend_on_tables(Migration *m, const char *name)
{
	ObjectAddress trigger;
	ObjectAddress table;
	TriggerRow row;

	CommandCounterIncrement();
	if (!relinfo_trigger(m->source, name, &row))
		return;
	ObjectAddressSet(trigger, TriggerRelationId, row.oid);
	ObjectAddressSet(table, RelationRelationId, m->target);
	recordDependencyOn(&trigger, &table, DEPENDENCY_NORMAL);
	ObjectAddressSet(table, RelationRelationId, m->log);
	recordDependencyOn(&trigger, &table, DEPENDENCY_NORMAL);
}

/* See sync_trigger.h. */
List *
sync_trigger_set_sql(const Migration *m, SyncMode mode)
{
	char *source = sql_relation(m->source);

	return list_make3(psprintf("CREATE OR REPLACE TRIGGER \"" SYNC_TRIGGER_NAME "\""
							   " AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW"
							   " EXECUTE FUNCTION migrate_ext.%s('" INT64_FORMAT "')",
							   source, mode_function(mode), m->id),
					  psprintf("CREATE OR REPLACE TRIGGER \"" TRUNCATE_TRIGGER_NAME "\""
							   " AFTER TRUNCATE ON %s FOR EACH STATEMENT"
							   " EXECUTE FUNCTION migrate_ext.sync_truncate('" INT64_FORMAT "')",
							   source, m->id),
					  sync_trigger_flip_sql(source, DIRECTION_FORWARD));
}

/* See sync_trigger.h. */
void
sync_trigger_set(Migration *m, SyncMode mode)
{
	Relation rel = table_open(m->source, ShareRowExclusiveLock);
	List *statements = sync_trigger_set_sql(m, mode);

	/* a statement of our own session may be in the middle of its rows */
	CheckTableNotInUse(rel, "CREATE TRIGGER");
	table_close(rel, NoLock);

	(void) sql_run("%s", (char *) linitial(statements));
	(void) sql_run("%s", (char *) lsecond(statements));
	depend_on_tables(m, SYNC_TRIGGER_NAME);
	depend_on_tables(m, TRUNCATE_TRIGGER_NAME);
	(void) sql_run("%s", (char *) lthird(statements));
	save_trigger(m);
}

/* See sync_trigger.h. */
char *
sync_trigger_flip_sql(const char *source, Direction direction)
{
	const char *what = direction == DIRECTION_FORWARD ? "ENABLE ALWAYS" : "DISABLE";

	return psprintf("ALTER TABLE ONLY %s %s TRIGGER \"" SYNC_TRIGGER_NAME "\","
					" %s TRIGGER \"" TRUNCATE_TRIGGER_NAME "\"",
					source, what, what);
}

/* See sync_trigger.h. */
void
sync_trigger_flip(Migration *m, Direction direction)
{
	(void) sql_run("%s", sync_trigger_flip_sql(sql_relation(m->source), direction));
	save_trigger(m);
}

/* ------------------------------------------------------------------------
 * The target's triggers
 * ------------------------------------------------------------------------
 */

/* Is there a trigger of this name, always enabled, for this migration? */
static bool
is_in_place(Oid relid, const char *name, int64 id)
{
	Relation rel = table_open(relid, AccessShareLock);
	Trigger *trigger = cached_trigger(rel, name);
	bool result = trigger != NULL && trigger->tgenabled == TRIGGER_FIRES_ALWAYS &&
				  trigger->tgnargs == 1 && strtoll(trigger->tgargs[0], NULL, 10) == id;

	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Is there a row trigger on target and leaves, and a TRUNCATE trigger on each?
 */
static char *
reverse_problem(Migration *m)
{
	List *relations = lcons_oid(m->target, relinfo_leaves(m->target));
	ListCell *cell;

	foreach (cell, relations)
	{
		Oid relid = lfirst_oid(cell);

		if (!is_in_place(relid, REVERSE_TRIGGER_NAME, m->id))
			return psprintf("trigger \"%s\" on table \"%s\" is missing or disabled",
							REVERSE_TRIGGER_NAME, get_rel_name(relid));
		if (!is_in_place(relid, REVERSE_TRUNCATE_TRIGGER_NAME, m->id))
			return psprintf("trigger \"%s\" on table \"%s\" is missing or disabled",
							REVERSE_TRUNCATE_TRIGGER_NAME, get_rel_name(relid));
	}
	return NULL;
}

/* See sync_trigger.h. */
List *
sync_trigger_reverse_sql(const Migration *m)
{
	char *table = sql_relation(m->target);

	return list_make2(
		psprintf("CREATE OR REPLACE TRIGGER \"" REVERSE_TRIGGER_NAME "\""
				 " AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW"
				 " EXECUTE FUNCTION migrate_ext.sync_reverse('" INT64_FORMAT "')",
				 table, m->id),
		psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER \"" REVERSE_TRIGGER_NAME "\"", table));
}

/* See sync_trigger.h. */
List *
sync_trigger_reverse_truncate_sql(const Migration *m, Oid relid)
{
	char *table = sql_relation(relid);

	return list_make2(
		psprintf("CREATE OR REPLACE TRIGGER \"" REVERSE_TRUNCATE_TRIGGER_NAME "\""
				 " BEFORE TRUNCATE ON %s FOR EACH STATEMENT"
				 " EXECUTE FUNCTION migrate_ext.sync_reverse_truncate('" INT64_FORMAT "')",
				 table, m->id),
		psprintf("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER \"" REVERSE_TRUNCATE_TRIGGER_NAME "\"",
				 table));
}

static void
run_all(List *statements)
{
	ListCell *cell;

	foreach (cell, statements)
		(void) sql_run("%s", (char *) lfirst(cell));
}

static void
make_truncate_trigger(Migration *m, Oid relid)
{
	if (!is_in_place(relid, REVERSE_TRUNCATE_TRIGGER_NAME, m->id))
		run_all(sync_trigger_reverse_truncate_sql(m, relid));
}

/*
 * See sync_trigger.h.  Locks target and leaves (ShareRowExclusiveLock) where
 * something is missing; what is there already is left alone.
 */
void
sync_trigger_prepare_reverse(Migration *m)
{
	List *leaves = relinfo_leaves(m->target);
	bool complete = is_in_place(m->target, REVERSE_TRIGGER_NAME, m->id);
	ListCell *cell;
	UserSwitch user;

	foreach (cell, leaves)
		complete = complete && is_in_place(lfirst_oid(cell), REVERSE_TRIGGER_NAME, m->id);
	if (!complete)
	{
		/*
		 * Made on the leaves as well, and on those that come later.  Looking for
		 * them evaluates what is constant in the partition key's expressions:
		 * as the owner, who may do all this himself.
		 */
		lock_queue_lock(m->target, ShareRowExclusiveLock);
		user_switch_owner(&user, relinfo_owner(m->target));
		run_all(sync_trigger_reverse_sql(m));
		user_switch_back(&user);
	}
	make_truncate_trigger(m, m->target);
	foreach (cell, leaves)
		make_truncate_trigger(m, lfirst_oid(cell));
	CommandCounterIncrement();
}

/* ------------------------------------------------------------------------
 * Checking
 * ------------------------------------------------------------------------
 */

/* See sync_trigger.h. */
TransactionId
sync_trigger_reverse_xmin(Oid relid)
{
	TriggerRow row;

	return relinfo_trigger(relid, REVERSE_TRIGGER_NAME, &row) ? row.xmin : InvalidTransactionId;
}

static bool
calls_function(TriggerRow *row, const char *name)
{
	List *qualified = list_make2(makeString("migrate_ext"), makeString(pstrdup(name)));

	return row->function == LookupFuncName(qualified, 0, NULL, true);
}

/* See sync_trigger.h. */
char *
sync_trigger_problem(Migration *m)
{
	bool reverse = m->state == STATE_SWAPPED;
	char wanted = reverse ? TRIGGER_DISABLED : TRIGGER_FIRES_ALWAYS;
	SyncMode mode = m->state >= STATE_LIVE ? SYNC_WRITE_THROUGH : SYNC_LOG;
	const char *table = get_rel_name(m->source);
	TriggerRow row;
	TriggerRow truncate;

	if (!relinfo_trigger(m->source, SYNC_TRIGGER_NAME, &row) || row.oid != m->trigger_oid)
		return psprintf("trigger \"%s\" on table \"%s\" was dropped", SYNC_TRIGGER_NAME, table);
	if (row.enabled != wanted)
		return psprintf("trigger \"%s\" on table \"%s\" was %s", SYNC_TRIGGER_NAME, table,
						row.enabled == TRIGGER_DISABLED ? "disabled" : "enabled in another way");
	if (row.xmin != m->trigger_xmin)
		return psprintf("trigger \"%s\" on table \"%s\" was changed, or disabled and enabled again",
						SYNC_TRIGGER_NAME, table);
	if (!calls_function(&row, mode_function(mode)))
		return psprintf("trigger \"%s\" on table \"%s\" calls another function", SYNC_TRIGGER_NAME,
						table);
	if (!relinfo_trigger(m->source, TRUNCATE_TRIGGER_NAME, &truncate) ||
		truncate.enabled != wanted || !calls_function(&truncate, "sync_truncate"))
		return psprintf("trigger \"%s\" on table \"%s\" was dropped or changed",
						TRUNCATE_TRIGGER_NAME, table);
	if (reverse && reverse_is_possible(m))
		return reverse_problem(m);
	return NULL;
}

/* ------------------------------------------------------------------------
 * Dropping
 * ------------------------------------------------------------------------
 */

static void
drop_trigger(Oid relid, const char *name)
{
	if (get_rel_name(relid) != NULL && OidIsValid(get_trigger_oid(relid, name, true)))
		(void) sql_run("DROP TRIGGER %s ON %s", quote_identifier(name), sql_relation(relid));
}

/*
 * A partition that somebody detached has lost the row trigger with it, but not
 * the one for TRUNCATE, which is its own.
 */
static void
drop_from_former_leaves(Migration *m)
{
	char *drop;

	while ((drop = sql_text("SELECT format('DROP TRIGGER %%I ON %%s', tgname, tgrelid::regclass)"
							" FROM pg_catalog.pg_trigger WHERE tgparentid = 0"
							" AND tgname IN ('" REVERSE_TRIGGER_NAME "',"
							" '" REVERSE_TRUNCATE_TRIGGER_NAME "')"
							" AND encode(tgargs, 'escape') = '" INT64_FORMAT "\\000' LIMIT 1",
							m->id)) != NULL)
	{
		(void) sql_run("%s", drop);
		CommandCounterIncrement();
	}
}

/* See sync_trigger.h.  Tables that are gone are passed over. */
void
sync_trigger_drop(Migration *m)
{
	List *leaves = NIL;
	ListCell *cell;

	drop_trigger(m->source, SYNC_TRIGGER_NAME);
	drop_trigger(m->source, TRUNCATE_TRIGGER_NAME);
	drop_trigger(m->source, STRAGGLER_TRIGGER_NAME);
	if (OidIsValid(m->target) && get_rel_name(m->target) != NULL)
	{
		drop_trigger(m->target, STRAGGLER_TRIGGER_NAME);
		drop_trigger(m->target, REVERSE_TRIGGER_NAME);
		drop_trigger(m->target, REVERSE_TRUNCATE_TRIGGER_NAME);
		leaves = relinfo_leaves(m->target);
	}
	foreach (cell, leaves)
		drop_trigger(lfirst_oid(cell), REVERSE_TRUNCATE_TRIGGER_NAME);
	CommandCounterIncrement();
	drop_from_former_leaves(m);
}
