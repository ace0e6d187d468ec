/*-------------------------------------------------------------------------
 *
 * range_sum.c
 *	  Reads both sides of a range and adds up hashes of their rows; see range_sum.h.
 *
 * A row counts as what it is on the back side, byte for byte, as it does to
 * compare.c: of each column of the back table the value's image, decompressed and
 * fetched from TOAST.  Two hashes of 64 bits are made of it, and each is added to
 * its sum.  So the order in which rows come doesn't matter, nor in which leaf, and
 * the sides need no join; what differs by accident has equal sums once in 2^128.
 * Where the sums differ, compare.c tells by how much.
 *
 * It is a bitmap scan by hand, of each table that can have rows of the range: what
 * the executor would do, without planning a statement over all leaves for every
 * range, or forming rows.  Visibility is told a page at a time, and each page is
 * read once a range, also where the identity's order isn't the table's.
 *
 * Computed columns (options.columns) are computed as the copy does; an error that
 * a row's values cause makes the range one for compare.c.  Where keys are derived, or
 * rows left out, the source's rows come by a statement, with its joins.  Not so after
 * a swap, when which keys the original has differs from row to row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "columns.h"
#include "compare.h"
#include "compat.h"
#include "errors.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "optimizer/optimizer.h"
#include "range_key.h"
#include "range_sum.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/*
 * Room for the bitmap of a range: some 50 bytes a page.  Where more pages than
 * that have rows of it, the range is one for compare.c.
 */
#define BITMAP_BYTES (64 * 1024 * 1024L)

/* One side while it is read. */
typedef struct SideReader
{
	Relation root;
	const RangeIdentity *identity;
	Datum *low;
	Datum *high;
	RangeSums *sums;
	RangeSum *sum;

	/* what is hashed: attributes of the root, or all of the back's slot, computed */
	int natts;
	AttrNumber *attnums; /* 0: a column of the back that was dropped */
	bool *byval;
	int16 *len;
	ColumnEval *eval; /* or NULL: the attributes are all there is to it */
	Bitmapset *skip;  /* of a statement's columns: a row where one is NULL is left out */
	EState *estate;
	TupleTableSlot *root_slot;
	TupleTableSlot *back_slot;
} SideReader;

/* ------------------------------------------------------------------------
 * Hashing a row
 * ------------------------------------------------------------------------
 */

/* fasthash64's steps, with two multipliers side by side. */
static inline void
hash_word(uint64 *hash, uint64 word)
{
	word ^= word >> 23;
	word *= UINT64CONST(0x2127599bf4325c37);
	word ^= word >> 47;
	hash[0] = (hash[0] ^ word) * UINT64CONST(0x880355f21e6d1965);
	hash[1] = (hash[1] ^ ((word << 32) | (word >> 32))) * UINT64CONST(0x9e3779b97f4a7c15);
}

static inline uint64
hash_end(uint64 hash)
{
	hash ^= hash >> 33;
	hash *= UINT64CONST(0xff51afd7ed558ccd);
	hash ^= hash >> 33;
	hash *= UINT64CONST(0xc4ceb9fe1a85ec53);
	return hash ^ (hash >> 33);
}

static void
hash_bytes_of(uint64 *hash, const char *data, Size length)
{
	uint64 word;

	hash_word(hash, length);
	for (; length >= sizeof(word); length -= sizeof(word), data += sizeof(word))
	{
		memcpy(&word, data, sizeof(word));
		hash_word(hash, word);
	}
	if (length > 0)
	{
		word = 0;
		memcpy(&word, data, length);
		hash_word(hash, word);
	}
}

static void
hash_varlena(uint64 *hash, Datum value)
{
	struct varlena *plain = PG_DETOAST_DATUM_PACKED(value);

	hash_bytes_of(hash, VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain));
	if ((Pointer) plain != DatumGetPointer(value))
		pfree(plain);
}

static inline void
hash_value(uint64 *hash, Datum value, bool byval, int16 len)
{
	if (byval)
		hash_word(hash, (uint64) value);
	else if (len == -1)
		hash_varlena(hash, value);
	else if (len == -2)
		hash_bytes_of(hash, DatumGetCString(value), strlen(DatumGetCString(value)));
	else
		hash_bytes_of(hash, DatumGetPointer(value), len);
}

/* Add a row to its side; attnums name the slot's attributes. */
static inline void
add_row(SideReader *side, TupleTableSlot *slot, const AttrNumber *attnums)
{
	uint64 hash[2] = {UINT64CONST(0x6d69677261746521), UINT64CONST(0x243f6a8885a308d3)};
	uint64 nulls = 0;

	slot_getallattrs(slot);
	for (int i = 0; i < side->natts; i++)
	{
		int attribute = attnums[i] - 1;

		/* a NULL is told by its bit alone, 64 columns at a time */
		nulls <<= 1;
		if (attribute >= 0 && slot->tts_isnull[attribute])
			nulls |= 1;
		else if (attribute >= 0)
			hash_value(hash, slot->tts_values[attribute], side->byval[i], side->len[i]);
		if (i % 64 == 63 || i == side->natts - 1)
		{
			hash_word(hash, nulls);
			nulls = 0;
		}
	}
	side->sum->rows++;
	side->sum->sums[0] += hash_end(hash[0]);
	side->sum->sums[1] += hash_end(hash[1]);
}

/* The same where columns are computed; slot is of the root's format. */
static void
add_computed_row(SideReader *side, TupleTableSlot *slot)
{
	ExprContext *econtext = GetPerTupleExprContext(side->estate);
	MemoryContext old_context = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);

	columns_eval(side->eval, slot, side->back_slot, econtext);
	add_row(side, side->back_slot, side->attnums);
	MemoryContextSwitchTo(old_context);
	ResetExprContext(econtext);
}

/* ------------------------------------------------------------------------
 * Reading a table
 * ------------------------------------------------------------------------
 */

/* A table of the side under way. */
typedef struct TableReader
{
	Relation rel;
	AttrMap *to_root; /* or NULL: it has the root's attributes */
	AttrNumber *attnums;
	TupleTableSlot *slot;
	RangePlace *place;
} TableReader;

/* Where rows of the range are seen to stand: they come in order of pages. */
static void
note_place(SideReader *side, TableReader *table, BlockNumber block)
{
	if (table->place == NULL)
	{
		table->place = palloc(sizeof(RangePlace));
		table->place->relfilenode = table->rel->rd_rel->relfilenode;
		table->place->first = block;
		side->sums->places = lappend(side->sums->places, table->place);
	}
	table->place->last = block;
}

/* Rows of those pages that the snapshot sees.  False if there are too many pages. */
static bool
read_pages(SideReader *side, TableReader *table, TIDBitmap *bitmap)
{
	BitmapRows rows;

	bitmap_rows_begin(&rows, table->rel, GetActiveSnapshot(), bitmap);
	while (bitmap_rows_next(&rows, table->slot))
	{
		CHECK_FOR_INTERRUPTS();
		note_place(side, table, ItemPointerGetBlockNumber(&table->slot->tts_tid));
		if (side->eval == NULL)
			add_row(side, table->slot, table->attnums);
		else if (table->to_root == NULL)
			add_computed_row(side, table->slot);
		else
			add_computed_row(side,
							 execute_attr_map_slot(table->to_root, table->slot, side->root_slot));
	}
	bitmap_rows_end(&rows);
	return !rows.lossy;
}

/* Which attribute of this table is which of the root's. */
static void
map_attributes(SideReader *side, TableReader *table)
{
	TupleDesc root = RelationGetDescr(side->root);

	table->attnums = side->attnums;
	if (table->rel != side->root)
		table->to_root = build_attrmap_by_name_if_req(RelationGetDescr(table->rel), root, false);
	if (table->to_root == NULL || side->eval != NULL)
		return;
	table->attnums = palloc(side->natts * sizeof(AttrNumber));
	for (int i = 0; i < side->natts; i++)
		table->attnums[i] =
			side->attnums[i] > 0 ? table->to_root->attnums[side->attnums[i] - 1] : 0;
}

static bool
read_by_index(SideReader *side, TableReader *table, RangeKey *key)
{
	RangeScanKeys keys;
	TIDBitmap *bitmap = tbm_create(BITMAP_BYTES, NULL);
	Relation index = index_open(key->index, AccessShareLock);
	IndexScanDesc scan;
	bool done = true;

	range_scan_keys(&keys, key, side->low, side->high);
	scan = index_beginscan_bitmap(index, GetActiveSnapshot(), NULL, keys.n);
	index_rescan(scan, keys.keys, keys.n, NULL, 0);
	(void) index_getbitmap(scan, bitmap);
	index_endscan(scan);
	index_close(index, AccessShareLock);

	if (!tbm_is_empty(bitmap))
	{
		map_attributes(side, table);
		table->slot = table_slot_create(table->rel, NULL);
		done = read_pages(side, table, bitmap);
		ExecDropSingleTupleTableSlot(table->slot);
	}
	tbm_free(bitmap);
	return done;
}

/*
 * A table's rows of the range.  One that is gone has none any more; nor has one
 * been detached: the other side tells.
 */
static bool
read_table(SideReader *side, Oid relid)
{
	TableReader table = {try_table_open(relid, AccessShareLock)};
	RangeKey key = {0};
	bool done;

	if (table.rel == NULL)
		return true;
	done = range_key(&key, table.rel, side->identity) && read_by_index(side, &table, &key);
	if (table.rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT ||
		table.rel->rd_tableam != GetHeapamTableAmRoutine())
		side->sums->traceable = false;
	/* or the leaves would fill the lock table */
	table_close(table.rel, AccessShareLock);
	return done;
}

/* ------------------------------------------------------------------------
 * Reading a side
 * ------------------------------------------------------------------------
 */

static void
begin_side(SideReader *side, Oid root, TupleDesc back)
{
	side->root = table_open(root, NoLock);
	side->natts = back->natts;
	side->attnums = palloc0(back->natts * sizeof(AttrNumber));
	side->byval = palloc(back->natts * sizeof(bool));
	side->len = palloc(back->natts * sizeof(int16));
	for (int i = 0; i < back->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(back, i);

		side->attnums[i] = att->attisdropped ? 0 : i + 1;
		side->byval[i] = att->attbyval;
		side->len[i] = att->attlen;
	}
}

/* The front's: what becomes of its rows on the back side.  The caller is the owner. */
static void
map_front(SideReader *side, ColumnMap *map, TupleDesc back)
{
	for (int i = 0; map->plain && i < side->natts; i++)
		side->attnums[i] = map->from_attnum[i];
	if (map->plain)
		return;
	for (int i = 0; i < side->natts; i++)
	{
		if (contain_mutable_functions(map->expr[i]))
			side->sums->traceable = false; /* it may read other tables */
	}
	side->estate = CreateExecutorState();
	side->eval = columns_prepare(map, side->estate);
	side->root_slot = MakeSingleTupleTableSlot(RelationGetDescr(side->root), &TTSOpsVirtual);
	side->back_slot = MakeSingleTupleTableSlot(back, &TTSOpsVirtual);
}

/* What a statement is read into. */
typedef struct SumReceiver
{
	DestReceiver pub;
	SideReader *side;
} SumReceiver;

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	SideReader *side = ((SumReceiver *) self)->side;
	int column = -1;

	slot_getallattrs(slot);
	while ((column = bms_next_member(side->skip, column)) >= 0)
	{
		if (slot->tts_isnull[column])
		{
			side->sums->skipped++;
			return true;
		}
	}
	add_row(side, slot, side->attnums);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_nothing(DestReceiver *self)
{
}

/* Its columns are the back's, but for dropped ones. */
static void
map_statement(SideReader *side, Migration *m)
{
	Bitmapset *key = columns_skip_null_key(m) ? columns_of_root_key(m->target) : NULL;
	int column = 0;

	for (int i = 0; i < side->natts; i++)
	{
		if (side->attnums[i] == 0)
			continue;
		if (bms_is_member(i + 1, key))
			side->skip = bms_add_member(side->skip, column);
		side->attnums[i] = ++column;
	}
}

/* The front by a statement, as the owner. */
static void
read_by_statement(SideReader *side, const char *sql)
{
	SumReceiver receiver = {.pub = {receive_row, receiver_startup, receiver_nothing,
									receiver_nothing, DestTransientRel},
							.side = side};

	sql_read_into(sql, &receiver.pub, "compare");
}

static bool
read_side(SideReader *side)
{
	Oid relid = RelationGetRelid(side->root);
	List *tables = side->root->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? relinfo_leaves(relid)
																			: list_make1_oid(relid);
	bool done = true;
	ListCell *cell;

	foreach (cell, tables)
	{
		done = read_table(side, lfirst_oid(cell));
		if (!done)
			break;
	}
	return done;
}

/* Where columns are computed, a row's error is told apart in a subtransaction; false then. */
static bool
read_computed_side(SideReader *side)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		done = read_side(side);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		error = error_end_subtransaction(context, owner);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL && error_kind(error->sqlerrcode) < ERROR_DEFINITION)
		ReThrowError(error);
	return done && error == NULL;
}

static void
end_side(SideReader *side)
{
	if (side->eval != NULL)
	{
		ExecDropSingleTupleTableSlot(side->root_slot);
		ExecDropSingleTupleTableSlot(side->back_slot);
		FreeExecutorState(side->estate);
	}
	table_close(side->root, NoLock);
}

/* The front by what the map needs. */
static bool
read_front(SideReader *side, Migration *m, ColumnMap *map, TupleDesc back, const char *statement)
{
	if (statement != NULL)
	{
		side->sums->traceable = false; /* it reads other tables */
		map_statement(side, m);
		read_by_statement(side, statement);
		return true;
	}
	map_front(side, map, back);
	return side->eval == NULL ? read_side(side) : read_computed_side(side);
}

/* See range_sum.h. */
bool
range_sums(Migration *m, const char *low, const char *high, RangeSums *sums)
{
	ColumnMap *map = columns_build(m, direction_of(m));
	bool derived = json_field(m->options, "derived") != NULL || columns_skip_null_key(m);
	RangeIdentity identity;
	SideReader front = {.identity = &identity, .sums = sums, .sum = &sums->front};
	SideReader back = {.identity = &identity, .sums = sums, .sum = &sums->back};
	Relation back_root;
	UserSwitch user;
	char *statement = NULL;
	bool done;

	memset(sums, 0, sizeof(RangeSums));
	if (derived && direction_of(m) == DIRECTION_REVERSE)
		return false;
	if (derived)
		statement = compare_front_rows(m, compare_sides(m, false), low, high);
	sums->traceable = true;
	user_switch_owner(&user, m->owner);
	compare_set_planner();
	range_identity(m, &identity);
	front.low = back.low = range_bound(&identity, low);
	front.high = back.high = range_bound(&identity, high);

	back_root = table_open(map->to, NoLock);
	begin_side(&front, map->from, RelationGetDescr(back_root));
	begin_side(&back, map->to, RelationGetDescr(back_root));
	done = read_front(&front, m, map, RelationGetDescr(back_root), statement) && read_side(&back);
	end_side(&back);
	end_side(&front);
	table_close(back_root, NoLock);
	user_switch_back(&user);
	return done;
}
