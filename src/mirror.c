/*-------------------------------------------------------------------------
 *
 * mirror.c
 *	  Make the other side's row for an identity equal to this side's current
 *	  row: the one primitive of drain, write-through and reverse sync.
 *
 * Row images taken in a trigger may come in the wrong order: a user trigger
 * that sorts earlier and updates the same row again makes the later image come
 * first.  So an identity is all that is taken from outside, and the row is read
 * again here.  Mirroring may be done any number of times, in any order, and
 * always ends with what the front side has.
 *
 * This file opens and closes, and takes the calls.  A call deals with its own
 * group of identities and then with each that it had to move out of the way; how
 * is told in mirror_group.c.
 *
 * What lives how long: what is known of the tables, until one of them changes;
 * it holds nothing that a transaction would have to let go of.  Relations and
 * executor state, until mirror_rest(): their resource owner is a child of the
 * opener's, so that all of it can be let go of at once, whatever state an error
 * has left it in.  Found rows (which hold pins) live in a call.
 *
 * To find out what is to be known takes longer than to write a row.  So the
 * sync trigger keeps a mirror from one transaction to the next, where that is
 * safe: not where code of users has been planned or evaluated with it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "mirror_internal.h"
#include "miscadmin.h"
#include "run.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * Relations that some mirror has looked at in this session, and how often one
 * of them was changed since.  The callback may only mark.
 */
static HTAB *watched_relations = NULL;
static uint64 watched_changes = 0;

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */

static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || hash_search(watched_relations, &relid, HASH_FIND, NULL) != NULL)
		watched_changes++;
}

/* A mirror depends on this relation. */
void
watch_relation(Oid relid)
{
	if (watched_relations == NULL)
	{
		HASHCTL ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Oid);
		ctl.hcxt = CacheMemoryContext;
		watched_relations = hash_create("migrate_ext watched relations", 64, &ctl,
										HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	}
	(void) hash_search(watched_relations, &relid, HASH_ENTER, NULL);
}

static TupleDesc
copy_descriptor(Oid relid)
{
	Relation rel = table_open(relid, NoLock);
	TupleDesc desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));

	table_close(rel, NoLock);
	return desc;
}

static void
create_places(Mirror *mirror)
{
	HASHCTL ctl;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Place);
	ctl.hcxt = mirror->known_context;
	mirror->places =
		hash_create("migrate_ext places", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Open the back side's table (RowExclusiveLock); the front's gets AccessShareLock
 * while it is looked at (the caller has it locked anyway).
 */
static void
open_root(Mirror *mirror)
{
	MemoryContext old_context = MemoryContextSwitchTo(mirror->open_context);

	LockRelationOid(front_of(mirror->m, mirror->direction), AccessShareLock);
	mirror->back_root = table_open(back_of(mirror->m, mirror->direction), RowExclusiveLock);
	mirror->estate = CreateExecutorState();
	mirror->openings++;
	MemoryContextSwitchTo(old_context);
}

/* Find out what is to be known.  The tables are locked. */
static void
learn(Mirror *mirror)
{
	Migration *m = mirror->m;
	MemoryContext old_context = MemoryContextSwitchTo(mirror->known_context);

	mirror->generation = watched_changes; /* locked: now it stands still */
	mirror->source_desc = copy_descriptor(m->source);
	mirror->target_desc = copy_descriptor(m->target);
	slot_pool_init(&mirror->source_rows, mirror->source_desc, &TTSOpsVirtual);
	slot_pool_init(&mirror->target_rows, mirror->target_desc, &TTSOpsVirtual);
	changelog_columns(m->log, &mirror->log);
	if (!changelog_is_whole(&mirror->log))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("the change log of migration \"%s\" has lost a column", m->name)));
	create_places(mirror);
	map_open(mirror);
	MemoryContextSwitchTo(old_context);
}

/* Make what is known usable in this transaction. */
static void
prepare(Mirror *mirror)
{
	MemoryContext old_context = MemoryContextSwitchTo(mirror->open_context);

	map_prepare(mirror);
	MemoryContextSwitchTo(old_context);
	if (mirror->direction == DIRECTION_FORWARD)
		router_open(mirror);
	mirror->ready = true;
}

/*
 * Let go of everything that is open, in whatever state it is.  Locks are kept:
 * they protect what has been written.
 */
static void
close_tables(Mirror *mirror)
{
	ListCell *cell;

	mirror->ready = false;
	if (mirror->owner != NULL)
	{
		ResourceOwner owner = mirror->owner;

		mirror->owner = NULL;
		ResourceOwnerRelease(owner, RESOURCE_RELEASE_BEFORE_LOCKS, false, false);
		ResourceOwnerRelease(owner, RESOURCE_RELEASE_LOCKS, true, false);
		ResourceOwnerRelease(owner, RESOURCE_RELEASE_AFTER_LOCKS, false, false);
		ResourceOwnerDelete(owner);
	}
	foreach (cell, mirror->open_places)
		place_closed(lfirst(cell));
	mirror->open_places = NIL;
	mirror->forward = NULL;
	mirror->reverse = NULL;
	mirror->router = NULL;
	MemoryContextReset(mirror->open_context);
}

/* Forget what is known, too. */
static void
mirror_reset(Mirror *mirror)
{
	close_tables(mirror);
	MemoryContextReset(mirror->known_context);
	mirror->key_attrs = NULL;
	mirror->derived = NULL;
	mirror->places = NULL;
	mirror->broken = false;
}

/* Open everything (anew). An error leaves nothing open. */
void
mirror_reopen(Mirror *mirror)
{
	ResourceOwner save_owner = CurrentResourceOwner;
	MemoryContext old_context = CurrentMemoryContext;

	mirror_reset(mirror);
	watch_relation(mirror->m->source);
	watch_relation(mirror->m->target);
	watch_relation(mirror->m->log);
	mirror->owner = ResourceOwnerCreate(mirror->parent_owner, "migrate_ext mirror");
	CurrentResourceOwner = mirror->owner;
	PG_TRY();
	{
		open_root(mirror);
		learn(mirror);
		prepare(mirror);
	}
	PG_CATCH();
	{
		CurrentResourceOwner = save_owner;
		mirror_reset(mirror);
		PG_RE_THROW();
	}
	PG_END_TRY();
	CurrentResourceOwner = save_owner;
	MemoryContextSwitchTo(old_context);
}

/* See mirror.h.  The caller is the owner. */
Mirror *
mirror_open(Migration *m, Direction direction)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "migrate_ext mirror", ALLOCSET_DEFAULT_SIZES);
	Mirror *mirror = MemoryContextAllocZero(context, sizeof(Mirror));

	mirror->m = m;
	mirror->direction = direction;
	mirror->context = context;
	mirror->known_context =
		AllocSetContextCreate(context, "migrate_ext mirror", ALLOCSET_DEFAULT_SIZES);
	mirror->open_context =
		AllocSetContextCreate(context, "migrate_ext mirror tables", ALLOCSET_DEFAULT_SIZES);
	mirror->call_context =
		AllocSetContextCreate(context, "migrate_ext mirror call", ALLOCSET_DEFAULT_SIZES);
	mirror->parent_owner = CurrentResourceOwner;
	mirror_reopen(mirror);
	return mirror;
}

void
mirror_close(Mirror *mirror)
{
	MemoryContext context = mirror->context;

	mirror_reset(mirror);
	MemoryContextDelete(context);
}

/* A mirror that knows more tables than this is not kept. */
#define MAX_KEPT_PLACES 64

/* See mirror.h. */
bool
mirror_rest(Mirror *mirror)
{
	if (mirror_is_stale(mirror) || mirror->user_code ||
		hash_get_num_entries(mirror->places) > MAX_KEPT_PLACES)
		return false;
	close_tables(mirror);
	mirror->parent_owner = NULL;
	MemoryContextReset(mirror->call_context);
	return true;
}

/* See mirror.h.  No user's code is planned here: see mirror_rest(). */
bool
mirror_wake(Mirror *mirror)
{
	ResourceOwner save_owner = CurrentResourceOwner;

	/* whoever has it now may open it anew himself: the owner of before is gone */
	mirror->parent_owner = save_owner;
	if (mirror->generation != watched_changes)
		return false;
	mirror->owner = ResourceOwnerCreate(save_owner, "migrate_ext mirror");
	CurrentResourceOwner = mirror->owner;
	open_root(mirror);
	if (mirror->generation == watched_changes) /* it is locked now */
		prepare(mirror);
	CurrentResourceOwner = save_owner;
	return mirror->ready;
}

bool
mirror_is_stale(Mirror *mirror)
{
	return !mirror->ready || mirror->broken || mirror->generation != watched_changes;
}

/* An expression that is being guarded belongs to a call, or nearly so. */
bool
mirror_is_busy(Mirror *mirror)
{
	return mirror->busy || mirror_guard_depth > 0;
}

/* ------------------------------------------------------------------------
 * Calls
 * ------------------------------------------------------------------------
 */

bool
refuse(Call *call, MirrorRefusal *refusal, int sqlerrcode, const char *fmt, ...)
{
	MemoryContext old_context = MemoryContextSwitchTo(call->result_context);
	StringInfoData message;
	int needed;

	initStringInfo(&message);
	for (;;)
	{
		va_list args;

		va_start(args, fmt);
		needed = appendStringInfoVA(&message, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	refusal->sqlerrcode = sqlerrcode;
	refusal->message = message.data;
	MemoryContextSwitchTo(old_context);
	return false;
}

/* In CurrentMemoryContext. */
void
slot_pool_init(SlotPool *pool, TupleDesc desc, const TupleTableSlotOps *ops)
{
	pool->desc = desc;
	pool->ops = ops;
	pool->context = CurrentMemoryContext;
	pool->idle = NIL;
}

/* A slot for the time of the call, or until call_drop_slots(). */
TupleTableSlot *
call_slot(Call *call, SlotPool *pool)
{
	TupleTableSlot *slot;

	if (pool->idle != NIL)
	{
		slot = llast(pool->idle);
		pool->idle = list_delete_last(pool->idle);
	}
	else
	{
		MemoryContext old_context = MemoryContextSwitchTo(pool->context);

		slot = MakeSingleTupleTableSlot(pool->desc, pool->ops);
		MemoryContextSwitchTo(old_context);
	}
	call->slots = lappend(call->slots, slot);
	call->pools = lappend(call->pools, pool);
	return slot;
}

/* Give all of them back; none keeps a pin. */
void
call_drop_slots(Call *call)
{
	ListCell *slot_cell;
	ListCell *cell;

	forboth (slot_cell, call->slots, cell, call->pools)
	{
		SlotPool *pool = lfirst(cell);
		MemoryContext old_context = MemoryContextSwitchTo(pool->context);

		pool->idle = lappend(pool->idle, ExecClearTuple(lfirst(slot_cell)));
		MemoryContextSwitchTo(old_context);
	}
	list_free(call->slots);
	list_free(call->pools);
	call->slots = NIL;
	call->pools = NIL;
}

/*
 * Before code of users is evaluated: the settings that it may see are not the
 * writer's to choose.  A Run has pinned them already.
 */
void
call_pin_settings(Call *call)
{
	if (call->pinned || call->snapshot != NULL)
		return;
	call->guc_nestlevel = NewGUCNestLevel();
	call->pinned = true;
	pin_expression_settings();
}

void
call_unpin_settings(Call *call)
{
	if (call->pinned)
		AtEOXact_GUC(false, call->guc_nestlevel);
	call->pinned = false;
}

/* A front row as a row of the target's root, or of the source. */
TupleTableSlot *
front_in_root_format(Call *call, Row *row)
{
	TupleTableSlot *slot;

	if (row->place->to_root == NULL)
		return row->slot;
	slot = call_slot(call, &call->mirror->target_rows);
	return execute_attr_map_slot(row->place->to_root, row->slot, slot);
}

/* Keep for the caller that a displaced identity could not be put back. */
static void
report_displaced(Call *call, Subject *subject, MirrorRefusal *refusal)
{
	MemoryContext old_context = MemoryContextSwitchTo(call->result_context);
	Mirror *mirror = call->mirror;
	MirrorDisplaced *displaced = palloc(sizeof(MirrorDisplaced));
	int i;

	displaced->values = palloc0(mirror->log.natts * sizeof(Datum));
	displaced->isnull = palloc(mirror->log.natts * sizeof(bool));
	memset(displaced->isnull, true, mirror->log.natts * sizeof(bool));
	for (i = 0; i < mirror->log.nidentity; i++)
	{
		Form_pg_attribute att = TupleDescAttr(mirror->source_desc, mirror->log.attnums[i] - 1);

		displaced->values[i] = datumCopy(subject->source_values[i], att->attbyval, att->attlen);
		displaced->isnull[i] = false;
	}
	displaced->sqlerrcode = refusal->sqlerrcode;
	displaced->message = refusal->message;
	call->refusal->displaced = lappend(call->refusal->displaced, displaced);
	MemoryContextSwitchTo(old_context);
}

/* All of a call: its own group, then those displaced, each alone. */
static MirrorResult
mirror_subjects(Call *call)
{
	Mirror *mirror = call->mirror;
	List *group = list_copy(call->subjects);
	bool ok;
	ListCell *cell;

	if (mirror->user_code)
		call_pin_settings(call);
	foreach (cell, group)
		map_subject(call, lfirst(cell));
	ok = mirror_group(call, group, call->refusal);
	call->done = list_length(group);

	while (call->done < list_length(call->subjects))
	{
		Subject *subject = list_nth(call->subjects, call->done);
		MirrorRefusal refusal = {0};

		if (!mirror_group(call, list_make1(subject), &refusal))
			report_displaced(call, subject, &refusal);
		call->done++;
	}
	if (!ok)
		return MIRROR_REFUSED;
	return call->written ? MIRROR_WRITTEN : MIRROR_UNCHANGED;
}

/* After a call, whatever it came to. */
static void
finish_call(Call *call)
{
	Mirror *mirror = call->mirror;

	call_drop_slots(call);
	call_unpin_settings(call);
	if (mirror->direction == DIRECTION_REVERSE && call->snapshot == NULL)
		router_close(mirror);
	if (mirror->ready)
		ResetPerTupleExprContext(mirror->estate);
	MemoryContextReset(mirror->call_context);
	mirror->busy = false;
}

/*
 * Run a call whose subjects are filled in (in call_context).  After an error
 * nothing is cleaned up here: pins and settings go with the transaction, and
 * the mirror is opened anew next time.
 */
static MirrorResult
run_call(Call *call)
{
	Mirror *mirror = call->mirror;
	MemoryContext old_context = CurrentMemoryContext;
	MirrorResult result = MIRROR_REFUSED;

	call->result_context = old_context;
	memset(call->refusal, 0, sizeof(MirrorRefusal));
	mirror->busy = true;
	PG_TRY();
	{
		MemoryContextSwitchTo(mirror->call_context);
		result = mirror_subjects(call);
	}
	PG_CATCH();
	{
		mirror->busy = false;
		mirror->broken = true;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	finish_call(call);
	return result;
}

/*
 * Begin a call.  An expression that writes to the very table it is evaluated
 * for would come back here.
 */
static void
begin_call(Call *call)
{
	Mirror *mirror = call->mirror;

	if (mirror->busy)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("table \"%s\" is written while a row of it is carried over",
					get_rel_name(mirror->direction == DIRECTION_FORWARD ? mirror->m->source
																		: mirror->m->target)),
			 errdetail("An expression of migration \"%s\", of a check or of an index writes to it.",
					   mirror->m->name)));
	if (mirror_is_stale(mirror))
	{
		/* compiling an expression may evaluate parts of it */
		call_pin_settings(call);
		mirror_reopen(mirror);
	}
	MemoryContextReset(mirror->call_context);
}

static void
add_subject(Call *call, int nentries, const MirrorEntry *entries, bool all_leaves)
{
	MemoryContext old_context = MemoryContextSwitchTo(call->mirror->call_context);
	Subject *subject = palloc0(sizeof(Subject));

	subject->nentries = nentries;
	subject->entries = entries;
	subject->all_leaves = all_leaves;
	call->subjects = lappend(call->subjects, subject);
	MemoryContextSwitchTo(old_context);
}

/* One subject, of entries as arrays. */
static void
add_row(Call *call, int nentries, Datum **values, bool **isnull, bool all_leaves)
{
	MirrorEntry *entries =
		MemoryContextAllocZero(call->mirror->call_context, nentries * sizeof(MirrorEntry));
	int i;

	for (i = 0; i < nentries; i++)
	{
		entries[i].values = values[i];
		entries[i].isnull = isnull[i];
	}
	add_subject(call, nentries, entries, all_leaves);
}

/* See mirror.h. */
MirrorResult
mirror_row(Mirror *mirror, int nentries, Datum **values, bool **isnull, bool all_leaves,
		   Snapshot snapshot, MirrorRefusal *refusal)
{
	Call call = {.mirror = mirror, .snapshot = snapshot, .refusal = refusal};

	begin_call(&call);
	add_row(&call, nentries, values, isnull, all_leaves);
	return run_call(&call);
}

/* See mirror.h.  What can't be looked for (no index) stays. */
void
mirror_remove(Mirror *mirror, int nentries, Datum **values, bool **isnull, Snapshot snapshot)
{
	MirrorRefusal ignored;
	Call call = {.mirror = mirror, .snapshot = snapshot, .refusal = &ignored, .remove = true};

	Assert(mirror->direction == DIRECTION_FORWARD);
	begin_call(&call);
	add_row(&call, nentries, values, isnull, false);
	(void) run_call(&call);
}

bool
mirror_same_identity(Mirror *mirror, const MirrorEntry *a, const MirrorEntry *b)
{
	return same_source_identity(mirror, a->values, b->values);
}

/* See mirror.h. */
MirrorResult
mirror_change(Mirror *mirror, const MirrorEntry *old_entry, const MirrorEntry *new_entry,
			  Oid front_leaf, bool all_leaves, MirrorRefusal *refusal)
{
	Call call = {.mirror = mirror, .front_leaf = front_leaf, .refusal = refusal};
	MirrorEntry entries[2];
	int nentries = 0;

	begin_call(&call);
	if (old_entry != NULL)
		entries[nentries++] = *old_entry;
	if (new_entry != NULL)
		entries[nentries++] = *new_entry;
	if (nentries == 2 && !mirror_same_identity(mirror, old_entry, new_entry))
	{
		add_subject(&call, 1, &entries[0], all_leaves);
		add_subject(&call, 1, &entries[1], all_leaves);
	}
	else
		add_subject(&call, nentries, entries, all_leaves);
	return run_call(&call);
}

/* ------------------------------------------------------------------------
 * Statements of our own
 * ------------------------------------------------------------------------
 */

void
mirror_begin_statement(Mirror *mirror)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);

	/* what is deferred could not be fired as the owner, restricted as we are */
	immediate->deferred = false;
	AfterTriggerSetState(immediate);
	AfterTriggerBeginQuery();
}

/* Errors: what a foreign key demands.  The executor's state is the triggers' own. */
void
mirror_end_statement(Mirror *mirror)
{
	EState *estate = CreateExecutorState();

	AfterTriggerEndQuery(estate);
	ExecResetTupleTable(estate->es_tupleTable, false);
	ExecCloseResultRelations(estate);
	FreeExecutorState(estate);
}
