/*-------------------------------------------------------------------------
 *
 * mirror_group.c
 *	  The algorithm of the mirror.
 *
 * A group is one identity, or two where an update changed it:
 *
 *	 1. reverse: find the back row, and wait for whoever is changing it
 *	 2. read the front row
 *	 3. carry it over; refuse what doesn't fit
 *	 4. forward: find back rows in the leaves where they may be
 *	 5. pair new rows with back rows of the same table
 *	 6. ask the unique keys
 *	 7. delete, update, insert
 *
 * Whenever another transaction had to be waited for, or has changed a row
 * between finding and writing it, all of it begins again at 1.
 *
 * Why reverse has another order: in the partitioned table nothing keeps two
 * transactions from inserting one identity into two leaves, in the original its
 * key does.  T1 inserts (1) into leaf A, and mirrors it.  T2 inserts (1) into
 * leaf B, finds T1's row of the original, and waits.  T1 commits.  T2 finds the
 * row, reads the front again, both where its own row is and where the back
 * row's key points, finds two rows, and raises 23505.
 *
 * No step reads with the transaction's snapshot.  A REPEATABLE READ writer may
 * be older than the whole back side.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "mirror_internal.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * The name of the original's key and a description of these values in it, for
 * the words of an error.
 */
static char *
describe_key(Mirror *mirror, Subject *subject, char **description)
{
	Place *place = place_get(mirror, mirror->m->source);
	Relation index = index_open(place->identity_index, AccessShareLock);
	char *name = pstrdup(RelationGetRelationName(index));
	Datum values[INDEX_MAX_KEYS] = {0};
	bool isnull[INDEX_MAX_KEYS] = {0};
	int i;

	for (i = 0; i < place->nkeys; i++)
		values[place->keys[i].sk_attno - 1] = subject->source_values[place->key_position[i]];
	*description = NULL;
	if (IndexRelationGetNumberOfKeyAttributes(index) == place->nkeys)
		*description = BuildIndexValueDescription(index, values, isnull);
	index_close(index, AccessShareLock);
	return name;
}

/*
 * Direction reverse: two rows of one identity.  In the writer's transaction
 * this is the error that the original's key would have raised.
 */
static bool
report_duplicate(Call *call, Subject *subject, MirrorRefusal *refusal)
{
	Mirror *mirror = call->mirror;
	char *key;
	char *name = describe_key(mirror, subject, &key);

	if (call->snapshot != NULL || subject->displaced)
		return refuse(call, refusal, ERRCODE_UNIQUE_VIOLATION,
					  "duplicate key value violates unique constraint \"%s\"", name);
	ereport(ERROR, (errcode(ERRCODE_UNIQUE_VIOLATION),
					errmsg("duplicate key value violates unique constraint \"%s\"", name),
					key ? errdetail("Key %s already exists.", key) : 0,
					errtableconstraint(mirror->back_root, name)));
	return false;
}

/*
 * The row that the trigger brought, if no later statement of the transaction
 * has written it again: then it is the one that a search would find.
 */
static TupleTableSlot *
current_row(Call *call, Subject *subject)
{
	int i;

	for (i = 0; i < subject->nentries; i++)
	{
		const MirrorEntry *entry = &subject->entries[i];

		if (entry->slot != NULL &&
			table_tuple_satisfies_snapshot(entry->front, entry->slot, SnapshotSelf))
			return entry->slot;
	}
	return NULL;
}

/*
 * Steps 2 and 3: the rows that shall be there.  False and *refusal if one of
 * them can't be.
 */
static bool
find_wanted(Call *call, List *group, List *back_rows, List **wanted, MirrorRefusal *refusal)
{
	ListCell *cell;

	*wanted = NIL;
	if (call->remove)
		return true;
	foreach (cell, group)
	{
		Subject *subject = lfirst(cell);
		List *fronts;
		Wanted *w;

		w = palloc0(sizeof(Wanted));
		w->subject = subject;
		w->front = current_row(call, subject);
		if (w->front == NULL)
		{
			if (!find_front_rows(call, subject, back_rows, &fronts, refusal))
				return false;
			if (fronts == NIL)
				continue;
			if (list_length(fronts) > 1)
				return report_duplicate(call, subject, refusal);
			w->front = front_in_root_format(call, linitial(fronts));
		}
		if (!map_wanted(call, w, refusal))
			return false;
		if (!w->skipped)
			*wanted = lappend(*wanted, w);
	}
	return true;
}

/*
 * Compare a new row with the one to be updated.  Where a column is the same,
 * the new row takes the old one's datum: a long value isn't stored again.
 */
static void
compare_rows(Wanted *wanted)
{
	TupleDesc desc = wanted->place->desc;
	TupleTableSlot *old = wanted->old->slot;
	TupleTableSlot *new = wanted->slot;
	int i;

	slot_getallattrs(old);
	wanted->changed = NULL;
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || (old->tts_isnull[i] && new->tts_isnull[i]))
			continue;
		if (old->tts_isnull[i] == new->tts_isnull[i] &&
			datum_image_eq(old->tts_values[i], new->tts_values[i], att->attbyval, att->attlen))
			new->tts_values[i] = old->tts_values[i];
		else
			wanted->changed =
				bms_add_member(wanted->changed, att->attnum - FirstLowInvalidHeapAttributeNumber);
	}
	wanted->equal = bms_is_empty(wanted->changed);
}

/*
 * Step 5: which back row becomes which new row.  First those of the same
 * identity; what is left over may take another one of the group's.
 */
static void
pair_rows(List *wanted, List *rows)
{
	ListCell *wanted_cell;
	ListCell *cell;
	int pass;

	for (pass = 0; pass < 2; pass++)
	{
		foreach (wanted_cell, wanted)
		{
			Wanted *w = lfirst(wanted_cell);

			foreach (cell, rows)
			{
				Row *row = lfirst(cell);

				if (w->old != NULL || row->used || row->place != w->place ||
					(pass == 0 && row->subject != w->subject))
					continue;
				row->used = true;
				w->old = row;
				compare_rows(w);
			}
		}
	}
}

/* Is there anything to write? */
static bool
is_equal(List *wanted, List *rows)
{
	ListCell *cell;

	foreach (cell, rows)
	{
		if (!((Row *) lfirst(cell))->used)
			return false;
	}
	foreach (cell, wanted)
	{
		if (!((Wanted *) lfirst(cell))->equal)
			return false;
	}
	return true;
}

/* Step 6, for all new rows. */
static Way
ask_unique_keys(Call *call, List *group, List *wanted, List *rows, List **obstacles,
				MirrorRefusal *refusal)
{
	ListCell *cell;

	*obstacles = NIL;
	foreach (cell, wanted)
	{
		Wanted *w = lfirst(cell);
		Way way;

		if (w->equal)
			continue;
		way = find_obstacles(call, w, group, rows, obstacles, refusal);
		if (way != WAY_CLEAR)
			return way;
	}
	return WAY_CLEAR;
}

/* Will a row of this subject be inserted elsewhere? */
static bool
moves_elsewhere(List *wanted, Subject *subject)
{
	ListCell *cell;

	foreach (cell, wanted)
	{
		Wanted *w = lfirst(cell);

		if (w->subject == subject && w->old == NULL)
			return true;
	}
	return false;
}

/* Step 7.  False: a row has been changed meanwhile, look again. */
static bool
write_rows(Call *call, List *wanted, List *rows, List *obstacles)
{
	ListCell *cell;

	foreach (cell, obstacles)
	{
		if (!displace_row(call, lfirst(cell)))
			return false;
	}
	foreach (cell, rows)
	{
		Row *row = lfirst(cell);

		if (!row->used && !delete_row(call, row, moves_elsewhere(wanted, row->subject)))
			return false;
	}
	foreach (cell, wanted)
	{
		Wanted *w = lfirst(cell);

		if (w->old != NULL && !w->equal && !update_row(call, w))
			return false;
	}
	foreach (cell, wanted)
	{
		Wanted *w = lfirst(cell);

		if (w->old == NULL)
			insert_row(call, w);
	}
	return true;
}

/*
 * One attempt at a group.  WAY_CHANGED: try again.
 */
static Way
mirror_group_once(Call *call, List *group, MirrorRefusal *refusal)
{
	bool reverse = call->mirror->direction == DIRECTION_REVERSE;
	List *rows = NIL;
	List *wanted;
	List *obstacles;
	Way way = WAY_CLEAR;

	if (reverse)
		way = find_back_rows(call, group, NIL, &rows, refusal);
	if (way != WAY_CLEAR)
		return way;
	if (!find_wanted(call, group, rows, &wanted, refusal))
		return WAY_BLOCKED;
	if (!reverse)
		way = find_back_rows(call, group, wanted, &rows, refusal);
	if (way != WAY_CLEAR)
		return way;

	pair_rows(wanted, rows);
	if (!is_equal(wanted, rows))
	{
		way = ask_unique_keys(call, group, wanted, rows, &obstacles, refusal);
		if (way != WAY_CLEAR)
			return way;
		if (!write_rows(call, wanted, rows, obstacles))
			return WAY_CHANGED;
	}
	if (wanted == NIL && ((Subject *) linitial(group))->displaced)
		finish_displaced(call, linitial(group));
	return WAY_CLEAR;
}

/* A group, until it is done (true) or refused (false and *refusal). */
bool
mirror_group(Call *call, List *group, MirrorRefusal *refusal)
{
	Way way;

	do
	{
		CHECK_FOR_INTERRUPTS();
		if (call->mirror->broken)
			mirror_reopen(call->mirror);
		way = mirror_group_once(call, group, refusal);
		call_drop_slots(call);
	} while (way == WAY_CHANGED);
	return way == WAY_CLEAR;
}
