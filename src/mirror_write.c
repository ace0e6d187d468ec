/*-------------------------------------------------------------------------
 *
 * mirror_write.c
 *	  Writing a row of the back side, for the mirror.
 *
 * Writes go through the table access method and the index insertion of the
 * executor, as those of a logical replication worker do.  No trigger of the
 * back side fires and no privilege is asked for, with one exception: in
 * direction reverse the original's foreign key triggers are queued, into the
 * statement of the application that we are called from, so that what they
 * demand is enforced as it was before the swap, at the end of that statement
 * or where a constraint is deferred at its commit.  Rechecks of deferrable
 * unique constraints are queued in both directions; they find something only if
 * another transaction came between asking and writing.
 *
 * An existing row is updated in place and without locking it first, so that
 * another session waiting for it goes on with its new version.
 *
 * A row deleted because it stood in the way of a unique key, and put back
 * later in the same call, was updated as far as foreign keys are concerned: a
 * DELETE would cascade.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "compat.h"
#include "executor/executor.h"
#include "mirror_internal.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

/* ------------------------------------------------------------------------
 * Triggers
 * ------------------------------------------------------------------------
 */

static bool
keep_trigger(Trigger *trigger, Direction direction)
{
	if (!trigger->tgisinternal)
		return false;
	if (trigger->tgfoid == F_UNIQUE_KEY_RECHECK)
		return true;
	return direction == DIRECTION_REVERSE &&
		   RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_NONE;
}

/*
 * Take from a ResultRelInfo's own copy of the triggers all that must not fire.
 */
void
filter_triggers(ResultRelInfo *info, Direction direction)
{
	TriggerDesc *all = info->ri_TrigDesc;
	TriggerDesc *kept;
	int i;

	info->ri_TrigDesc = NULL;
	if (all == NULL)
		return;
	kept = palloc0(sizeof(TriggerDesc));
	kept->triggers = palloc(all->numtriggers * sizeof(Trigger));
	for (i = 0; i < all->numtriggers; i++)
	{
		Trigger *trigger = &all->triggers[i];

		if (!keep_trigger(trigger, direction))
			continue;
		kept->triggers[kept->numtriggers++] = *trigger;
		kept->trig_insert_after_row |= TRIGGER_FOR_INSERT(trigger->tgtype);
		kept->trig_update_after_row |= TRIGGER_FOR_UPDATE(trigger->tgtype);
		kept->trig_delete_after_row |= TRIGGER_FOR_DELETE(trigger->tgtype);
	}
	if (kept->numtriggers > 0)
		info->ri_TrigDesc = kept;
}

/* The executor keeps the old row's slot; it must not keep a pin. */
static void
clear_trigger_slots(ResultRelInfo *info)
{
	if (info->ri_TrigOldSlot != NULL)
		ExecClearTuple(info->ri_TrigOldSlot);
	if (info->ri_TrigNewSlot != NULL)
		ExecClearTuple(info->ri_TrigNewSlot);
}

static void
queue_update(Mirror *mirror, Place *place, ItemPointer old, TupleTableSlot *slot, List *recheck)
{
	ExecARUpdateTriggers(mirror->estate, place->info, NULL, NULL, old, NULL, slot, recheck, NULL,
						 false);
	clear_trigger_slots(place->info);
}

static void
queue_delete(Mirror *mirror, Place *place, ItemPointer old)
{
	ExecARDeleteTriggers(mirror->estate, place->info, old, NULL, NULL, false);
	clear_trigger_slots(place->info);
}

/* ------------------------------------------------------------------------
 * Checks
 * ------------------------------------------------------------------------
 */

static ExprState **
compile_checks(Mirror *mirror, TupleConstr *constr)
{
	MemoryContext old_context = MemoryContextSwitchTo(mirror->estate->es_query_cxt);
	ExprState **checks = palloc(constr->num_check * sizeof(ExprState *));
	int i;

	for (i = 0; i < constr->num_check; i++)
		checks[i] = prepare_check(&constr->check[i], mirror->estate);
	MemoryContextSwitchTo(old_context);
	return checks;
}

/* Guarded, where the target is the user's own: the table's CHECKs. */
static bool
evaluate_checks(Call *call, void *arg, MirrorRefusal *refusal)
{
	Wanted *wanted = arg;
	Mirror *mirror = call->mirror;
	Place *place = wanted->place;
	TupleConstr *constr = place->desc->constr;
	ExprContext *econtext = GetPerTupleExprContext(mirror->estate);
	int i;

	if (place->checks == NULL)
		place->checks = compile_checks(mirror, constr);
	econtext->ecxt_scantuple = wanted->slot;
	for (i = 0; i < constr->num_check; i++)
	{
		if (!ExecCheck(place->checks[i], econtext))
			return refuse(call, refusal, ERRCODE_CHECK_VIOLATION,
						  "new row for relation \"%s\" violates check constraint \"%s\"",
						  RelationGetRelationName(place->rel), constr->check[i].ccname);
	}
	return true;
}

static bool
check_not_null(Call *call, Wanted *wanted, MirrorRefusal *refusal)
{
	TupleDesc desc = wanted->place->desc;
	int i;

	if (desc->constr == NULL || !desc->constr->has_not_null)
		return true;
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attnotnull && wanted->slot->tts_isnull[i])
			return refuse(
				call, refusal, ERRCODE_NOT_NULL_VIOLATION,
				"null value in column \"%s\" of relation \"%s\" violates not-null constraint",
				NameStr(att->attname), RelationGetRelationName(wanted->place->rel));
	}
	return true;
}

/*
 * Would the back side's table take this row?  Opens the table.  NOT VALID
 * constraints count, as they do for any new row.
 */
bool
check_row(Call *call, Wanted *wanted, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	Place *place = wanted->place;

	if (!place_open(mirror, place))
		return refuse(call, refusal, ERRCODE_UNDEFINED_TABLE, "the table for the row is gone");
	if (!check_not_null(call, wanted, refusal))
		return false;
	if (place->user_code)
		call_pin_settings(call);
	if (place->desc->constr == NULL || place->desc->constr->num_check == 0)
		return true;
	return run_guarded(call, mirror->map_risky || !mirror->m->made_target, evaluate_checks, wanted,
					   refusal);
}

/* ------------------------------------------------------------------------
 * Writes
 * ------------------------------------------------------------------------
 */

static HeapTuple
stored_tuple(TupleTableSlot *slot)
{
	bool should_free;
	HeapTuple tuple = ExecFetchSlotHeapTuple(slot, false, &should_free);

	Assert(!should_free);
	return tuple;
}

/*
 * A row that our own transaction has written in this very command can't be
 * written again: begin a new one.  Only then, since each pair of commands that
 * wrote and wrote again takes memory until the transaction ends.
 */
static void
begin_new_command(TupleTableSlot *slot)
{
	HeapTuple tuple = stored_tuple(slot);

	if (TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)) &&
		HeapTupleHeaderGetCmin(tuple->t_data) >= GetCurrentCommandId(false))
		CommandCounterIncrement();
}

/* False: somebody else has changed the row meanwhile. */
static bool
is_written(TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return true;
		case TM_SelfModified:
		case TM_Updated:
		case TM_Deleted:
			return false;
		default:
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("unrecognized result %d of writing a row", result)));
			return false;
	}
}

static bool
delete_tuple(Call *call, Row *row, bool moves)
{
	TM_FailureData failure;

	begin_new_command(row->slot);
	if (!is_written(table_tuple_delete(row->place->rel, &row->slot->tts_tid,
									   GetCurrentCommandId(true), InvalidSnapshot, InvalidSnapshot,
									   true, &failure, moves)))
		return false;
	call->written = true;
	return true;
}

/*
 * Delete a row.  moves: it goes to another leaf, which a session that waits
 * for it shall be told.  False: look again, it has been changed.
 */
bool
delete_row(Call *call, Row *row, bool moves)
{
	if (!place_open(call->mirror, row->place) || !delete_tuple(call, row, moves))
		return false;
	queue_delete(call->mirror, row->place, &row->slot->tts_tid);
	return true;
}

/*
 * Delete a row that is in the way; its subject joins the call.
 */
bool
displace_row(Call *call, Row *row)
{
	Subject *subject = row->subject;

	if (!delete_tuple(call, row, false))
		return false;
	subject->displaced = true;
	subject->displaced_tid = row->slot->tts_tid;
	call->subjects = lappend(call->subjects, subject);
	return true;
}

/*
 * A displaced row that doesn't come back was deleted.
 */
void
finish_displaced(Call *call, Subject *subject)
{
	Mirror *mirror = call->mirror;
	Place *place;

	if (mirror->direction == DIRECTION_FORWARD)
		return;
	place = place_get(mirror, mirror->m->source);
	if (place != NULL && place_open(mirror, place))
		queue_delete(mirror, place, &subject->displaced_tid);
}

/*
 * Tell each index whether the update changes it: an index that it doesn't
 * change may clear away dead entries of earlier versions.  To look for them
 * takes long, and a row as the copy has made it has none.
 */
static void
hint_indexes(Wanted *wanted)
{
	ResultRelInfo *result = wanted->place->info;
	bool had_versions = (stored_tuple(wanted->old->slot)->t_data->t_infomask & HEAP_UPDATED) != 0;
	int i;
	int j;

	for (i = 0; i < result->ri_NumIndices; i++)
	{
		IndexInfo *info = result->ri_IndexRelationInfo[i];

		info->ii_CheckedUnchanged = true;
		info->ii_IndexUnchanged = had_versions && info->ii_Expressions == NIL;
		for (j = 0; j < info->ii_NumIndexKeyAttrs && info->ii_IndexUnchanged; j++)
			info->ii_IndexUnchanged = !bms_is_member(
				info->ii_IndexAttrNumbers[j] - FirstLowInvalidHeapAttributeNumber, wanted->changed);
	}
}

/* Update wanted->old in place.  False: look again, it has been changed. */
bool
update_row(Call *call, Wanted *wanted)
{
	Mirror *mirror = call->mirror;
	Place *place = wanted->place;
	ItemPointerData old = wanted->old->slot->tts_tid;
	TM_FailureData failure;
	LockTupleMode lockmode;
	TU_UpdateIndexes update_indexes;
	List *recheck = NIL;

	begin_new_command(wanted->old->slot);
	if (!is_written(table_tuple_update(place->rel, &old, wanted->slot, GetCurrentCommandId(true),
									   InvalidSnapshot, InvalidSnapshot, true, &failure, &lockmode,
									   &update_indexes)))
		return false;
	if (update_indexes != TU_None && place->info->ri_NumIndices > 0)
	{
		hint_indexes(wanted);
		recheck = ExecInsertIndexTuples(place->info, wanted->slot, mirror->estate, true, false,
										NULL, NIL, update_indexes == TU_Summarizing);
		index_inserts_end(place->info);
	}
	call->written = true;
	queue_update(mirror, place, &old, wanted->slot, recheck);
	return true;
}

/*
 * Insert a row.  23505 if another transaction has written the same key since
 * we asked: in direction reverse this is how two inserts of one identity into
 * two leaves meet.
 */
void
insert_row(Call *call, Wanted *wanted)
{
	Mirror *mirror = call->mirror;
	Place *place = wanted->place;
	Subject *subject = wanted->subject;
	List *recheck = NIL;

	table_tuple_insert(place->rel, wanted->slot, GetCurrentCommandId(true), 0, NULL);
	if (place->info->ri_NumIndices > 0)
	{
		recheck = ExecInsertIndexTuples(place->info, wanted->slot, mirror->estate, false, false,
										NULL, NIL, false);
		index_inserts_end(place->info);
	}
	call->written = true;
	if (subject->displaced && mirror->direction == DIRECTION_REVERSE)
		queue_update(mirror, place, &subject->displaced_tid, wanted->slot, recheck);
	else
	{
		ExecARInsertTriggers(mirror->estate, place->info, wanted->slot, recheck, NULL);
		clear_trigger_slots(place->info);
	}
}
