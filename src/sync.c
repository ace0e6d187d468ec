/*-------------------------------------------------------------------------
 *
 * sync.c
 *	  The sync trigger: what happens when a row of the application's table was
 *	  written.
 *
 *	  sync_log				the identity goes to the change log
 *	  sync_write_through	the target is written, in the writer's transaction
 *	  sync_reverse			after the swap: the original is written; dormant
 *							before it
 *
 * They fire AFTER, for each row, always (session_replication_role does not
 * matter), first of all triggers.  The application's write must not fail
 * because of the other table: what can't be written there goes to the change
 * log, and is drained or shown as failed later.
 *
 * The trigger acts as the table's owner, restricted: expressions of the owner's
 * must not run with the rights of whoever writes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "batch.h"
#include "catalog.h"
#include "changelog.h"
#include "debug_point.h"
#include "executor/executor.h"
#include "mirror.h"
#include "miscadmin.h"
#include "sync_internal.h"
#include "sync_trigger.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(migrate_ext_sync_log);
PG_FUNCTION_INFO_V1(migrate_ext_sync_write_through);
PG_FUNCTION_INFO_V1(migrate_ext_sync_reverse);

/* ------------------------------------------------------------------------
 * Logging
 * ------------------------------------------------------------------------
 */

/*
 * The log has grown: is anybody there to drain it?  No worker may be left to ask, so it
 * is asked here, at few of the entries.  Without a NOTIFY: the application could not
 * prepare its transaction after one.
 */
static void
warn_if_undrained(SyncTable *table)
{
	Migration *m = catalog_load_latest(table->migration_id);
	const char *why;

	if (m == NULL || (!m->paused && leader_pid(m->id) != 0))
		return;
	why = m->paused ? "it is paused" : "no process is at work on it";
	event_add_silently(m, "undrained",
					   psprintf("the change log grows and nobody drains it: %s", why));
	ereport(LOG,
			(errmsg("the change log of migration \"%s\" grows and nobody drains it", m->name),
			 errdetail("The migration's state is %s; %s.", state_name(m->state), why),
			 errhint("SELECT migrate_ext.resume(%s), or end it by CALL migrate_ext.cancel(%s).",
					 quote_literal_cstr(m->name), quote_literal_cstr(m->name))));
}

/*
 * Append an entry.  Where the log's columns no longer fit, nothing may be put
 * there: the change of the source's type shows at the next batch, and a copy
 * under way is told to start over.
 */
static void
log_entry(SyncTable *table, SyncOpen *open, Datum *values, bool *isnull)
{
	ChangeLog *log;

	if (!table->log_fits)
	{
		sync_warn(table, "The type of a key column has changed.");
		if (!open->marked)
			truncation_mark(table->migration_id);
		open->marked = true;
		return;
	}
	log = sync_open_log(table, open);
	if (log == NULL)
		sync_warn(table, "The change log has been dropped.");
	else if (changelog_append(log, values, isnull))
		warn_if_undrained(table);
}

/* The entry of a row, by name.  False: a column of the key is not there. */
static bool
read_entry(SyncTable *table, TupleTableSlot *slot, MirrorEntry *entry)
{
	int i;

	entry->values = palloc0(table->columns.natts * sizeof(Datum));
	entry->isnull = palloc(table->columns.natts * sizeof(bool));
	for (i = 0; i < table->columns.natts; i++)
	{
		entry->isnull[i] = true;
		if (table->attnums[i] > 0)
			entry->values[i] = slot_getattr(slot, table->attnums[i], &entry->isnull[i]);
		if (entry->isnull[i] && i < table->columns.nidentity)
			return false;
	}
	return true;
}

/* The rows that a trigger call brings; NULL where there is none. */
static TupleTableSlot *
old_row(TriggerData *trigger)
{
	return TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? NULL : trigger->tg_trigslot;
}

static TupleTableSlot *
new_row(TriggerData *trigger)
{
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return trigger->tg_newslot;
	return TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? trigger->tg_trigslot : NULL;
}

static bool
is_identity_changed(SyncTable *table, TupleTableSlot *old, TupleTableSlot *new)
{
	int i;

	for (i = 0; i < table->columns.nidentity; i++)
	{
		AttrNumber attnum = table->attnums[i];
		Form_pg_attribute att = TupleDescAttr(old->tts_tupleDescriptor, attnum - 1);
		bool old_isnull;
		bool new_isnull;
		Datum old_value = slot_getattr(old, attnum, &old_isnull);
		Datum new_value = slot_getattr(new, attnum, &new_isnull);

		if (old_isnull != new_isnull ||
			(!old_isnull && !datum_image_eq(old_value, new_value, att->attbyval, att->attlen)))
			return true;
	}
	return false;
}

/* Mode log: the OLD identity and its place; the NEW one where it is another. */
static void
log_change(SyncTable *table, TriggerData *trigger)
{
	SyncOpen *open = sync_open(table);
	TupleTableSlot *old = old_row(trigger);
	TupleTableSlot *new = new_row(trigger);
	MirrorEntry entry = {0};

	if (!table->log_fits)
	{
		log_entry(table, open, NULL, NULL);
		return;
	}
	if (old != NULL && read_entry(table, old, &entry))
		log_entry(table, open, entry.values, entry.isnull);
	if (new != NULL && (old == NULL || is_identity_changed(table, old, new)) &&
		read_entry(table, new, &entry))
		log_entry(table, open, entry.values, entry.isnull);
}

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------
 */

/* Act as the owner; expressions of users get pinned settings from the mirror. */
static void
become_owner(Migration *m, Oid *userid, int *sec_context)
{
	GetUserIdAndSecContext(userid, sec_context);
	SetUserIdAndSecContext(m->owner, *sec_context | SECURITY_LOCAL_USERID_CHANGE |
										 SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
}

/*
 * Log what could not be written, and those that were moved out of the way.  Of
 * an UPDATE the OLD entry will do, unless it changed the identity.
 */
static void
log_refused(SyncTable *table, SyncOpen *open, MirrorResult result, MirrorEntry *old,
			MirrorEntry *new, MirrorRefusal *refusal)
{
	ListCell *cell;

	if (result == MIRROR_REFUSED)
	{
		if (old != NULL)
			log_entry(table, open, old->values, old->isnull);
		if (new != NULL && (old == NULL || !mirror_same_identity(open->mirror, old, new)))
			log_entry(table, open, new->values, new->isnull);
	}
	foreach (cell, refusal->displaced)
	{
		MirrorDisplaced *displaced = lfirst(cell);

		log_entry(table, open, displaced->values, displaced->isnull);
	}
}

/*
 * The entry of a row.  Direction reverse: a key that the original can't hold
 * can't be logged either, as the log has the original's types.  It goes to
 * failed_rows at once, where it keeps undo from losing the row, until the row
 * is gone.
 */
static MirrorEntry *
entry_of(SyncTable *table, Mirror *mirror, TriggerData *trigger, TupleTableSlot *slot, bool is_new,
		 MirrorEntry *entry)
{
	MirrorRefusal refusal = {0};
	Jsonb *identity;

	if (slot == NULL)
		return NULL;
	if (mirror_entry(mirror, trigger->tg_relation, slot, entry, &refusal))
	{
		if (is_new && table->direction == DIRECTION_FORWARD)
		{
			entry->front = trigger->tg_relation;
			entry->slot = slot;
		}
		return entry;
	}
	identity = mirror_identity(mirror, trigger->tg_relation, slot);
	if (is_new)
		failed_row_add(table->migration_id, table->direction, identity, refusal.sqlerrcode,
					   refusal.message);
	else
		failed_row_remove(table->migration_id, identity);
	return NULL;
}

/* Without a mirror, all that can be done is to log. */
static void
log_blindly(SyncTable *table, SyncOpen *open, TriggerData *trigger)
{
	TupleTableSlot *rows[2] = {old_row(trigger), new_row(trigger)};
	MirrorEntry entry;
	int i;

	for (i = 0; i < 2; i++)
	{
		if (rows[i] == NULL)
			continue;
		if (table->log_fits && !read_entry(table, rows[i], &entry))
			sync_warn(table, "The key of its rows can't be told.");
		else
			log_entry(table, open, entry.values, entry.isnull);
	}
}

/* Modes write-through and reverse. */
static void
write_change(SyncTable *table, TriggerData *trigger)
{
	bool reverse = table->direction == DIRECTION_REVERSE;
	SyncOpen *open = sync_open(table);
	Mirror *mirror = sync_open_mirror(table, open);
	MirrorEntry entries[2];
	MirrorEntry *old;
	MirrorEntry *new;
	MirrorRefusal refusal = {0};
	MirrorResult result;
	Oid userid;
	int sec_context;

	if (mirror == NULL)
	{
		log_blindly(table, open, trigger);
		return;
	}
	ME_DEBUG_POINT("sync_before_write");
	become_owner(table->m, &userid, &sec_context);
	old = entry_of(table, mirror, trigger, old_row(trigger), false, &entries[0]);
	new = entry_of(table, mirror, trigger, new_row(trigger), true, &entries[1]);
	if (old != NULL || new != NULL)
	{
		/* a row that an UPDATE moves to another partition is deleted from this one */
		bool moved = reverse && TRIGGER_FIRED_BY_DELETE(trigger->tg_event) &&
					 HeapTupleHeaderIndicatesMovedPartitions(trigger->tg_trigtuple->t_data);

		result = mirror_change(mirror, old, new,
							   reverse ? RelationGetRelid(trigger->tg_relation) : InvalidOid, moved,
							   &refusal);
		log_refused(table, open, result, old, new, &refusal);
	}
	SetUserIdAndSecContext(userid, sec_context);
}

/*
 * Is the target what the application writes to?  Told by the source's trigger,
 * in a catalog field, so that it holds whatever the writer's snapshot.
 */
static bool
is_reverse_in_force(SyncTable *table)
{
	Relation source = try_table_open(table->m->source, RowExclusiveLock);
	bool result;

	if (source == NULL)
	{
		sync_warn(table, "The other table of the migration has been dropped.");
		return false;
	}
	result = !sync_trigger_is_forward(source);
	table_close(source, NoLock);
	return result;
}

/*
 * The target was written, and is not what the application uses.  That is the
 * writer's own business, unless the tables were swapped back under this very
 * statement, one that names a partition and so waited only here: its rows would
 * be in none but the table that nobody reads any more.
 */
void
sync_check_late(SyncTable *table)
{
	Migration *m = table->valid ? table->m : catalog_load_latest(table->migration_id);

	if (m != NULL && m->state == STATE_LIVE && TransactionIdIsNormal(m->trigger_xmin) &&
		XidInMVCCSnapshot(m->trigger_xmin, GetActiveSnapshot()))
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("could not serialize access due to a swap of tables"),
						errdetail("The partitioned table of migration \"%s\" was swapped back "
								  "while this statement wrote to partition \"%s\".",
								  m->name, get_rel_name(table->relid)),
						errhint("Write to the table, not to a partition of it.")));
}

/* ------------------------------------------------------------------------
 * Entry points
 * ------------------------------------------------------------------------
 */

Datum
migrate_ext_sync_log(PG_FUNCTION_ARGS)
{
	SyncTable *table = sync_table(fcinfo, DIRECTION_FORWARD, true);

	if (table != NULL)
		log_change(table, (TriggerData *) fcinfo->context);
	return PointerGetDatum(NULL);
}

Datum
migrate_ext_sync_write_through(PG_FUNCTION_ARGS)
{
	SyncTable *table = sync_table(fcinfo, DIRECTION_FORWARD, true);

	if (table != NULL)
		write_change(table, (TriggerData *) fcinfo->context);
	return PointerGetDatum(NULL);
}

Datum
migrate_ext_sync_reverse(PG_FUNCTION_ARGS)
{
	SyncTable *table = sync_table(fcinfo, DIRECTION_REVERSE, true);

	if (table == NULL)
		return PointerGetDatum(NULL);
	if (is_reverse_in_force(table))
		write_change(table, (TriggerData *) fcinfo->context);
	else
		sync_check_late(table);
	return PointerGetDatum(NULL);
}
