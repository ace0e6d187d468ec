/*-------------------------------------------------------------------------
 *
 * mirror_map.c
 *	  From one side's columns to the other's, for the mirror: entries of the
 *	  log, whole rows, and rows of the front side to entries.
 *
 * From an entry alone come the identity in the target's types and the leaf that
 * the row had then.  A whole row is carried by columns_eval().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "mirror_internal.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/rel.h"

/*
 * Does a source's row lack its key?  Then what its key is derived from decides
 * where the target's row stands, and that may have changed since: anywhere.
 */
bool
map_lacks_key(Mirror *mirror, TupleTableSlot *source_row)
{
	int attnum = -1;

	while ((attnum = bms_next_member(mirror->derived, attnum)) >= 0)
	{
		if (slot_attisnull(source_row, attnum))
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------------
 * Entries
 * ------------------------------------------------------------------------
 */

/* Put an entry into the slot of a source row, all other columns NULL. */
static void
store_entry(Mirror *mirror, const MirrorEntry *entry)
{
	TupleTableSlot *slot = mirror->entry_slot;
	int i;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (i = 0; i < mirror->log.natts; i++)
	{
		slot->tts_values[mirror->log.attnums[i] - 1] = entry->values[i];
		slot->tts_isnull[mirror->log.attnums[i] - 1] = entry->isnull[i];
	}
	ExecStoreVirtualTuple(slot);
}

/* One column of the target's row, from a (perhaps partial) source row. */
static Datum
map_column(Mirror *mirror, int i, TupleTableSlot *source, bool *isnull)
{
	ColumnEval *eval = mirror->forward;
	ExprContext *econtext = GetPerTupleExprContext(mirror->estate);

	if (eval->map->from_attnum[i] > 0)
		return slot_getattr(source, eval->map->from_attnum[i], isnull);
	econtext->ecxt_scantuple = source;
	return ExecEvalExprSwitchContext(eval->states[i], econtext, isnull);
}

typedef struct LeafArg
{
	TupleTableSlot *source;
	Oid leaf;
} LeafArg;

/* Guarded: the leaf of a source row of which an entry's columns are there. */
static bool
route_source_row(Call *call, void *arg, MirrorRefusal *refusal)
{
	LeafArg *leaf = arg;
	Mirror *mirror = call->mirror;
	TupleTableSlot *slot = mirror->key_slot;
	int i = -1;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	while ((i = bms_next_member(mirror->key_attrs, i)) >= 0)
		slot->tts_values[i] = map_column(mirror, i, leaf->source, &slot->tts_isnull[i]);
	ExecStoreVirtualTuple(slot);
	if (mirror->router == NULL)
		router_open(mirror);
	leaf->leaf = router_route(mirror->router, slot);
	return true;
}

/* InvalidOid: no leaf takes it, or its columns never made a row of the target. */
static Oid
leaf_of_source_row(Call *call, TupleTableSlot *source)
{
	LeafArg arg = {source, InvalidOid};
	MirrorRefusal ignored = {0};

	(void) run_guarded(call, call->mirror->entry_risky || map_lacks_key(call->mirror, source),
					   route_source_row, &arg, &ignored);
	return arg.leaf;
}

/* Values that outlive the mirror's reset and the row they came from. */
static Datum
keep_value(Datum value, Form_pg_attribute att)
{
	if (att->attlen == -1)
		return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	return datumCopy(value, att->attbyval, att->attlen);
}

/* Guarded: the identity in the target's types, from entry_slot. */
static bool
map_identity(Call *call, void *arg, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	Subject *subject = arg;
	Datum values[INDEX_MAX_KEYS];
	int i;

	for (i = 0; i < mirror->log.nidentity; i++)
	{
		int attr = mirror->target_identity[i] - 1;
		bool isnull;

		values[i] = map_column(mirror, attr, mirror->entry_slot, &isnull);
		if (isnull)
			return refuse(call, refusal, ERRCODE_NOT_NULL_VIOLATION,
						  "the key is NULL in the target");
		subject->target_values[i] = keep_value(values[i], TupleDescAttr(mirror->target_desc, attr));
	}
	return true;
}

/* Have two entries the same hint?  Then they had the same leaf. */
static bool
same_hint(Mirror *mirror, const MirrorEntry *a, const MirrorEntry *b)
{
	int i;

	for (i = mirror->log.nidentity; i < mirror->log.natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(mirror->source_desc, mirror->log.attnums[i] - 1);

		if (a->isnull[i] != b->isnull[i] ||
			(!a->isnull[i] &&
			 !datum_image_eq(a->values[i], b->values[i], att->attbyval, att->attlen)))
			return false;
	}
	return true;
}

/* An entry of an identity whose place wasn't known when it was logged. */
static bool
lacks_hint(Mirror *mirror, const MirrorEntry *entry)
{
	int i;

	for (i = mirror->log.nidentity; i < mirror->log.natts; i++)
	{
		if (!entry->isnull[i])
			return false;
	}
	return mirror->log.natts > mirror->log.nidentity;
}

/* An entry of a row whose key was derived. */
static bool
entry_lacks_key(Mirror *mirror, const MirrorEntry *entry)
{
	int i;

	for (i = 0; mirror->derived != NULL && i < mirror->log.natts; i++)
	{
		if (entry->isnull[i] && bms_is_member(mirror->log.attnums[i], mirror->derived))
			return true;
	}
	return false;
}

/*
 * Find out from a subject's entries what to search for, and where.
 */
void
map_subject(Call *call, Subject *subject)
{
	Mirror *mirror = call->mirror;
	MirrorRefusal ignored = {0};
	int i;

	subject->source_values = subject->entries[0].values;
	subject->target_values = subject->source_values;
	subject->target_known = true;
	if (!mirror->identity_plain)
	{
		store_entry(mirror, &subject->entries[0]);
		subject->target_values = palloc(mirror->log.nidentity * sizeof(Datum));
		subject->target_known = run_guarded(call, true, map_identity, subject, &ignored);
	}
	if (!mirror->key_known || (call->snapshot != NULL && lacks_hint(mirror, subject->entries)))
		subject->all_leaves = true;
	for (i = 0; i < subject->nentries; i++)
	{
		if (entry_lacks_key(mirror, &subject->entries[i]))
			subject->all_leaves = true;
	}
	if (subject->all_leaves)
		return;
	if (OidIsValid(call->front_leaf))
	{
		subject->leaves = list_make1_oid(call->front_leaf);
		return;
	}

	for (i = 0; i < subject->nentries; i++)
	{
		Oid leaf;

		if (i > 0 && same_hint(mirror, &subject->entries[i - 1], &subject->entries[i]))
			continue;
		store_entry(mirror, &subject->entries[i]);
		leaf = leaf_of_source_row(call, mirror->entry_slot);
		if (OidIsValid(leaf))
			subject->leaves = list_append_unique_oid(subject->leaves, leaf);
	}
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

typedef struct CarryArg
{
	TupleTableSlot *front;
	TupleTableSlot *back; /* in the root's format */
	Oid leaf;			  /* direction forward */
	bool skipped;
} CarryArg;

/* Does a row of the target's root, as it would be, have no key? */
static bool
key_is_null(Mirror *mirror, TupleTableSlot *slot)
{
	int attnum = -1;

	while ((attnum = bms_next_member(mirror->root_key, attnum)) >= 0)
	{
		if (slot->tts_isnull[attnum - 1])
			return true;
	}
	return false;
}

/* Can carrying this row over raise an error that is the row's fault? */
static bool
is_carry_risky(Mirror *mirror, CarryArg *carry)
{
	return mirror->map_risky || (mirror->direction == DIRECTION_FORWARD &&
								 (mirror->routing_risky || map_lacks_key(mirror, carry->front)));
}

/* Guarded: carry a row over, and find its leaf. */
static bool
carry_row(Call *call, void *arg, MirrorRefusal *refusal)
{
	CarryArg *carry = arg;
	Mirror *mirror = call->mirror;
	ExprContext *econtext = GetPerTupleExprContext(mirror->estate);

	if (mirror->direction == DIRECTION_REVERSE)
	{
		columns_eval(mirror->reverse, carry->front, carry->back, econtext);
		return true;
	}
	columns_eval(mirror->forward, carry->front, carry->back, econtext);
	carry->skipped = mirror->skip_null_key && key_is_null(mirror, carry->back);
	if (carry->skipped)
		return true;
	if (mirror->derived != NULL && key_is_null(mirror, carry->back))
		return refuse(call, refusal, ERRCODE_NOT_NULL_VIOLATION,
					  "the partition key of the row comes out NULL");
	if (mirror->router == NULL)
		router_open(mirror);
	carry->leaf = router_route(mirror->router, carry->back);
	if (!OidIsValid(carry->leaf))
		return refuse(call, refusal, ERRCODE_CHECK_VIOLATION,
					  "no partition of relation \"%s\" found for row",
					  RelationGetRelationName(mirror->back_root));
	return true;
}

/*
 * The place of a carried row, open.  A leaf that is locked only now may just
 * have been detached, or have lost the row's range to a new one: route again.
 */
static Place *
place_of_row(Call *call, CarryArg *carry, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	Place *place;

	if (mirror->direction == DIRECTION_REVERSE)
		return place_get(mirror, mirror->m->source);
	for (;;)
	{
		Oid leaf = carry->leaf;

		place = place_get(mirror, leaf);
		if (place != NULL && place->rel != NULL)
			return place;
		if (place != NULL && !place->is_table)
		{
			(void) refuse(call, refusal, ERRCODE_FEATURE_NOT_SUPPORTED,
						  "the partition for the row is not a table");
			return NULL;
		}
		if (place != NULL)
			(void) place_open(mirror, place);
		CHECK_FOR_INTERRUPTS();
		if (!run_guarded(call, is_carry_risky(mirror, carry), carry_row, carry, refusal) ||
			carry->skipped)
			return NULL;
		if (carry->leaf == leaf && place != NULL && place->rel != NULL)
			return place;
	}
}

/*
 * Carry a front row over: fills in slot and place of "wanted", checks what can
 * be checked of a row alone.  False and *refusal if it doesn't fit.
 */
bool
map_wanted(Call *call, Wanted *wanted, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	bool forward = mirror->direction == DIRECTION_FORWARD;
	CarryArg carry = {wanted->front};

	carry.back = call_slot(call, forward ? &mirror->target_rows : &mirror->source_rows);
	if (!run_guarded(call, is_carry_risky(mirror, &carry), carry_row, &carry, refusal))
		return false;
	if (!carry.skipped)
		wanted->place = place_of_row(call, &carry, refusal);
	wanted->skipped = carry.skipped;
	if (wanted->skipped)
		return true;
	if (wanted->place == NULL)
		return false;

	wanted->slot = carry.back;
	if (wanted->place->from_root != NULL)
		wanted->slot = execute_attr_map_slot(wanted->place->from_root, carry.back,
											 call_slot(call, &wanted->place->made));
	return check_row(call, wanted, refusal);
}

/*
 * The identity of a row of the back side which stands in the way, as a subject
 * of its own.  NULL if it can't be told.
 */
Subject *
map_obstacle(Call *call, Row *row)
{
	Mirror *mirror = call->mirror;
	bool forward = mirror->direction == DIRECTION_FORWARD;
	Subject *subject = palloc0(sizeof(Subject));
	MirrorEntry *entry = palloc0(sizeof(MirrorEntry));
	MirrorRefusal ignored = {0};
	int i;

	if (forward && !mirror->identity_plain)
		return NULL;
	entry->values = palloc0(mirror->log.natts * sizeof(Datum));
	entry->isnull = palloc(mirror->log.natts * sizeof(bool));
	memset(entry->isnull, true, mirror->log.natts * sizeof(bool));
	for (i = 0; i < mirror->log.nidentity; i++)
	{
		AttrNumber attnum = row->place->identity[i];
		Datum value = slot_getattr(row->slot, attnum, &entry->isnull[i]);

		if (entry->isnull[i])
			return NULL;
		entry->values[i] = keep_value(value, TupleDescAttr(row->place->desc, attnum - 1));
	}
	subject->nentries = 1;
	subject->entries = entry;
	subject->source_values = entry->values;
	subject->target_values = entry->values;
	subject->target_known = true;
	if (!mirror->identity_plain)
	{
		store_entry(mirror, entry);
		subject->target_values = palloc(mirror->log.nidentity * sizeof(Datum));
		subject->target_known = run_guarded(call, true, map_identity, subject, &ignored);
	}
	subject->all_leaves = !mirror->key_known || (!forward && map_lacks_key(mirror, row->slot));
	if (!subject->all_leaves)
		subject->leaves =
			list_make1_oid(forward ? row->place->relid : leaf_of_source_row(call, row->slot));
	row->subject = subject;
	return subject;
}

/*
 * Direction reverse: the leaf where a row of the original should stand.  Mostly
 * the key is what it was, and there is nothing to search.
 */
Oid
map_leaf_of_back_row(Call *call, Row *row)
{
	Mirror *mirror = call->mirror;
	Subject *subject = row->subject;
	MirrorEntry entry;
	int i;

	if (OidIsValid(call->front_leaf) && !subject->displaced)
	{
		entry.values = palloc(mirror->log.natts * sizeof(Datum));
		entry.isnull = palloc(mirror->log.natts * sizeof(bool));
		for (i = 0; i < mirror->log.natts; i++)
			entry.values[i] = slot_getattr(row->slot, mirror->log.attnums[i], &entry.isnull[i]);
		for (i = 0; i < subject->nentries; i++)
		{
			if (same_hint(mirror, &entry, &subject->entries[i]))
				return call->front_leaf;
		}
	}
	return leaf_of_source_row(call, row->slot);
}

/* ------------------------------------------------------------------------
 * Entries of front rows
 * ------------------------------------------------------------------------
 */

typedef struct EntryArg
{
	TupleTableSlot *root_slot;
	MirrorEntry *entry;
} EntryArg;

/* Guarded: columns of the entry that are computed, direction reverse. */
static bool
compute_entry(Call *call, void *arg, MirrorRefusal *refusal)
{
	EntryArg *work = arg;
	Mirror *mirror = call->mirror;
	ColumnEval *eval = mirror->reverse;
	ExprContext *econtext = GetPerTupleExprContext(mirror->estate);
	int i;

	econtext->ecxt_scantuple = work->root_slot;
	for (i = 0; i < mirror->log.natts; i++)
	{
		int attr = mirror->log.attnums[i] - 1;
		Form_pg_attribute att = TupleDescAttr(mirror->source_desc, attr);
		Datum value;

		if (eval->states[attr] == NULL || eval->map->from_attnum[attr] > 0)
			continue;
		value = ExecEvalExprSwitchContext(eval->states[attr], econtext, &work->entry->isnull[i]);
		if (!work->entry->isnull[i])
			work->entry->values[i] = keep_value(value, att);
		else if (i < mirror->log.nidentity)
			return refuse(call, refusal, ERRCODE_NOT_NULL_VIOLATION,
						  "null value in column \"%s\", part of the key", NameStr(att->attname));
	}
	return true;
}

/* Columns of a leaf's row that an entry takes as they are; are there others? */
static bool
copy_entry(Mirror *mirror, Place *place, TupleTableSlot *slot, MirrorEntry *entry)
{
	bool computed = false;
	int i;

	for (i = 0; i < mirror->log.natts; i++)
	{
		AttrNumber root_attnum = mirror->reverse->map->from_attnum[mirror->log.attnums[i] - 1];

		if (root_attnum == 0)
			computed = true;
		else
			entry->values[i] = slot_getattr(
				slot,
				place->to_root == NULL ? root_attnum : place->to_root->attnums[root_attnum - 1],
				&entry->isnull[i]);
	}
	return computed;
}

/* See mirror.h.  The caller is the owner. */
bool
mirror_entry(Mirror *mirror, Relation front, TupleTableSlot *slot, MirrorEntry *entry,
			 MirrorRefusal *refusal)
{
	Call call = {.mirror = mirror, .result_context = CurrentMemoryContext};
	EntryArg arg = {slot, entry};
	Place *place;
	bool ok;
	int i;

	memset(entry, 0, sizeof(MirrorEntry));
	entry->values = palloc0(mirror->log.natts * sizeof(Datum));
	entry->isnull = palloc0(mirror->log.natts * sizeof(bool));
	if (mirror->direction == DIRECTION_FORWARD)
	{
		for (i = 0; i < mirror->log.natts; i++)
			entry->values[i] = slot_getattr(slot, mirror->log.attnums[i], &entry->isnull[i]);
		return true;
	}

	place = place_get(mirror, RelationGetRelid(front));
	if (place == NULL || !place->is_table)
		return refuse(&call, refusal, ERRCODE_UNDEFINED_TABLE, "the partition is gone");
	if (!copy_entry(mirror, place, slot, entry))
		return true;
	if (place->to_root != NULL)
		arg.root_slot = execute_attr_map_slot(
			place->to_root, slot, MakeSingleTupleTableSlot(mirror->target_desc, &TTSOpsVirtual));
	if (mirror->user_code)
		call_pin_settings(&call);
	ok = run_guarded(&call, true, compute_entry, &arg, refusal);
	call_unpin_settings(&call);
	return ok;
}

/* See mirror.h. */
Jsonb *
mirror_identity(Mirror *mirror, Relation front, TupleTableSlot *slot)
{
	Place *place = place_get(mirror, RelationGetRelid(front));
	Datum values[INDEX_MAX_KEYS];
	bool isnull;
	int i;

	for (i = 0; i < place->nkeys; i++)
		values[i] = slot_getattr(slot, place->identity[i], &isnull);
	return changelog_identity(place->relid, place->nkeys, place->identity, values);
}
