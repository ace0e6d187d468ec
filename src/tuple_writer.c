/*-------------------------------------------------------------------------
 *
 * tuple_writer.c
 *	  Writes many new rows into the leaves of a partitioned table.
 *
 * Rows are routed, checked, formed to heap tuples and kept a leaf, until a
 * leaf has enough of them for table_multi_insert: a page is then filled, logged
 * and unlocked once instead of once a row.  All memory is bounded, whatever
 * the number of leaves.
 *
 * What is buffered may hold TOAST pointers of the table that the rows were
 * read from: the snapshot they were read with must live until
 * tuple_writer_finish().
 *
 * Nothing fires: no triggers, no foreign keys; the rows are copies of rows that
 * passed all that.  Leaves normally have no index yet; those of an adopted
 * target may, and then get their entries here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attmap.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "router.h"
#include "tuple_writer.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

/*
 * A leaf is written when it has this many rows, or this many bytes of them.
 * COPY uses the same number of rows.  The bytes are some dozens of pages: what
 * a call costs beyond its pages is then lost in the noise, and the tuples
 * still fit the processor's cache.
 */
#define LEAF_MAX_TUPLES 1000
#define LEAF_MAX_BYTES (256 * 1024)

/*
 * All leaves are written when this much is buffered altogether.  With 1,024
 * leaves that is 16 kB each, two pages; a helper is so never larger than a
 * small work_mem, and there may be several.
 */
#define TOTAL_MAX_BYTES (16 * 1024 * 1024)

/* Room for tuples that a leaf begins with; most of 1,024 never need more. */
#define LEAF_INITIAL_TUPLES 32

typedef struct Leaf
{
	Oid relid; /* hash key */
	Relation rel;
	ResultRelInfo *result; /* NULL unless there are indexes */
	AttrMap *map;		   /* root's columns to the leaf's, NULL if the same */
	TupleTableSlot *slot;  /* for the mapped row, NULL if the same */
	int nnotnull;
	AttrNumber *notnull;
	int nchecks; /* to be evaluated */
	ExprState **checks;

	/* buffer */
	int ntuples;
	int capacity;
	HeapTuple *tuples;
	Size bytes;
} Leaf;

struct TupleWriter
{
	Relation root;
	bool check_constraints;
	EState *estate;
	Router *router;
	HTAB *leaves;
	CommandId command;

	/* the row at hand, in its leaf's format */
	Leaf *leaf;
	TupleTableSlot *row;

	/* leaves stay open, whatever subtransaction their first row came in */
	ResourceOwner owner;
	bool opening;

	/* memory: the writer's own, and what a flush needs */
	MemoryContext context;
	MemoryContext flush_context;
	Size bytes; /* in all leaves */

	/*
	 * One for all leaves.  One a leaf would keep a buffer pinned and a ring of
	 * buffers of its own in each of maybe 1,024 leaves.
	 */
	BulkInsertState bistate;

	/* table_multi_insert wants slots: those of leaves with the root's format */
	TupleDesc desc;
	TupleTableSlot *slots[LEAF_MAX_TUPLES];
	int nslots;
};

static Leaf *leaf_of_row(TupleWriter *writer, TupleTableSlot *slot);
static void leaf_open(TupleWriter *writer, Leaf *leaf);
static bool leaf_accepts(TupleWriter *writer, Leaf *leaf, TupleTableSlot *slot, RowError *error);
static void leaf_buffer(TupleWriter *writer, Leaf *leaf, TupleTableSlot *slot);
static void leaf_flush(TupleWriter *writer, Leaf *leaf);
static void flush_all(TupleWriter *writer);

/* ------------------------------------------------------------------------
 * The writer
 * ------------------------------------------------------------------------
 */

/*
 * See tuple_writer.h.  Leaves are locked RowExclusiveLock when they get their
 * first row.
 */
TupleWriter *
tuple_writer_create(Relation root, bool check_constraints)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "migrate_ext writer", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	TupleWriter *writer = palloc0(sizeof(TupleWriter));
	HASHCTL ctl;

	writer->root = root;
	writer->check_constraints = check_constraints;
	writer->context = context;
	writer->flush_context =
		AllocSetContextCreate(context, "migrate_ext writer flush", ALLOCSET_DEFAULT_SIZES);
	writer->estate = CreateExecutorState();
	writer->router = router_create(root, writer->estate);
	writer->command = GetCurrentCommandId(true);
	writer->owner = CurrentResourceOwner;
	writer->bistate = GetBulkInsertState();
	writer->desc = CreateTupleDescCopy(RelationGetDescr(root));

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Leaf);
	ctl.hcxt = context;
	writer->leaves =
		hash_create("migrate_ext leaves", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	MemoryContextSwitchTo(old_context);
	return writer;
}

/* See tuple_writer.h.  The caller is the owner: routing may run his functions. */
bool
tuple_writer_fits(TupleWriter *writer, TupleTableSlot *slot, RowError *error)
{
	Leaf *leaf = leaf_of_row(writer, slot);

	if (leaf == NULL)
	{
		error->sqlerrcode = ERRCODE_CHECK_VIOLATION;
		error->message = psprintf("no partition of relation \"%s\" found for row",
								  RelationGetRelationName(writer->root));
		return false;
	}
	if (leaf->map != NULL)
		slot = execute_attr_map_slot(leaf->map, slot, leaf->slot);
	writer->leaf = leaf;
	writer->row = slot;
	return leaf_accepts(writer, leaf, slot, error);
}

bool
tuple_writer_is_opening(TupleWriter *writer)
{
	return writer->opening;
}

/* See tuple_writer.h. */
void
tuple_writer_put(TupleWriter *writer)
{
	Leaf *leaf = writer->leaf;

	leaf_buffer(writer, leaf, writer->row);
	if (leaf->ntuples >= LEAF_MAX_TUPLES || leaf->bytes >= LEAF_MAX_BYTES)
		leaf_flush(writer, leaf);
	if (writer->bytes >= TOTAL_MAX_BYTES)
		flush_all(writer);
}

/* Write what is left, and close everything; locks stay. */
void
tuple_writer_finish(TupleWriter *writer)
{
	HASH_SEQ_STATUS status;
	Leaf *leaf;

	flush_all(writer);
	hash_seq_init(&status, writer->leaves);
	while ((leaf = hash_seq_search(&status)) != NULL)
	{
		if (leaf->result != NULL)
			ExecCloseIndices(leaf->result);
		if (leaf->slot != NULL)
			ExecDropSingleTupleTableSlot(leaf->slot);
		table_finish_bulk_insert(leaf->rel, 0);
		table_close(leaf->rel, NoLock);
	}
	for (int i = 0; i < writer->nslots; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	FreeBulkInsertState(writer->bistate);
	router_free(writer->router);
	FreeExecutorState(writer->estate);
	MemoryContextDelete(writer->context);
}

/* ------------------------------------------------------------------------
 * Leaves
 * ------------------------------------------------------------------------
 */

/*
 * The leaf of a row in the root's format, open; NULL if there is none.
 */
static Leaf *
leaf_of_row(TupleWriter *writer, TupleTableSlot *slot)
{
	for (;;)
	{
		Oid relid = router_route(writer->router, slot);
		Leaf *leaf;
		bool found;

		if (!OidIsValid(relid))
			return NULL;
		if (writer->leaf != NULL && writer->leaf->relid == relid)
			return writer->leaf;
		leaf = hash_search(writer->leaves, &relid, HASH_ENTER, &found);
		if (found)
			return leaf;
		leaf_open(writer, leaf);

		/*
		 * Locking the leaf may have told us of a partition made meanwhile,
		 * which takes rows that were the default partition's: route again.
		 */
	}
}

/*
 * Collect the leaf's NOT NULL columns.
 */
static void
find_notnull(Leaf *leaf)
{
	TupleDesc desc = RelationGetDescr(leaf->rel);

	leaf->nnotnull = 0;
	leaf->notnull = palloc(desc->natts * sizeof(AttrNumber));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attnotnull && !att->attisdropped)
			leaf->notnull[leaf->nnotnull++] = att->attnum;
	}
}

/* Prepare the leaf's CHECK constraints, in the executor state's memory. */
static void
prepare_checks(TupleWriter *writer, Leaf *leaf)
{
	TupleConstr *constraints = RelationGetDescr(leaf->rel)->constr;

	if (constraints == NULL)
		return;
	leaf->checks = palloc(constraints->num_check * sizeof(ExprState *));
	for (; leaf->nchecks < constraints->num_check; leaf->nchecks++)
		leaf->checks[leaf->nchecks] =
			prepare_check(&constraints->check[leaf->nchecks], writer->estate);
}

/*
 * A deferred check needs a trigger at the end of the transaction, which is the
 * executor's to queue.
 */
static void
check_indexes(ResultRelInfo *result)
{
	for (int i = 0; i < result->ri_NumIndices; i++)
	{
		Form_pg_index index = result->ri_IndexRelationDescs[i]->rd_index;

		if (!index->indimmediate)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("can't write to partition \"%s\"",
							RelationGetRelationName(result->ri_RelationDesc)),
					 errdetail("Its index \"%s\" belongs to a deferrable constraint.",
							   RelationGetRelationName(result->ri_IndexRelationDescs[i])),
					 errhint("Drop the constraint from the target; it is made after the copy.")));
	}
}

/*
 * Fill in a new entry: open and lock the leaf, find what its rows must satisfy.
 */
static void
leaf_open(TupleWriter *writer, Leaf *leaf)
{
	MemoryContext old_context = MemoryContextSwitchTo(writer->context);
	ResourceOwner old_owner = CurrentResourceOwner;
	Size rest = sizeof(Leaf) - offsetof(Leaf, rel);
	Relation rel;

	CurrentResourceOwner = writer->owner;
	writer->opening = true;
	rel = table_open(leaf->relid, RowExclusiveLock);
	MemSet(&leaf->rel, 0, rest);
	leaf->rel = rel;
	if (rel->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("partition \"%s\" is not a plain table", RelationGetRelationName(rel)),
				 errdetail_relkind_not_supported(rel->rd_rel->relkind)));

	leaf->map =
		build_attrmap_by_name_if_req(RelationGetDescr(writer->root), RelationGetDescr(rel), false);
	if (leaf->map != NULL)
		leaf->slot =
			MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)), &TTSOpsVirtual);
	find_notnull(leaf);
	if (writer->check_constraints)
		prepare_checks(writer, leaf);

	if (rel->rd_rel->relhasindex)
	{
		leaf->result = makeNode(ResultRelInfo);
		InitResultRelInfo(leaf->result, rel, 0, NULL, 0);
		ExecOpenIndices(leaf->result, false);
		check_indexes(leaf->result);
	}
	leaf->capacity = LEAF_INITIAL_TUPLES;
	leaf->tuples = palloc(leaf->capacity * sizeof(HeapTuple));
	writer->opening = false;
	CurrentResourceOwner = old_owner;
	MemoryContextSwitchTo(old_context);
}

/*
 * Does the row, in the leaf's format, satisfy what it must?  An expression that
 * fails raises its own error.
 */
static bool
leaf_accepts(TupleWriter *writer, Leaf *leaf, TupleTableSlot *slot, RowError *error)
{
	TupleDesc desc = RelationGetDescr(leaf->rel);
	const char *name = RelationGetRelationName(leaf->rel);
	ExprContext *econtext = GetPerTupleExprContext(writer->estate);
	int failed = 0;

	for (int i = 0; i < leaf->nnotnull; i++)
	{
		if (!slot_attisnull(slot, leaf->notnull[i]))
			continue;
		error->sqlerrcode = ERRCODE_NOT_NULL_VIOLATION;
		error->message =
			psprintf("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
					 NameStr(TupleDescAttr(desc, leaf->notnull[i] - 1)->attname), name);
		return false;
	}
	econtext->ecxt_scantuple = slot;
	while (failed < leaf->nchecks && ExecCheck(leaf->checks[failed], econtext))
		failed++;
	ResetExprContext(econtext);
	if (failed == leaf->nchecks)
		return true;
	error->sqlerrcode = ERRCODE_CHECK_VIOLATION;
	error->message = psprintf("new row for relation \"%s\" violates check constraint \"%s\"", name,
							  desc->constr->check[failed].ccname);
	return false;
}

/* ------------------------------------------------------------------------
 * Buffers
 * ------------------------------------------------------------------------
 */

/* Keep a copy of a row in the leaf's format. */
static void
leaf_buffer(TupleWriter *writer, Leaf *leaf, TupleTableSlot *slot)
{
	MemoryContext old_context = MemoryContextSwitchTo(writer->context);
	HeapTuple tuple = ExecCopySlotHeapTuple(slot);
	Size bytes = GetMemoryChunkSpace(tuple);

	if (leaf->ntuples == leaf->capacity)
	{
		leaf->capacity = Min(leaf->capacity * 2, LEAF_MAX_TUPLES);
		leaf->tuples = repalloc(leaf->tuples, leaf->capacity * sizeof(HeapTuple));
	}
	leaf->tuples[leaf->ntuples++] = tuple;
	leaf->bytes += bytes;
	writer->bytes += bytes;
	MemoryContextSwitchTo(old_context);
}

/*
 * Slots for the leaf's tuples.  A heap needs no more of a slot than the tuple
 * in it, and an index the columns; so leaves of the root's format share them,
 * and others, which are rare, get some for the moment.
 */
static TupleTableSlot **
leaf_slots(TupleWriter *writer, Leaf *leaf)
{
	MemoryContext old_context;
	TupleTableSlot **slots = writer->slots;

	if (leaf->map != NULL)
	{
		slots = MemoryContextAlloc(writer->flush_context, leaf->ntuples * sizeof(TupleTableSlot *));
		old_context = MemoryContextSwitchTo(writer->flush_context);
		for (int i = 0; i < leaf->ntuples; i++)
			slots[i] = MakeSingleTupleTableSlot(leaf->slot->tts_tupleDescriptor, &TTSOpsHeapTuple);
	}
	else
	{
		old_context = MemoryContextSwitchTo(writer->context);
		while (writer->nslots < leaf->ntuples)
			writer->slots[writer->nslots++] =
				MakeSingleTupleTableSlot(writer->desc, &TTSOpsHeapTuple);
	}
	MemoryContextSwitchTo(old_context);

	for (int i = 0; i < leaf->ntuples; i++)
		ExecStoreHeapTuple(leaf->tuples[i], slots[i], true);
	return slots;
}

/* Index entries of the rows just written; only an adopted target has any. */
static void
insert_index_entries(TupleWriter *writer, Leaf *leaf, TupleTableSlot **slots)
{
	if (leaf->result == NULL || leaf->result->ri_NumIndices == 0)
		return;
	for (int i = 0; i < leaf->ntuples; i++)
	{
		slots[i]->tts_tableOid = leaf->relid;
		(void) ExecInsertIndexTuples(leaf->result, slots[i], writer->estate, false, false, NULL,
									 NIL, false);
		ResetPerTupleExprContext(writer->estate);
	}
	index_inserts_end(leaf->result);
}

/* Write the leaf's buffered rows. */
static void
leaf_flush(TupleWriter *writer, Leaf *leaf)
{
	MemoryContext old_context;
	TupleTableSlot **slots;

	CHECK_FOR_INTERRUPTS();
	if (leaf->ntuples == 0)
		return;
	slots = leaf_slots(writer, leaf);

	/* its current page may be another leaf's */
	ReleaseBulkInsertStatePin(writer->bistate);

	/* leaks memory */
	old_context = MemoryContextSwitchTo(writer->flush_context);
	table_multi_insert(leaf->rel, slots, leaf->ntuples, writer->command, 0, writer->bistate);
	insert_index_entries(writer, leaf, slots);
	MemoryContextSwitchTo(old_context);

	/* frees the tuples */
	for (int i = 0; i < leaf->ntuples; i++)
	{
		ExecClearTuple(slots[i]);
		if (leaf->map != NULL)
			ExecDropSingleTupleTableSlot(slots[i]);
	}
	MemoryContextReset(writer->flush_context);
	writer->bytes -= leaf->bytes;
	leaf->bytes = 0;
	leaf->ntuples = 0;
}

static void
flush_all(TupleWriter *writer)
{
	HASH_SEQ_STATUS status;
	Leaf *leaf;

	hash_seq_init(&status, writer->leaves);
	while ((leaf = hash_seq_search(&status)) != NULL)
		leaf_flush(writer, leaf);
}
