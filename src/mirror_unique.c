/*-------------------------------------------------------------------------
 *
 * mirror_unique.c
 *	  Rows that stand in the way of a unique key (or an exclusion constraint)
 *	  on the back side, for the mirror.
 *
 * Two rows exchange a unique value: the front side allowed it, within one
 * statement or one transaction; the back side, written row by row, has the old
 * value still in the other row.  So before a row is written, each index that
 * it could violate is asked.  The row found there belongs to another identity.
 * If its front row has the value as well, the back side demands what the front
 * side doesn't, and the row is refused.  Else that back row is out of date: it
 * is deleted, and its identity joins the same call.
 *
 * Asking is done as PostgreSQL does for ON CONFLICT: a dirty scan by the
 * index's own equality.  So deferrable constraints are seen as well, at once:
 * this is no statement of the application's whose end they could wait for.
 *
 * Between asking and writing, another transaction may come and write the same
 * value.  Then the index itself raises 23505, as the application would have
 * got from the front side, which has the same key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "compat.h"
#include "executor/executor.h"
#include "mirror_internal.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* An index that a row is held against. */
typedef struct Key
{
	Relation index;
	IndexInfo *info;
	Oid *procs;
	uint16 *strategies;
	Datum values[INDEX_MAX_KEYS];
	bool isnull[INDEX_MAX_KEYS];
} Key;

/* Is the whole identity in this index?  Then no other identity conflicts. */
static bool
contains_identity(Place *place, IndexInfo *info)
{
	int i;
	int j;

	for (i = 0; i < place->nkeys; i++)
	{
		for (j = 0; j < info->ii_NumIndexKeyAttrs; j++)
		{
			if (info->ii_IndexAttrNumbers[j] == place->identity[i])
				break;
		}
		if (j == info->ii_NumIndexKeyAttrs)
			return false;
	}
	return true;
}

/* An update that leaves the index's columns alone can't violate it. */
static bool
is_untouched(Wanted *wanted, IndexInfo *info)
{
	int i;

	if (wanted->old == NULL || info->ii_Predicate != NIL || info->ii_Expressions != NIL)
		return false;
	for (i = 0; i < info->ii_NumIndexKeyAttrs; i++)
	{
		if (bms_is_member(info->ii_IndexAttrNumbers[i] - FirstLowInvalidHeapAttributeNumber,
						  wanted->changed))
			return false;
	}
	return true;
}

/*
 * The values of a row in an index.  False if the index doesn't take the row,
 * or a NULL makes it differ from all others.
 */
static bool
form_key(Call *call, Key *key, TupleTableSlot *slot)
{
	EState *estate = call->mirror->estate;
	ExprContext *econtext = GetPerTupleExprContext(estate);
	IndexInfo *info = key->info;
	MemoryContext old_context;
	int i;

	econtext->ecxt_scantuple = slot;
	if (info->ii_Predicate != NIL)
	{
		if (info->ii_PredicateState == NULL)
		{
			old_context = MemoryContextSwitchTo(estate->es_query_cxt);
			info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, estate);
			MemoryContextSwitchTo(old_context);
		}
		if (!ExecQual(info->ii_PredicateState, econtext))
			return false;
	}
	FormIndexDatum(info, slot, estate, key->values, key->isnull);
	for (i = 0; i < info->ii_NumIndexKeyAttrs && !info->ii_NullsNotDistinct; i++)
	{
		if (key->isnull[i])
			return false;
	}
	return true;
}

/* Does another row, by its values in the index, conflict with the key? */
static bool
conflicts(Key *key, Key *other)
{
	int i;

	for (i = 0; i < key->info->ii_NumIndexKeyAttrs; i++)
	{
		if (key->isnull[i] || other->isnull[i])
		{
			if (key->isnull[i] != other->isnull[i])
				return false;
		}
		else if (!DatumGetBool(OidFunctionCall2Coll(key->procs[i], key->index->rd_indcollation[i],
													other->values[i], key->values[i])))
			return false;
	}
	return true;
}

/* A row of the group itself, which will be deleted or updated. */
static bool
is_own_row(List *rows, Place *place, ItemPointer tid)
{
	ListCell *cell;

	foreach (cell, rows)
	{
		Row *row = lfirst(cell);

		if (row->place == place && ItemPointerEquals(&row->slot->tts_tid, tid))
			return true;
	}
	return false;
}

/*
 * Scan an index for rows that conflict; adds to *found those that aren't in
 * "own".  WAY_CHANGED after waiting for somebody.
 */
static Way
scan_key(Call *call, Key *key, Place *place, List *own, List **found)
{
	ScanKeyData keys[INDEX_MAX_KEYS];
	int nkeys = key->info->ii_NumIndexKeyAttrs;
	TupleTableSlot *slot = call_slot(call, &place->found);
	SnapshotData dirty;
	IndexScanDesc scan;
	int i;

	InitDirtySnapshot(dirty);
	for (i = 0; i < nkeys; i++)
		ScanKeyEntryInitialize(&keys[i], key->isnull[i] ? SK_ISNULL | SK_SEARCHNULL : 0, i + 1,
							   key->strategies[i], InvalidOid, key->index->rd_indcollation[i],
							   key->procs[i], key->values[i]);

	scan = index_beginscan(place->rel, key->index, &dirty, NULL, nkeys, 0);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		Row *row;

		if (is_own_row(own, place, &slot->tts_tid) || is_own_row(*found, place, &slot->tts_tid))
			continue;
		if (scan->xs_recheck)
		{
			Key other = *key;

			if (!form_key(call, &other, slot) || !conflicts(key, &other))
				continue;
		}
		if (TransactionIdIsValid(dirty.xmin) || TransactionIdIsValid(dirty.xmax))
		{
			index_endscan(scan);
			wait_for_transaction(call, place->rel, &slot->tts_tid, &dirty,
								 key->info->ii_ExclusionOps ? XLTW_RecheckExclusionConstr
															: XLTW_InsertIndex);
			return WAY_CHANGED;
		}
		row = palloc0(sizeof(Row));
		row->place = place;
		row->slot = slot;
		*found = lappend(*found, row);
		slot = call_slot(call, &place->found);
	}
	index_endscan(scan);
	return WAY_CLEAR;
}

static bool
same_identity(Mirror *mirror, Subject *a, Subject *b)
{
	return same_source_identity(mirror, a->source_values, b->source_values);
}

/* Was the identity dealt with in this call already (this group included)? */
static bool
is_settled(Call *call, List *group, Subject *subject)
{
	ListCell *cell;
	int i;

	for (i = 0; i < call->done; i++)
	{
		if (same_identity(call->mirror, list_nth(call->subjects, i), subject))
			return true;
	}
	foreach (cell, group)
	{
		if (same_identity(call->mirror, lfirst(cell), subject))
			return true;
	}
	return false;
}

/*
 * Has the front row of what stands in the way the same value?  Where it can't
 * even be carried over, it has not.
 */
static bool
is_rightful(Call *call, Key *key, Place *place, Subject *subject)
{
	MirrorRefusal ignored = {0};
	Wanted wanted = {subject};
	List *fronts;
	Key other = *key;

	if (!find_front_rows(call, subject, NIL, &fronts, &ignored) || fronts == NIL)
		return false;
	wanted.front = front_in_root_format(call, linitial(fronts));
	if (!map_wanted(call, &wanted, &ignored) || wanted.place != place)
		return false;
	return form_key(call, &other, wanted.slot) && conflicts(key, &other);
}

static bool
refuse_key(Call *call, MirrorRefusal *refusal, Relation index)
{
	if (index->rd_index->indisexclusion)
		return refuse(call, refusal, ERRCODE_EXCLUSION_VIOLATION,
					  "conflicting key value violates exclusion constraint \"%s\"",
					  RelationGetRelationName(index));
	return refuse(call, refusal, ERRCODE_UNIQUE_VIOLATION,
				  "duplicate key value violates unique constraint \"%s\"",
				  RelationGetRelationName(index));
}

/* One index; see find_obstacles(). */
static Way
find_obstacles_of_key(Call *call, Key *key, Wanted *wanted, List *group, List *rows,
					  List **obstacles, MirrorRefusal *refusal)
{
	List *own = list_concat_copy(rows, *obstacles);
	List *found = NIL;
	ListCell *cell;
	Way way;

	if (!form_key(call, key, wanted->slot))
		return WAY_CLEAR;
	way = scan_key(call, key, wanted->place, own, &found);
	if (way != WAY_CLEAR)
		return way;
	foreach (cell, found)
	{
		Row *row = lfirst(cell);
		Subject *subject = map_obstacle(call, row);

		if (subject == NULL || is_settled(call, group, subject) ||
			is_rightful(call, key, wanted->place, subject))
		{
			(void) refuse_key(call, refusal, key->index);
			return WAY_BLOCKED;
		}
		*obstacles = lappend(*obstacles, row);
	}
	return WAY_CLEAR;
}

/*
 * Rows of other identities in the way of a row about to be written: adds to
 * *obstacles those that may be deleted.  "rows" are the group's own.
 */
Way
find_obstacles(Call *call, Wanted *wanted, List *group, List *rows, List **obstacles,
			   MirrorRefusal *refusal)
{
	ResultRelInfo *result = wanted->place->info;
	int i;

	for (i = 0; i < result->ri_NumIndices; i++)
	{
		IndexInfo *info = result->ri_IndexRelationInfo[i];
		Key key = {result->ri_IndexRelationDescs[i], info};
		bool exclusion = info->ii_ExclusionOps != NULL;
		Way way;

		if (!info->ii_ReadyForInserts || (!info->ii_Unique && !exclusion))
			continue;
		if ((!exclusion && contains_identity(wanted->place, info)) || is_untouched(wanted, info))
			continue;
		key.procs = exclusion ? info->ii_ExclusionProcs : info->ii_UniqueProcs;
		key.strategies = exclusion ? info->ii_ExclusionStrats : info->ii_UniqueStrats;
		way = find_obstacles_of_key(call, &key, wanted, group, rows, obstacles, refusal);
		if (way != WAY_CLEAR)
			return way;
	}
	return WAY_CLEAR;
}
