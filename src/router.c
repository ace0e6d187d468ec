/*-------------------------------------------------------------------------
 *
 * router.c
 *	  Finds the leaf of a row, for any number of levels of partitioning.
 *
 * PostgreSQL's own ExecFindPartition raises an error where no partition takes
 * a row, opens and locks the leaf, and wants an executor's state.  A
 * write-through must know beforehand whether there is a leaf, and probes the
 * leaves of old keys, which it may not need to open.  So this does the search
 * alone, through the functions that the partitioning code exports.
 *
 * A router has one Level a partitioned table that it came through: the
 * relation, its key, and a map from the root's columns (names are the same on
 * all levels, numbers need not be).  Levels below the root are opened when
 * first needed, under the resource owner and memory context of the router's
 * creation: in a trigger, the current ones may end with the statement.
 *
 * Partitions that come or go meanwhile: a descriptor is fetched anew from the
 * relcache at every search, which costs two comparisons, and the relcache is
 * told of changes whenever a lock is taken.  A caller that locks a leaf which
 * it had not locked before routes again afterwards: in between, a row of the
 * default partition may have got a partition of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attmap.h"
#include "access/table.h"
#include "access/tupconvert.h"
#include "compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "router.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/resowner.h"

/* A partitioned table on the way from the root to the leaves. */
typedef struct Level
{
	Oid relid; /* hash key */
	Relation rel;
	PartitionKey key;
	AttrMap *map;		  /* root's columns to this level's, NULL if the same */
	TupleTableSlot *slot; /* for the mapped row, NULL if the same */
	List *key_states;	  /* ExprState of each key that is an expression */
} Level;

struct Router
{
	Level root;
	HTAB *levels;		   /* below the root; NULL until needed */
	ExprContext *econtext; /* of our own: reset after every search */

	/* what levels opened later belong to */
	MemoryContext context;
	ResourceOwner owner;
	EState *estate;
};

static void level_init(Router *router, Level *level, Relation rel);
static Level *level_get(Router *router, Oid relid);
static int level_search(Level *level, PartitionDesc desc, ExprContext *econtext,
						TupleTableSlot *slot);
static int bound_search(PartitionKey key, PartitionBoundInfo bounds, Datum *values, bool *isnull);

/*
 * Make a router for "root", in CurrentMemoryContext.  Takes no lock.
 */
Router *
router_create(Relation root, EState *estate)
{
	Router *router = palloc0(sizeof(Router));

	Assert(root->rd_rel->relkind == RELKIND_PARTITIONED_TABLE);

	router->context = CurrentMemoryContext;
	router->owner = CurrentResourceOwner;
	router->estate = estate;
	router->econtext = CreateExprContext(estate);
	level_init(router, &router->root, root);
	return router;
}

/*
 * Close the tables between the root and the leaves.  Their locks stay until
 * the transaction ends.
 */
void
router_free(Router *router)
{
	ResourceOwner save_owner = CurrentResourceOwner;
	HASH_SEQ_STATUS status;
	Level *level;

	CurrentResourceOwner = router->owner;
	if (router->levels != NULL)
	{
		hash_seq_init(&status, router->levels);
		while ((level = hash_seq_search(&status)) != NULL)
		{
			if (level->rel == NULL)
				continue; /* opening it failed */
			if (level->slot != NULL)
				ExecDropSingleTupleTableSlot(level->slot);
			table_close(level->rel, NoLock);
		}
		hash_destroy(router->levels);
	}
	CurrentResourceOwner = save_owner;
	FreeExprContext(router->econtext, true);
	pfree(router);
}

/*
 * The leaf of a row in the root's format, or InvalidOid.  May lock partitioned
 * tables below the root (RowExclusiveLock).  Evaluates key expressions, and
 * the functions of user-defined operator classes: the caller is the owner.
 */
Oid
router_route(Router *router, TupleTableSlot *slot)
{
	Level *level = &router->root;
	MemoryContext old_context;
	Oid leaf = InvalidOid;

	old_context = MemoryContextSwitchTo(router->econtext->ecxt_per_tuple_memory);
	for (;;)
	{
		PartitionDesc desc = RelationGetPartitionDesc(level->rel, true);
		TupleTableSlot *level_slot = slot;
		int index;

		CHECK_FOR_INTERRUPTS();
		if (desc->nparts == 0)
			break;
		if (level->map != NULL)
			level_slot = execute_attr_map_slot(level->map, slot, level->slot);

		index = level_search(level, desc, router->econtext, level_slot);
		if (level->map != NULL)
			ExecClearTuple(level->slot);
		if (index < 0)
			break;
		if (desc->is_leaf[index])
		{
			leaf = desc->oids[index];
			break;
		}
		level = level_get(router, desc->oids[index]);
	}
	MemoryContextSwitchTo(old_context);
	ResetExprContext(router->econtext);
	return leaf;
}

/*
 * Fill in a level for an open partitioned table.  Everything it needs goes to
 * the router's context.
 */
static void
level_init(Router *router, Level *level, Relation rel)
{
	MemoryContext old_context = MemoryContextSwitchTo(router->context);
	ListCell *cell;

	level->relid = RelationGetRelid(rel);
	level->key = RelationGetPartitionKey(rel);
	level->map = NULL;
	level->slot = NULL;
	level->key_states = NIL;

	if (level != &router->root)
	{
		TupleDesc root_desc = RelationGetDescr(router->root.rel);

		level->map = build_attrmap_by_name_if_req(root_desc, RelationGetDescr(rel), false);
		/* a copy of the descriptor: no reference that a resource owner counts */
		if (level->map != NULL)
			level->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)),
												   &TTSOpsVirtual);
	}

	foreach (cell, level->key->partexprs)
		level->key_states =
			lappend(level->key_states, ExecPrepareExpr(copyObject(lfirst(cell)), router->estate));

	level->rel = rel;
	MemoryContextSwitchTo(old_context);
}

/*
 * The level of a partitioned table below the root; opens and locks it
 * (RowExclusiveLock) the first time.
 */
static Level *
level_get(Router *router, Oid relid)
{
	ResourceOwner save_owner = CurrentResourceOwner;
	Level *level;
	bool found;

	if (router->levels == NULL)
	{
		HASHCTL ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Level);
		ctl.hcxt = router->context;
		router->levels =
			hash_create("migrate_ext router", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	level = hash_search(router->levels, &relid, HASH_ENTER, &found);
	if (!found)
		level->rel = NULL;
	if (level->rel == NULL)
	{
		/* An error here aborts the transaction that "owner" belongs to, or is its own. */
		CurrentResourceOwner = router->owner;
		level_init(router, level, table_open(relid, RowExclusiveLock));
		CurrentResourceOwner = save_owner;
	}
	return level;
}

/*
 * The index of the partition that takes a row in this level's format, or -1.
 */
static int
level_search(Level *level, PartitionDesc desc, ExprContext *econtext, TupleTableSlot *slot)
{
	PartitionKey key = level->key;
	ListCell *expr_cell = list_head(level->key_states);
	Datum values[PARTITION_MAX_KEYS];
	bool isnull[PARTITION_MAX_KEYS];

	econtext->ecxt_scantuple = slot;
	for (int i = 0; i < key->partnatts; i++)
	{
		if (key->partattrs[i] != 0)
			values[i] = slot_getattr(slot, key->partattrs[i], &isnull[i]);
		else
		{
			values[i] = ExecEvalExpr((ExprState *) lfirst(expr_cell), econtext, &isnull[i]);
			expr_cell = lnext(level->key_states, expr_cell);
		}
	}
	econtext->ecxt_scantuple = NULL;
	return bound_search(key, desc->boundinfo, values, isnull);
}

/*
 * The index of the partition for these key values: the one whose bounds
 * contain them, else the default one, else -1.
 */
static int
bound_search(PartitionKey key, PartitionBoundInfo bounds, Datum *values, bool *isnull)
{
	int index = -1;
	bool equal = false;
	int offset;

	if (key->strategy == PARTITION_STRATEGY_HASH)
	{
		uint64 hash = compute_partition_hash_value(key->partnatts, key->partsupfunc,
												   key->partcollation, values, isnull);

		index = bounds->indexes[hash % bounds->nindexes];
	}
	else if (key->strategy == PARTITION_STRATEGY_LIST)
	{
		if (isnull[0])
			index = bounds->null_index;
		else
		{
			offset = partition_list_bsearch(key->partsupfunc, key->partcollation, bounds, values[0],
											&equal);
			if (offset >= 0 && equal)
				index = bounds->indexes[offset];
		}
	}
	else
	{
		bool has_null = false;

		Assert(key->strategy == PARTITION_STRATEGY_RANGE);

		/* No range contains a NULL, whatever its position in the key. */
		for (int i = 0; i < key->partnatts; i++)
			has_null |= isnull[i];
		if (!has_null)
		{
			offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation, bounds,
												   key->partnatts, values, &equal);

			/* The bound found is a lower one: its range ends at the next, whose entry it is. */
			index = bounds->indexes[offset + 1];
		}
	}
	return index >= 0 ? index : bounds->default_index;
}
