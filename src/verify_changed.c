/*-------------------------------------------------------------------------
 *
 * verify_changed.c
 *	  Which ranges may have changed since they were found equal, whoever changed
 *	  them; see verify_changed.h.
 *
 * Every change of a row of a permanent table leaves the WAL position of its record
 * on the page: an insert, an update, a delete, and a vacuum that removes what was
 * deleted.  So a range is as it was found where
 *
 *	- none of the blocks that its rows stood in is newer than "as_of" (that shows
 *	  updates and deletes, also those of which vacuum has left no trace but this),
 *	- no block that is newer holds a row with a key of the range (inserts), and
 *	- those tables still have the same files (TRUNCATE, a detached partition).
 *
 * That takes reading the blocks of both tables once, in order: without a snapshot,
 * an index or a hash, and rows only of blocks that are newer.  Pages change for other
 * reasons as well, so ranges may be read again that are the same: a table that vacuum
 * freezes is.  Not the visibility map, which vacuum sets again after a delete, nor
 * the xmin of rows, which no deleted row has; nor what the trigger has touched, for
 * verification is there for what it has not.
 *
 * A transaction that was running when a range was read may have written its pages
 * before: they are old, and what they show is new when it commits.  So "as_of" isn't
 * the time of the snapshot, but one before any transaction began that the snapshot
 * takes as running.  Processes note such times; see verify_as_of().
 *
 * What is written without WAL (wal_level minimal, in the transaction that made the
 * table or its file) leaves no position at all, in pages of a new file: such a page
 * counts as newer than anything.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/relation.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "attempt.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "range_key.h"
#include "range_sum.h"
#include "relinfo.h"
#include "run.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "verify_changed.h"
#include "verify_records.h"

/* Blocks that one transaction looks at: 128 MB, a fraction of a second. */
#define PIECE_BLOCKS 16384

/* How often a paused search looks whether it may go on. */
#define PAUSED_POLL_MS 500

/* ------------------------------------------------------------------------
 * As of when a snapshot's view can be traced
 * ------------------------------------------------------------------------
 */

/* The last times that this process has noted: a ring. */
#define MAX_TIMES 64

static VerifyTime times[MAX_TIMES];
static int times_noted = 0;

VerifyTime
verify_note_time(void)
{
	VerifyTime *now = &times[times_noted++ % MAX_TIMES];

	/* in this order: whoever gets the id then writes after the position */
	now->lsn = GetXLogInsertRecPtr();
	now->next = ReadNextFullTransactionId();
	return *now;
}

XLogRecPtr
verify_as_of(const VerifyTime *known)
{
	uint64 next = U64FromFullTransactionId(ReadNextFullTransactionId());
	/* modulo 2^32, what is running began less than that ago */
	uint64 oldest = next - (uint32) ((uint32) next - GetActiveSnapshot()->xmin);

	for (int i = times_noted - 1; i >= 0 && i >= times_noted - MAX_TIMES; i--)
	{
		if (U64FromFullTransactionId(times[i % MAX_TIMES].next) <= oldest)
			return times[i % MAX_TIMES].lsn;
	}
	return U64FromFullTransactionId(known->next) <= oldest ? known->lsn : InvalidXLogRecPtr;
}

/* ------------------------------------------------------------------------
 * What is looked at
 * ------------------------------------------------------------------------
 */

typedef struct Table
{
	Oid relfilenode; /* the key of Search.tables */
	Oid relid;
	BlockNumber blocks;
	BlockNumber next; /* to look at */
	List *places;	  /* of TablePlace: where ranges had rows in it */
} Table;

typedef struct TablePlace
{
	int range;
	const RangePlace *place;
} TablePlace;

typedef struct Search
{
	RangeIdentity identity;
	int nranges;
	VerifyRange **ranges;
	Datum **highs; /* upper bounds, NULL: no end */
	bool *changed;
	int left; /* not known to have changed */
	XLogRecPtr oldest;
	HTAB *tables;
	List *order; /* of them, in which they are looked at */
	bool begun;
	bool done;
} Search;

static void
set_changed(Search *search, int i)
{
	if (search->changed[i])
		return;
	search->changed[i] = true;
	search->left--;
}

static void
set_all_changed(Search *search)
{
	for (int i = 0; i < search->nranges; i++)
		set_changed(search, i);
}

static void
add_table(Search *search, Oid relid)
{
	Oid relfilenode = relinfo_relfilenode(relid);
	Table *table = hash_search(search->tables, &relfilenode, HASH_ENTER, NULL);

	table->relid = relid;
	table->blocks = relinfo_blocks(relid);
	table->next = 0;
	table->places = NIL;
	search->order = lappend(search->order, table);
}

/* The place stands with its table; false if the file is gone, or shorter than it was. */
static bool
add_place(Search *search, int range, const RangePlace *place)
{
	Table *table = hash_search(search->tables, &place->relfilenode, HASH_FIND, NULL);
	TablePlace *found;

	if (table == NULL || place->last >= table->blocks)
		return false;
	found = palloc(sizeof(TablePlace));
	found->range = range;
	found->place = place;
	table->places = lappend(table->places, found);
	return true;
}

static void
add_places(Search *search)
{
	for (int i = 0; i < search->nranges; i++)
	{
		ListCell *cell;

		foreach (cell, search->ranges[i]->places)
		{
			if (!add_place(search, i, lfirst(cell)))
				set_changed(search, i);
		}
	}
}

/* In the first transaction; what it makes must outlive that one. */
static void
begin_search(Search *search, Run *run, List *ranges)
{
	Migration *m = run->m;
	HASHCTL control = {
		.keysize = sizeof(Oid), .entrysize = sizeof(Table), .hcxt = CurrentMemoryContext};
	ListCell *cell;

	memset(search, 0, sizeof(Search)); /* a first try may have failed halfway */
	search->tables =
		hash_create("migrate_ext tables", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	search->nranges = search->left = list_length(ranges);
	search->ranges = palloc(search->nranges * sizeof(VerifyRange *));
	search->highs = palloc0(search->nranges * sizeof(Datum *));
	search->changed = palloc0(search->nranges * sizeof(bool));
	range_identity(m, &search->identity);
	run_as_owner(run);
	foreach (cell, ranges)
	{
		int i = foreach_current_index (cell);

		search->ranges[i] = lfirst(cell);
		search->highs[i] = range_bound(&search->identity, search->ranges[i]->high);
		if (search->ranges[i]->as_of == InvalidXLogRecPtr)
			set_changed(search, i);
		else if (search->oldest == InvalidXLogRecPtr || search->ranges[i]->as_of < search->oldest)
			search->oldest = search->ranges[i]->as_of;
	}
	run_as_self(run);
	add_table(search, m->source);
	foreach (cell, relinfo_leaves(m->target))
		add_table(search, lfirst_oid(cell));
	add_places(search);
	search->begun = true;
}

/* ------------------------------------------------------------------------
 * Looking
 * ------------------------------------------------------------------------
 */

/* A block that is newer than some range: which ranges had rows in it? */
static void
block_changed(Search *search, const Table *table, BlockNumber block, XLogRecPtr lsn)
{
	ListCell *cell;

	foreach (cell, table->places)
	{
		TablePlace *found = lfirst(cell);

		if (lsn > search->ranges[found->range]->as_of && found->place->first <= block &&
			block <= found->place->last)
			set_changed(search, found->range);
	}
}

/* The range that has this identity. */
static int
find_range(Search *search, RangeKey *key, const Datum *values)
{
	int low = 0;
	int high = search->nranges - 1;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (search->highs[middle] == NULL ||
			range_key_compare(key, values, search->highs[middle]) <= 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/*
 * And which have rows in it now?  Whether they are visible doesn't matter.  The key
 * of a dead row may be gone from TOAST: then it could be anybody's.
 */
static void
row_changed(Search *search, RangeKey *key, Relation rel, HeapTuple tuple, XLogRecPtr lsn)
{
	Datum values[INDEX_MAX_KEYS];
	int i;

	for (i = 0; i < key->n; i++)
	{
		bool isnull;
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), key->attnums[i] - 1);

		values[i] = heap_getattr(tuple, key->attnums[i], RelationGetDescr(rel), &isnull);
		if (isnull || (att->attlen == -1 && VARATT_IS_EXTERNAL(DatumGetPointer(values[i]))))
		{
			set_all_changed(search);
			return;
		}
	}
	i = find_range(search, key, values);
	if (lsn > search->ranges[i]->as_of)
		set_changed(search, i);
}

static void
look_at_rows(Search *search, RangeKey *key, Relation rel, Page page, XLogRecPtr lsn)
{
	HeapTupleData tuple;

	for (OffsetNumber n = FirstOffsetNumber; n <= PageGetMaxOffsetNumber(page) && search->left > 0;
		 n++)
	{
		ItemId item = PageGetItemId(page, n);

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSetInvalid(&tuple.t_self);
		row_changed(search, key, rel, &tuple, lsn);
	}
}

static void
look_at_block(Search *search, const Table *table, RangeKey *key, Relation rel, BlockNumber block,
			  BufferAccessStrategy strategy)
{
	Buffer buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
	PGAlignedBlock copy;
	XLogRecPtr lsn;
	bool changed;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	lsn = BufferGetLSNAtomic(buffer);
	if (lsn == InvalidXLogRecPtr)
		lsn = PG_UINT64_MAX; /* written without WAL */
	changed = !PageIsNew(BufferGetPage(buffer)) && lsn > search->oldest;
	/* comparisons may run code that must not hold up who writes the page */
	if (changed)
		memcpy(copy.data, BufferGetPage(buffer), BLCKSZ);
	UnlockReleaseBuffer(buffer);
	if (!changed)
		return;
	block_changed(search, table, block, lsn);
	look_at_rows(search, key, rel, (Page) copy.data, lsn);
}

/*
 * A piece of a table.  One that is gone, or has another file than at the beginning,
 * or can't be told by its blocks, has changed altogether.
 */
static void
look_at_piece(Search *search, Table *table)
{
	BlockNumber end = Min(table->blocks, table->next + PIECE_BLOCKS);
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	Relation rel = try_relation_open(table->relid, AccessShareLock);
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "migrate_ext block", ALLOCSET_DEFAULT_SIZES);
	MemoryContext outer = CurrentMemoryContext;
	RangeKey key = {0};

	if (rel == NULL || rel->rd_rel->relfilenode != table->relfilenode ||
		rel->rd_tableam != GetHeapamTableAmRoutine() ||
		rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT ||
		RelationGetNumberOfBlocks(rel) < end || !range_key(&key, rel, &search->identity))
		set_all_changed(search);
	MemoryContextSwitchTo(context); /* what comparisons leave behind */
	for (; table->next < end && search->left > 0; table->next++)
	{
		CHECK_FOR_INTERRUPTS();
		look_at_block(search, table, &key, rel, table->next, strategy);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(outer);
	MemoryContextDelete(context);
	if (rel != NULL)
		relation_close(rel, AccessShareLock);
	FreeAccessStrategy(strategy);
}

/* The next piece of all that is to be looked at. */
static void
look_on(Search *search, Run *run)
{
	ListCell *cell;

	foreach (cell, search->order)
	{
		Table *table = lfirst(cell);

		if (table->next < table->blocks && search->left > 0)
		{
			/* a type's comparison may be the owner's */
			run_as_owner(run);
			look_at_piece(search, table);
			run_as_self(run);
			return;
		}
	}
	search->done = true;
}

/* A look, and what it has to know. */
typedef struct Look
{
	Search search;
	List *ranges;
	MemoryContext context; /* of the search */
	bool paused;
} Look;

/* The body of an attempt: the first begins the search.  Nothing is done while it is paused. */
static void
look(Run *run, void *arg)
{
	Look *work = arg;
	Search *search = &work->search;
	Migration *m = run->m;

	search->done = m == NULL || (m->state != STATE_LIVE && m->state != STATE_SWAPPED) ||
				   m->goal == STATE_CANCELLED;
	work->paused = !search->done && m->paused;
	if (search->done || work->paused)
		return;
	LockRelationOid(front_of(m, direction_of(m)), AccessShareLock);
	LockRelationOid(back_of(m, direction_of(m)), AccessShareLock);
	run_report(run, "looking for what has changed since the last verification");
	MemoryContextSwitchTo(work->context);
	if (!search->begun)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		begin_search(search, run, work->ranges);
		PopActiveSnapshot();
	}
	look_on(search, run);
}

/* See verify_changed.h. */
List *
verify_changed(Run *run, List *ranges)
{
	MemoryContext outer = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(outer, "migrate_ext changed", ALLOCSET_DEFAULT_SIZES);
	Look work = {.search = {.done = ranges == NIL}, .ranges = ranges, .context = context};
	Search *search = &work.search;
	List *changed = NIL;
	ErrorData *error;
	int failures = 0;

	while (!search->done)
	{
		if (!throttle_may_go(run))
			continue;
		if (run_attempt(run, look, &work, &error))
			failures = 0;
		else if (!attempt_again(run, error, &failures))
			ReThrowError(error);
		if (work.paused)
			run_sleep(run, PAUSED_POLL_MS);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(outer);
	for (int i = 0; i < search->nranges; i++)
	{
		if (search->changed[i])
			changed = lappend(changed, search->ranges[i]);
	}
	MemoryContextDelete(context);
	return changed;
}
