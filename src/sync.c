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
 * What is open (mirror, log) stays so until the transaction ends, under a
 * resource owner below the transaction's, not the statement's or the
 * savepoint's: an UPDATE of 1,000 rows opens its tables once.  It is let go of
 *
 *	 - before the commit (or PREPARE), while that is still possible;
 *	 - when the transaction aborts, together with everything else;
 *	 - when a savepoint is rolled back: a partition made after it is gone;
 *	 - by sync_release(), before DDL of ours.
 *
 * The front side is never kept open: BEGIN; UPDATE t; ALTER TABLE t ...; must
 * go on working.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog.h"
#include "changelog.h"
#include "debug_point.h"
#include "errors.h"
#include "executor/executor.h"
#include "mirror.h"
#include "miscadmin.h"
#include "run.h"
#include "sync.h"
#include "sync_internal.h"
#include "sync_trigger.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(migrate_ext_sync_log);
PG_FUNCTION_INFO_V1(migrate_ext_sync_write_through);
PG_FUNCTION_INFO_V1(migrate_ext_sync_reverse);

/* What is open in this transaction for a migration. */
typedef struct SyncOpen
{
	int64 migration_id;
	Direction direction;
	MemoryContext context;
	ResourceOwner owner;
	ChangeLog *log;		/* NULL: not open */
	Mirror *mirror;		/* NULL: not open, or not to be opened */
	bool mirror_failed; /* everything is logged instead */
	bool marked;		/* the copy has been told to start over */
} SyncOpen;

/* In TopTransactionContext. */
static List *open_list = NIL;

/* A subtransaction of our own that is ending must not close what it opens. */
static bool opening = false;

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */

static SyncOpen *
get_open(SyncTable *table)
{
	MemoryContext old_context;
	SyncOpen *open;
	ListCell *cell;

	foreach (cell, open_list)
	{
		open = lfirst(cell);
		if (open->migration_id == table->migration_id && open->direction == table->direction)
			return open;
	}
	old_context = MemoryContextSwitchTo(TopTransactionContext);
	open = palloc0(sizeof(SyncOpen));
	open->migration_id = table->migration_id;
	open->direction = table->direction;
	open->context =
		AllocSetContextCreate(TopTransactionContext, "migrate_ext sync", ALLOCSET_DEFAULT_SIZES);
	open->owner = ResourceOwnerCreate(TopTransactionResourceOwner, "migrate_ext sync");
	open_list = lappend(open_list, open);
	MemoryContextSwitchTo(old_context);
	return open;
}

/* Close all of it, whatever an error has left half-way.  Locks stay. */
static void
close_open(SyncOpen *open)
{
	open_list = list_delete_ptr(open_list, open);
	if (open->mirror != NULL)
		mirror_close(open->mirror);
	ResourceOwnerRelease(open->owner, RESOURCE_RELEASE_BEFORE_LOCKS, false, false);
	ResourceOwnerRelease(open->owner, RESOURCE_RELEASE_LOCKS, true, false);
	ResourceOwnerRelease(open->owner, RESOURCE_RELEASE_AFTER_LOCKS, false, false);
	ResourceOwnerDelete(open->owner);
	MemoryContextDelete(open->context);
	pfree(open);
}

static void
check_not_busy(SyncOpen *open)
{
	if (open->mirror != NULL && mirror_is_busy(open->mirror))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a table of a migration is changed while a row of it is carried over")));
}

void
sync_release_migration(int64 migration_id)
{
	ListCell *cell;

	foreach (cell, list_copy(open_list))
	{
		SyncOpen *open = lfirst(cell);

		if (open->migration_id != migration_id)
			continue;
		check_not_busy(open);
		close_open(open);
	}
}

void
sync_release(void)
{
	ListCell *cell;

	foreach (cell, open_list)
		check_not_busy(lfirst(cell));
	while (open_list != NIL)
		close_open(linitial(open_list));
}

static void
transaction_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
			while (open_list != NIL)
				close_open(linitial(open_list));
			break;
		default:
			/* memory and resources go with the transaction */
			open_list = NIL;
			opening = false;
			mirror_forget();
			break;
	}
}

/*
 * A savepoint is rolled back.  Where that is part of a call under way (a
 * function of a user's caught an error), the call goes on.
 */
static void
subtransaction_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
						void *arg)
{
	ListCell *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB || opening)
		return;
	foreach (cell, list_copy(open_list))
	{
		SyncOpen *open = lfirst(cell);

		if (open->mirror == NULL || !mirror_is_busy(open->mirror))
			close_open(open);
	}
}

void
sync_init(void)
{
	RegisterXactCallback(transaction_callback, NULL);
	RegisterSubXactCallback(subtransaction_callback, NULL);
	sync_cache_init();
}

/* ------------------------------------------------------------------------
 * Logging
 * ------------------------------------------------------------------------
 */

/*
 * Append an entry.  Where the log's columns no longer fit, nothing may be put
 * there: the change of the source's type shows at the next batch, and a copy
 * under way is told to start over.
 */
static void
log_entry(SyncTable *table, SyncOpen *open, Datum *values, bool *isnull)
{
	if (!table->log_fits)
	{
		sync_warn(table, "The type of a key column has changed.");
		if (!open->marked)
			truncation_mark(table->migration_id);
		open->marked = true;
		return;
	}
	if (open->log == NULL)
	{
		ResourceOwner save_owner = CurrentResourceOwner;
		MemoryContext old_context = MemoryContextSwitchTo(open->context);

		CurrentResourceOwner = open->owner;
		open->log = changelog_open(table->m->log);
		CurrentResourceOwner = save_owner;
		MemoryContextSwitchTo(old_context);
	}
	if (open->log == NULL)
		sync_warn(table, "The change log has been dropped.");
	else
		changelog_append(open->log, values, isnull);
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
	SyncOpen *open = get_open(table);
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

/* Errors of opening that are the session's own business, not the tables'. */
static bool
must_reach_session(int sqlerrcode)
{
	ErrorKind kind = error_kind(sqlerrcode);

	return kind == ERROR_AGAIN || kind == ERROR_SERVER;
}

/*
 * In PG_CATCH: the tables don't fit any more.  From now on, in this
 * transaction, everything is logged.
 */
static void
catch_opening(SyncTable *table, SyncOpen *open, MemoryContext context, ResourceOwner owner)
{
	ErrorData *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	opening = false;
	if (must_reach_session(error->sqlerrcode))
		ReThrowError(error);
	open->mirror_failed = true;
	ereport(DEBUG1, (errmsg("migrate_ext logs changes of migration \"%s\": %s", table->m->name,
							error->message)));
	FreeErrorData(error);
}

/*
 * The mirror, open and up to date; NULL if it can't be opened.  In a
 * subtransaction, once a transaction: that a column is missing on the other
 * side must not fail the application's write.
 */
static Mirror *
get_mirror(SyncTable *table, SyncOpen *open)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	UserSwitch user;

	if (open->mirror != NULL && mirror_is_stale(open->mirror) && !mirror_is_busy(open->mirror))
	{
		mirror_close(open->mirror);
		open->mirror = NULL;
	}
	if (open->mirror != NULL || open->mirror_failed)
		return open->mirror;

	BeginInternalSubTransaction(NULL);
	opening = true;
	PG_TRY();
	{
		user_switch_owner(&user, table->m->owner);
		MemoryContextSwitchTo(open->context);
		CurrentResourceOwner = open->owner;
		open->mirror = mirror_open(table->m, table->direction);
		user_switch_back(&user);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		opening = false;
	}
	PG_CATCH();
	{
		catch_opening(table, open, context, owner);
	}
	PG_END_TRY();
	return open->mirror;
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
	SyncOpen *open = get_open(table);
	Mirror *mirror = get_mirror(table, open);
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
