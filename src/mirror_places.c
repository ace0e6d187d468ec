/*-------------------------------------------------------------------------
 *
 * mirror_places.c
 *	  Finding rows by identity, for the mirror.
 *
 * The front row is read as it is now: in a trigger with SnapshotSelf, whatever
 * the writer's isolation level.  It stands still meanwhile, since our own
 * transaction has written it.  A row that was in the way of a unique key is
 * read only after its back row was deleted: who changes the front row must
 * change that one as well before he can commit, and so waits for us.
 *
 * The back row is looked for with SnapshotDirty, which also shows what other
 * transactions have not committed yet; those are waited for, and everything is
 * read again from the start.
 *
 * A scan with such a snapshot can miss a row which is updated at that moment:
 * the entry of the new version comes after the scan has read the index page,
 * and the old version is dead when it comes to it.  Where a scan found nothing
 * but dead versions, it is done a second time.
 *
 * Locks: the front's tables AccessShareLock, the back's RowExclusiveLock.  A
 * leaf where nothing was found is let go of at once, or searching all leaves
 * would fill the lock table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "compat.h"
#include "executor/executor.h"
#include "mirror_internal.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "relinfo.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

/* ------------------------------------------------------------------------
 * Places
 * ------------------------------------------------------------------------
 */

/* Position of a table's column in the identity, or -1. */
static int
identity_position(Place *place, AttrNumber attnum)
{
	int i;

	for (i = 0; i < place->nkeys; i++)
	{
		if (place->identity[i] == attnum)
			return i;
	}
	return -1;
}

/*
 * How good is this index to find an identity by?  0: useless; else the more
 * the better.  Best is one on the identity alone; then one led by it; one that
 * has it somewhere still gives the right answer.
 */
static int
rate_index(Place *place, Relation index)
{
	int nkeys = IndexRelationGetNumberOfKeyAttributes(index);
	int found = 0;
	int leading = 0;
	int i;

	if (!index->rd_index->indisvalid || index->rd_rel->relam != BTREE_AM_OID ||
		RelationGetIndexPredicate(index) != NIL)
		return 0;
	for (i = 0; i < nkeys; i++)
	{
		AttrNumber attnum = index->rd_index->indkey.values[i];

		if (attnum <= 0 || identity_position(place, attnum) < 0)
			continue;
		found++;
		if (leading == i)
			leading++;
	}
	if (found < place->nkeys)
		return 0;
	return leading * (INDEX_MAX_KEYS + 1) + INDEX_MAX_KEYS + 1 - nkeys;
}

/* Prepare the scan keys for an index, in the order of its columns. */
static void
prepare_keys(Place *place, Relation index)
{
	int count = 0;
	int i;

	for (i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
	{
		int position = identity_position(place, index->rd_index->indkey.values[i]);
		Oid type = index->rd_opcintype[i];
		Oid operator= get_opfamily_member(index->rd_opfamily[i], type, type, BTEqualStrategyNumber);
		ScanKey key = &place->keys[count];

		if (position < 0)
			continue;
		ScanKeyEntryInitialize(key, 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[i], get_opcode(operator), (Datum) 0);
		place->key_position[count++] = position;
	}
	place->identity_index = RelationGetRelid(index);
	Assert(count == place->nkeys);
}

static void
choose_index(Place *place, Relation rel)
{
	List *indexes = RelationGetIndexList(rel);
	int best = 0;
	ListCell *cell;

	place->identity_index = InvalidOid;
	foreach (cell, indexes)
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		int rating = rate_index(place, index);

		if (rating > best)
		{
			best = rating;
			prepare_keys(place, index);
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
}

/* Fill in what is found out at first sight. */
static void
describe_place(Mirror *mirror, Place *place, Relation rel)
{
	bool is_source = place->relid == mirror->m->source;
	int i;

	place->is_table = rel->rd_rel->relkind == RELKIND_RELATION;
	place->nkeys = mirror->log.nidentity;
	if (!place->is_table)
		return;
	place->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	slot_pool_init(&place->found, place->desc, table_slot_callbacks(rel));
	slot_pool_init(&place->made, place->desc, &TTSOpsVirtual);
	if (!is_source)
	{
		place->from_root = build_attrmap_by_name_if_req(mirror->target_desc, place->desc, false);
		if (place->from_root != NULL)
			place->to_root = build_attrmap_by_name(place->desc, mirror->target_desc, false);
	}
	for (i = 0; i < place->nkeys; i++)
	{
		AttrNumber attnum = is_source ? mirror->log.attnums[i] : mirror->target_identity[i];

		if (place->to_root != NULL)
			attnum = place->to_root->attnums[attnum - 1];
		place->identity[i] = attnum;
	}
	choose_index(place, rel);
}

/*
 * The source, or a leaf, by OID; NULL if it is gone.  Looked at once a transaction:
 * locked (AccessShareLock) for the moment, so that we hear of its changes.
 */
Place *
place_get(Mirror *mirror, Oid relid)
{
	Place *place;
	Relation rel;
	bool found;
	MemoryContext old_context;

	place = hash_search(mirror->places, &relid, HASH_ENTER, &found);
	if (found && place->known && place->looked == mirror->openings)
		return place;

	if (!found)
		place->known = false;
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
	{
		hash_search(mirror->places, &relid, HASH_REMOVE, NULL);
		return NULL;
	}
	if (!place->known || mirror_is_stale(mirror))
	{
		memset((char *) place + sizeof(Oid), 0, sizeof(Place) - sizeof(Oid));
		watch_relation(relid);
		old_context = MemoryContextSwitchTo(mirror->known_context);
		describe_place(mirror, place, rel);
		MemoryContextSwitchTo(old_context);
		place->known = true;
	}
	relation_close(rel, AccessShareLock);
	place->looked = mirror->openings;
	return place;
}

/*
 * Do these values name the same row of the source?  As the index sees it that
 * is searched: of numerics, 1.0 and 1.00 do.
 */
bool
same_source_identity(Mirror *mirror, const Datum *a, const Datum *b)
{
	Place *place = NULL;
	bool same = true;
	int i;

	for (i = 0; i < mirror->log.nidentity && same; i++)
	{
		Form_pg_attribute att = TupleDescAttr(mirror->source_desc, mirror->log.attnums[i] - 1);

		same = datum_image_eq(a[i], b[i], att->attbyval, att->attlen);
	}
	if (!same)
		place = place_get(mirror, mirror->m->source);
	if (place == NULL || !OidIsValid(place->identity_index))
		return same;
	for (i = 0; i < place->nkeys; i++)
	{
		ScanKey key = &place->keys[i];
		int position = place->key_position[i];

		if (!DatumGetBool(
				FunctionCall2Coll(&key->sk_func, key->sk_collation, a[position], b[position])))
			return false;
	}
	return true;
}

/* Do the indexes or checks of an open place call functions of users? */
static bool
place_has_user_code(Place *place)
{
	ResultRelInfo *info = place->info;
	TupleConstr *constr = place->desc->constr;
	int i;

	for (i = 0; i < info->ri_NumIndices; i++)
	{
		IndexInfo *index = info->ri_IndexRelationInfo[i];

		if (contains_user_code((Node *) index->ii_Expressions) ||
			contains_user_code((Node *) index->ii_Predicate))
			return true;
	}
	for (i = 0; constr != NULL && i < constr->num_check; i++)
	{
		if (contains_user_code(stringToNode(constr->check[i].ccbin)))
			return true;
	}
	return false;
}

/*
 * Open a place of the back side to write to it (RowExclusiveLock), for as long
 * as the mirror is open.  False if it is gone.
 */
bool
place_open(Mirror *mirror, Place *place)
{
	ResourceOwner save_owner = CurrentResourceOwner;
	MemoryContext old_context;
	Relation rel;

	if (place->rel != NULL)
		return true;
	CurrentResourceOwner = mirror->owner;
	rel = try_table_open(place->relid, RowExclusiveLock);
	if (rel != NULL)
	{
		old_context = MemoryContextSwitchTo(mirror->open_context);
		place->info = makeNode(ResultRelInfo);
		InitResultRelInfo(place->info, rel, 0, NULL, 0);
		filter_triggers(place->info, mirror->direction);
		ExecOpenIndices(place->info, true);
		if (place->info->ri_TrigDesc != NULL)
			(void) ExecGetTriggerOldSlot(mirror->estate, place->info); /* now, as it is kept */
		place->user_code = place_has_user_code(place);
		mirror->open_places = lappend(mirror->open_places, place);
		MemoryContextSwitchTo(old_context);
		place->rel = rel;
	}
	CurrentResourceOwner = save_owner;
	return rel != NULL;
}

/* What there was of an open place has been let go of. */
void
place_closed(Place *place)
{
	place->rel = NULL;
	place->info = NULL;
	place->scan = NULL;
	place->checks = NULL;
}

/* ------------------------------------------------------------------------
 * Searching
 * ------------------------------------------------------------------------
 */

/*
 * Wait for the transaction that a dirty snapshot told of.  Rows found so far
 * are let go of.
 */
void
wait_for_transaction(Call *call, Relation rel, ItemPointer tid, SnapshotData *dirty,
					 XLTW_Oper reason)
{
	ItemPointerData where = *tid;

	call_drop_slots(call);
	if (dirty->speculativeToken)
		SpeculativeInsertionWait(dirty->xmin, dirty->speculativeToken);
	else
		XactLockTableWait(TransactionIdIsValid(dirty->xmin) ? dirty->xmin : dirty->xmax, rel,
						  &where, reason);
}

/*
 * Begin a scan for an identity.  An open place keeps its scan: making one takes as
 * long as using it.
 */
static IndexScanDesc
begin_scan(Call *call, Place *place, Relation rel, Relation index, Datum *identity,
		   Snapshot snapshot)
{
	Mirror *mirror = call->mirror;
	ScanKeyData keys[INDEX_MAX_KEYS];
	IndexScanDesc scan = snapshot == &place->dirty ? place->scan : NULL;
	int i;

	memcpy(keys, place->keys, place->nkeys * sizeof(ScanKeyData));
	for (i = 0; i < place->nkeys; i++)
		keys[i].sk_argument = identity[place->key_position[i]];

	if (scan == NULL && snapshot == &place->dirty)
	{
		ResourceOwner save_owner = CurrentResourceOwner;
		MemoryContext old_context = MemoryContextSwitchTo(mirror->open_context);

		CurrentResourceOwner = mirror->owner;
		scan = place->scan = index_beginscan(rel, index, snapshot, NULL, place->nkeys, 0);
		CurrentResourceOwner = save_owner;
		MemoryContextSwitchTo(old_context);
	}
	else if (scan == NULL)
		scan = index_beginscan(rel, index, snapshot, NULL, place->nkeys, 0);
	index_rescan(scan, keys, place->nkeys, NULL, 0);
	return scan;
}

/* Let go of what it has pinned; a scan that is kept waits for the next keys. */
static void
end_scan(Place *place, IndexScanDesc scan)
{
	if (scan == place->scan)
		index_rescan(scan, NULL, scan->numberOfKeys, NULL, 0);
	else
		index_endscan(scan);
}

/* The next entry of the index.  What the scan allocates lives as long as it does. */
static bool
next_entry(Call *call, Place *place, IndexScanDesc scan)
{
	MemoryContext old_context = CurrentMemoryContext;
	bool found;

	if (scan == place->scan)
		MemoryContextSwitchTo(call->mirror->open_context);
	found = index_getnext_tid(scan, ForwardScanDirection) != NULL;
	MemoryContextSwitchTo(old_context);
	return found;
}

/*
 * One scan of a place for an identity; adds to *rows what it sees.  *dead:
 * there were index entries of which nothing was seen.  False: the transaction
 * in *dirty (and the row *tid) must be waited for.
 */
static bool
scan_place(Call *call, Place *place, Relation rel, Relation index, Subject *subject,
		   Datum *identity, Snapshot snapshot, List **rows, bool *dead, ItemPointer tid)
{
	IndexScanDesc scan = begin_scan(call, place, rel, index, identity, snapshot);
	TupleTableSlot *slot = NULL;
	bool ok = true;
	int entries = 0;
	int seen = 0;

	for (;;)
	{
		Row *row;

		if (!scan->xs_heap_continue)
		{
			if (!next_entry(call, place, scan))
				break;
			entries++;
		}
		if (slot == NULL)
			slot = call_slot(call, &place->found);
		if (!index_fetch_heap(scan, slot))
			continue;
		seen++;
		if (snapshot->snapshot_type == SNAPSHOT_DIRTY &&
			(TransactionIdIsValid(snapshot->xmin) || TransactionIdIsValid(snapshot->xmax)))
		{
			*tid = slot->tts_tid;
			ok = false;
			break;
		}
		row = palloc0(sizeof(Row));
		row->place = place;
		row->slot = slot;
		row->subject = subject;
		*rows = lappend(*rows, row);
		slot = NULL;
	}
	end_scan(place, scan);
	*dead = entries > 0 && seen == 0;
	return ok;
}

/* The index to search by, where the place is open and has it open already. */
static Relation
open_index(Place *place)
{
	int i;

	for (i = 0; place->rel != NULL && i < place->info->ri_NumIndices; i++)
	{
		Relation index = place->info->ri_IndexRelationDescs[i];

		if (RelationGetRelid(index) == place->identity_index)
			return index;
	}
	return NULL;
}

/*
 * Find the rows of an identity in an open table, twice if need be.  With
 * snapshot NULL: dirty; WAY_CHANGED after waiting for somebody.
 */
static Way
search_place(Call *call, Place *place, Relation rel, Subject *subject, Datum *identity,
			 Snapshot snapshot, List **rows)
{
	SnapshotData dirty;
	ItemPointerData tid;
	Relation index = open_index(place);
	Relation mine = NULL;
	bool dead = false;
	bool ok;

	if (index == NULL)
		index = mine = index_open(place->identity_index, AccessShareLock);
	if (snapshot == NULL)
	{
		snapshot = place->rel != NULL ? &place->dirty : &dirty;
		InitDirtySnapshot(*snapshot);
	}
	ok = scan_place(call, place, rel, index, subject, identity, snapshot, rows, &dead, &tid);
	if (dead && !IsMVCCSnapshot(snapshot))
		ok = scan_place(call, place, rel, index, subject, identity, snapshot, rows, &dead, &tid);
	if (mine != NULL)
		index_close(mine, ok ? NoLock : AccessShareLock);
	if (!ok)
	{
		wait_for_transaction(call, rel, &tid, snapshot, XLTW_Update);
		return WAY_CHANGED;
	}
	return WAY_CLEAR;
}

static bool
refuse_without_index(Call *call, Place *place, MirrorRefusal *refusal)
{
	return refuse(call, refusal, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				  "table \"%s\" has no index to find rows by their key",
				  get_rel_name(place->relid));
}

/* ------------------------------------------------------------------------
 * Back rows
 * ------------------------------------------------------------------------
 */

/* Search a place of the back side, which stays open if something was found. */
static Way
search_back_place(Call *call, Oid relid, Subject *subject, List **rows, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	Place *place = place_get(mirror, relid);
	Datum *identity =
		mirror->direction == DIRECTION_FORWARD ? subject->target_values : subject->source_values;
	int before = list_length(*rows);
	Relation rel;
	Way way;

	if (place == NULL || !place->is_table)
		return WAY_CLEAR; /* gone, or never written by us */
	if (!OidIsValid(place->identity_index))
	{
		(void) refuse_without_index(call, place, refusal);
		return WAY_BLOCKED;
	}
	if (place->rel != NULL)
		return search_place(call, place, place->rel, subject, identity, NULL, rows);

	rel = try_table_open(relid, RowExclusiveLock);
	if (rel == NULL)
		return WAY_CLEAR;
	way = search_place(call, place, rel, subject, identity, NULL, rows);
	if (way == WAY_CLEAR && list_length(*rows) > before)
		(void) place_open(mirror, place);
	else if (way == WAY_CLEAR)
		UnlockRelationOid(place->identity_index, AccessShareLock);
	table_close(rel, RowExclusiveLock);
	return way;
}

/*
 * Where rows of a subject may stand on the back side: as its entries tell, and
 * where its new row belongs.
 */
static List *
back_places(Call *call, Subject *subject, List *wanted)
{
	Mirror *mirror = call->mirror;
	List *places;
	ListCell *cell;

	if (mirror->direction == DIRECTION_REVERSE)
		return list_make1_oid(mirror->m->source);
	if (!subject->target_known)
		return NIL;
	places = list_copy(subject->leaves);
	foreach (cell, wanted)
	{
		Wanted *w = lfirst(cell);

		if (w->subject == subject)
			places = list_append_unique_oid(places, w->place->relid);
	}
	/* where it belongs comes first: mostly it is there */
	if (subject->all_leaves)
		places = list_concat_unique_oid(places, relinfo_leaves(mirror->m->target));
	return places;
}

/*
 * The rows of a group's subjects on the back side, none of them touched by a
 * transaction that is still running.  In a write-through there is one row of an
 * identity at most, and where it is found the search for it ends; a drain may
 * have to clear up two.
 */
Way
find_back_rows(Call *call, List *group, List *wanted, List **rows, MirrorRefusal *refusal)
{
	ListCell *subject_cell;
	ListCell *cell;

	*rows = NIL;
	foreach (subject_cell, group)
	{
		Subject *subject = lfirst(subject_cell);
		int before = list_length(*rows);

		foreach (cell, back_places(call, subject, wanted))
		{
			Way way = search_back_place(call, lfirst_oid(cell), subject, rows, refusal);

			if (way != WAY_CLEAR)
				return way;
			if (call->snapshot == NULL && subject->all_leaves && list_length(*rows) > before)
				break;
		}
	}
	return WAY_CLEAR;
}

/* ------------------------------------------------------------------------
 * Front rows
 * ------------------------------------------------------------------------
 */

/* Search a place of the front side; nothing of it stays open. */
static bool
search_front_place(Call *call, Oid relid, Subject *subject, List **rows, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	Place *place = place_get(mirror, relid);
	Datum *identity =
		mirror->direction == DIRECTION_FORWARD ? subject->source_values : subject->target_values;
	int before = list_length(*rows);
	Relation rel;
	bool found;

	if (place == NULL || !place->is_table)
		return true;
	if (!OidIsValid(place->identity_index))
		return refuse_without_index(call, place, refusal);
	rel = try_table_open(relid, AccessShareLock);
	if (rel == NULL)
		return true;
	(void) search_place(call, place, rel, subject, identity,
						call->snapshot != NULL ? call->snapshot : SnapshotSelf, rows);
	found = list_length(*rows) > before;
	if (!found)
		UnlockRelationOid(place->identity_index, AccessShareLock);
	table_close(rel, found ? NoLock : AccessShareLock);
	return true;
}

/* Direction reverse: the leaves where a subject's row may stand. */
static List *
front_leaves(Call *call, Subject *subject, List *back_rows)
{
	Mirror *mirror = call->mirror;
	List *leaves;
	ListCell *cell;

	if (subject->all_leaves)
		return relinfo_leaves(mirror->m->target);
	leaves = list_copy(subject->leaves);
	foreach (cell, back_rows)
	{
		Row *row = lfirst(cell);

		if (row->subject != subject)
			continue;

		/*
		 * Its front row may be anywhere.  An UPDATE can't have made a second
		 * row of an identity that it didn't change.
		 */
		if (!map_lacks_key(mirror, row->slot))
			leaves = list_append_unique_oid(leaves, map_leaf_of_back_row(call, row));
		else if (call->snapshot != NULL || subject->nentries != 2)
			return relinfo_leaves(mirror->m->target);
	}
	return leaves;
}

/*
 * The rows of a subject on the front side: one or none, in direction reverse
 * perhaps more.  False and *refusal where they can't be looked for.
 */
bool
find_front_rows(Call *call, Subject *subject, List *back_rows, List **rows, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	ListCell *cell;

	*rows = NIL;
	if (mirror->direction == DIRECTION_FORWARD)
		return search_front_place(call, mirror->m->source, subject, rows, refusal);
	if (!subject->target_known)
		return true;
	foreach (cell, front_leaves(call, subject, back_rows))
	{
		if (OidIsValid(lfirst_oid(cell)) &&
			!search_front_place(call, lfirst_oid(cell), subject, rows, refusal))
			return false;
	}
	return true;
}
