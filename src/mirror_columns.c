/*-------------------------------------------------------------------------
 *
 * mirror_columns.c
 *	  Opening the mirror's maps of columns and its way to the leaves.
 *
 * An entry of the log has a few columns of a source row: the identity, and
 * those that the partition key depends on.  Found out here once: which columns
 * of the target these determine, whether they tell the leaf, and whether
 * carrying a row over can fail or calls functions of users.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "executor/executor.h"
#include "mirror_internal.h"
#include "optimizer/optimizer.h"
#include "partitioning/partdesc.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"

/* An expression that only renames a type is a plain column. */
static void
simplify_map(ColumnMap *map)
{
	int i;

	for (i = 0; i < map->natts; i++)
	{
		Node *bare = map->expr[i];

		while (bare != NULL && IsA(bare, RelabelType))
			bare = (Node *) ((RelabelType *) bare)->arg;
		if (bare != NULL && IsA(bare, Var) && ((Var *) bare)->varattno > 0)
		{
			map->from_attnum[i] = ((Var *) bare)->varattno;
			map->expr[i] = NULL;
		}
	}
}

/*
 * Can computing this column of a row raise an error?  Of a key that the row has
 * itself this is asked: only a cast can.  Where it has none, see map_lacks_key().
 */
static bool
is_risky(ColumnMap *map, int i)
{
	Node *expr = map->expr[i];

	if (map->derived[i] != NULL)
		expr = linitial(castNode(CoalesceExpr, expr)->args);
	while (expr != NULL && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return expr != NULL && !IsA(expr, Const) && !IsA(expr, Var);
}

static bool
is_map_risky(ColumnMap *map)
{
	int i;

	for (i = 0; i < map->natts; i++)
	{
		if (is_risky(map, i))
			return true;
	}
	return false;
}

static bool
map_has_user_code(ColumnMap *map)
{
	int i;

	for (i = 0; i < map->natts; i++)
	{
		Node *expr = map->expr[i];

		/* a derived key may pin its settings by itself, and only where it is derived */
		if (map->derived[i] != NULL && map->derived[i]->pinned)
			expr = linitial(castNode(CoalesceExpr, expr)->args);
		if (contains_user_code(expr))
			return true;
	}
	return false;
}

/* Is it nothing but casts around this column? */
static bool
is_cast_of(Node *expr, AttrNumber attnum)
{
	for (;;)
	{
		if (expr == NULL)
			return false;
		if (IsA(expr, Var))
			return ((Var *) expr)->varattno == attnum;
		if (IsA(expr, RelabelType))
			expr = (Node *) ((RelabelType *) expr)->arg;
		else if (IsA(expr, CoerceViaIO))
			expr = (Node *) ((CoerceViaIO *) expr)->arg;
		else if (IsA(expr, CoerceToDomain))
			expr = (Node *) ((CoerceToDomain *) expr)->arg;
		else if (IsA(expr, FuncExpr) && (((FuncExpr *) expr)->funcformat == COERCE_IMPLICIT_CAST ||
										 ((FuncExpr *) expr)->funcformat == COERCE_EXPLICIT_CAST))
			expr = linitial(((FuncExpr *) expr)->args);
		else
			return false;
	}
}

/*
 * The target's column that carries this identity column: the one of the same
 * name, else the first that does; 0 if there is none.
 */
static AttrNumber
find_target_identity(Mirror *mirror, ColumnMap *map, AttrNumber attnum)
{
	const char *name = NameStr(TupleDescAttr(mirror->source_desc, attnum - 1)->attname);
	AttrNumber found = 0;
	int i;

	for (i = 0; i < map->natts; i++)
	{
		bool same = strcmp(NameStr(TupleDescAttr(mirror->target_desc, i)->attname), name) == 0;

		if (map->from_attnum[i] != attnum && !is_cast_of(map->expr[i], attnum))
			continue;
		if (same)
			return i + 1;
		if (found == 0)
			found = i + 1;
	}
	return found;
}

static void
open_identity(Mirror *mirror, ColumnMap *map)
{
	int i;

	mirror->identity_plain = true;
	for (i = 0; i < mirror->log.nidentity; i++)
	{
		AttrNumber attnum = mirror->log.attnums[i];
		AttrNumber target = find_target_identity(mirror, map, attnum);

		if (target == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("no column of the target carries the key column \"%s\"",
							NameStr(TupleDescAttr(mirror->source_desc, attnum - 1)->attname)),
					 errhint("Give the target a column of that name.")));
		mirror->target_identity[i] = target;
		if (map->expr[target - 1] != NULL)
			mirror->identity_plain = false;
	}
}

/* Does an entry have all columns of the source that this is made of? */
static bool
entry_determines(Mirror *mirror, ColumnMap *map, int i, Bitmapset *logged)
{
	Bitmapset *members = NULL;
	int attr;

	if (map->derived[i] != NULL)
		return bms_is_member(map->derived[i]->source - FirstLowInvalidHeapAttributeNumber, logged);
	if (map->expr[i] == NULL)
		return bms_is_member(map->from_attnum[i] - FirstLowInvalidHeapAttributeNumber, logged);
	if (contain_mutable_functions(map->expr[i]))
		return false;
	pull_varattnos(map->expr[i], 1, &members);
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, members))
	{
		/* the row as a whole */
		members = bms_del_member(members, 0 - FirstLowInvalidHeapAttributeNumber);
		for (attr = 0; attr < mirror->source_desc->natts; attr++)
		{
			if (!TupleDescAttr(mirror->source_desc, attr)->attisdropped)
				members = bms_add_member(members, attr + 1 - FirstLowInvalidHeapAttributeNumber);
		}
	}
	return bms_is_subset(members, logged);
}

/*
 * What of the target's row an entry tells.  An expression counts only where
 * the partition key may need it: others would be evaluated for nothing, and
 * may fail.
 */
static void
open_key(Mirror *mirror, ColumnMap *map, Relation root)
{
	bool deeper = false;
	Bitmapset *logged = NULL;
	PartitionDesc partitions = RelationGetPartitionDesc(root, true);
	int i;

	for (i = 0; i < partitions->nparts; i++)
		deeper = deeper || !partitions->is_leaf[i];
	for (i = 0; i < mirror->log.natts; i++)
		logged =
			bms_add_member(logged, mirror->log.attnums[i] - FirstLowInvalidHeapAttributeNumber);

	mirror->entry_risky = false;
	for (i = 0; i < map->natts; i++)
	{
		Bitmapset *attr = bms_make_singleton(i + 1 - FirstLowInvalidHeapAttributeNumber);
		bool in_expression;

		if (TupleDescAttr(mirror->target_desc, i)->attisdropped ||
			!entry_determines(mirror, map, i, logged))
			continue;
		if ((is_risky(map, i) || map->derived[i] != NULL) && !deeper &&
			!has_partition_attrs(root, attr, &in_expression))
			continue;
		mirror->key_attrs = bms_add_member(mirror->key_attrs, i);
		mirror->entry_risky |= is_risky(map, i);
	}
	(void) columns_of_partition_key(mirror->m, &mirror->key_known);

	/* what routing runs on deeper levels isn't looked at: assume the worst */
	mirror->user_code =
		deeper || contains_user_code((Node *) RelationGetPartitionKey(root)->partexprs);
	for (i = 0; i < RelationGetPartitionKey(root)->partnatts; i++)
		mirror->user_code |=
			is_user_function(RelationGetPartitionKey(root)->partsupfunc[i].fn_oid, NULL);

	/* nor is a division by zero anybody's but the target's */
	mirror->routing_risky = mirror->user_code || RelationGetPartitionKey(root)->partexprs != NIL;
	mirror->entry_risky |= mirror->routing_risky;
}

/* Which keys are derived, and what to do where nothing comes of it. */
static void
open_derived(Mirror *mirror, ColumnMap *map)
{
	int i;

	for (i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL)
			mirror->derived = bms_add_member(mirror->derived, map->derived[i]->source);
	}
	mirror->root_key = columns_of_root_key(mirror->m->target);
	mirror->skip_null_key = columns_skip_null_key(mirror->m);
}

/*
 * Fill in the mirror's columns part.  Both tables are locked.  Errors of
 * columns_build() and 55000 where the target lacks the identity.
 */
void
map_open(Mirror *mirror)
{
	ColumnMap *forward = columns_build(mirror->m, DIRECTION_FORWARD);
	ColumnMap *reverse = NULL;
	Relation root = table_open(mirror->m->target, NoLock);

	simplify_map(forward);
	open_identity(mirror, forward);
	open_derived(mirror, forward);
	open_key(mirror, forward, root);
	mirror->map_risky = is_map_risky(forward);
	mirror->user_code |= map_has_user_code(forward);
	if (mirror->direction == DIRECTION_REVERSE)
	{
		reverse = columns_build(mirror->m, DIRECTION_REVERSE);
		simplify_map(reverse);
		mirror->map_risky = is_map_risky(reverse);
		mirror->user_code |= map_has_user_code(reverse);
	}
	mirror->forward_map = forward;
	mirror->reverse_map = reverse;
	mirror->entry_slot = MakeSingleTupleTableSlot(mirror->source_desc, &TTSOpsVirtual);
	mirror->key_slot = MakeSingleTupleTableSlot(mirror->target_desc, &TTSOpsVirtual);
	table_close(root, NoLock);
}

/* Compile what map_open() has found: what is compiled doesn't outlive the transaction. */
void
map_prepare(Mirror *mirror)
{
	mirror->forward = columns_prepare(mirror->forward_map, mirror->estate);
	if (mirror->reverse_map != NULL)
		mirror->reverse = columns_prepare(mirror->reverse_map, mirror->estate);
}

/*
 * Open the way to the leaves.  In direction forward this is the back side, and
 * open for good.  In reverse it is the front side: only while a call (or the
 * drain) needs it, so that the same session may alter it afterwards.
 */
void
router_open(Mirror *mirror)
{
	MemoryContext old_context = MemoryContextSwitchTo(mirror->open_context);
	ResourceOwner save_owner = CurrentResourceOwner;

	CurrentResourceOwner = mirror->owner;
	mirror->router_context =
		AllocSetContextCreate(CurrentMemoryContext, "migrate_ext routing", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(mirror->router_context);
	mirror->router_root =
		table_open(mirror->m->target,
				   mirror->direction == DIRECTION_FORWARD ? RowExclusiveLock : AccessShareLock);
	mirror->router_estate = CreateExecutorState();
	mirror->router = router_create(mirror->router_root, mirror->router_estate);
	CurrentResourceOwner = save_owner;
	MemoryContextSwitchTo(old_context);
}

void
router_close(Mirror *mirror)
{
	ResourceOwner save_owner = CurrentResourceOwner;

	if (mirror->router == NULL)
		return;
	CurrentResourceOwner = mirror->owner;
	router_free(mirror->router);
	FreeExecutorState(mirror->router_estate);
	table_close(mirror->router_root, NoLock);
	MemoryContextDelete(mirror->router_context);
	CurrentResourceOwner = save_owner;
	mirror->router = NULL;
}
