/*-------------------------------------------------------------------------
 *
 * mirror_map.c
 *	  From one side's columns to the other's, for the mirror.
 *
 * An entry of the log has a few columns of a source row: the identity, and
 * those that the partition key depends on.  From it alone come the identity in
 * the target's types and the leaf that the row had then.  A whole row is
 * carried by columns_eval().
 *
 * Where a column is computed by an expression (a cast included), computing it
 * can fail for a row that the application is right to write.  A write-through
 * must turn that into a refusal.  Only then is the work done in a
 * subtransaction, which takes no transaction id and so costs next to nothing.
 * What an expression leaves behind when it fails (the executor's state of a
 * function in SQL, say) is not to be trusted: the mirror is opened anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "mirror_internal.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "partitioning/partdesc.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"

/* > 0: the subtransaction that is ending is a guard's. */
int			mirror_guard_depth = 0;

/* ------------------------------------------------------------------------
 * Guarding
 * ------------------------------------------------------------------------
 */

/* Errors that are not the row's fault must reach the session. */
static bool
is_fault_of_row(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK):
		case ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES):
		case ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR):
			return false;
		case ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR):
			return sqlerrcode == ERRCODE_INTERNAL_ERROR;	/* a function's elog() */
		default:
			return sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/* In the guard's PG_CATCH: end the subtransaction, turn the error into a refusal. */
static void
catch_error(Call *call, MemoryContext context, ResourceOwner owner, MirrorRefusal *refusal)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;

	mirror_guard_depth--;
	call->mirror->broken = true;
	if (!is_fault_of_row(error->sqlerrcode))
		ReThrowError(error);
	(void) refuse(call, refusal, error->sqlerrcode, "%s", error->message);
	FreeErrorData(error);
}

/*
 * Do work, which evaluates expressions.  Where it is risky, an error that is
 * the row's fault makes the result false and sets *refusal.  Settings must
 * have been pinned before: a nest level of settings can't outlive the
 * subtransaction that it was begun in.
 */
bool
run_guarded(Call *call, bool risky, Guarded work, void *arg, MirrorRefusal *refusal)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = false;

	if (!risky)
		return work(call, arg, refusal);

	BeginInternalSubTransaction(NULL);
	mirror_guard_depth++;
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		ok = work(call, arg, refusal);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		mirror_guard_depth--;
	}
	PG_CATCH();
	{
		catch_error(call, context, owner, refusal);
		ok = false;
	}
	PG_END_TRY();
	return ok;
}

static bool
is_user_function(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

static bool
user_code_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_user_function, context))
		return true;
	/* a domain's checks may be anything */
	if (IsA(node, CoerceToDomain) || IsA(node, SubLink) || IsA(node, NextValueExpr))
		return true;
	return expression_tree_walker(node, user_code_walker, context);
}

/*
 * Does evaluating this call what isn't PostgreSQL's own?  Such functions see
 * the session's settings, and run as the table's owner: the writer must not
 * choose their search_path.
 */
bool
contains_user_code(Node *node)
{
	return user_code_walker(node, NULL);
}

/* ------------------------------------------------------------------------
 * Opening
 * ------------------------------------------------------------------------
 */

/* An expression that only renames a type is a plain column. */
static void
simplify_map(ColumnMap *map)
{
	int			i;

	for (i = 0; i < map->natts; i++)
	{
		Node	   *bare = map->expr[i];

		while (bare != NULL && IsA(bare, RelabelType))
			bare = (Node *) ((RelabelType *) bare)->arg;
		if (bare != NULL && IsA(bare, Var) && ((Var *) bare)->varattno > 0)
		{
			map->from_attnum[i] = ((Var *) bare)->varattno;
			map->expr[i] = NULL;
		}
	}
}

/* Can evaluating it raise an error? */
static bool
is_risky(Node *expr)
{
	return expr != NULL && !IsA(expr, Const);
}

static bool
is_map_risky(ColumnMap *map)
{
	int			i;

	for (i = 0; i < map->natts; i++)
	{
		if (is_risky(map->expr[i]) && map->derived[i] == NULL)
			return true;
	}
	return false;
}

static bool
map_has_user_code(ColumnMap *map)
{
	int			i;

	for (i = 0; i < map->natts; i++)
	{
		/* a derived key pins its settings by itself, and only where it is derived */
		if (contains_user_code(map->expr[i]) && map->derived[i] == NULL)
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
		else if (IsA(expr, FuncExpr) &&
				 (((FuncExpr *) expr)->funcformat == COERCE_IMPLICIT_CAST ||
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
	AttrNumber	found = 0;
	int			i;

	for (i = 0; i < map->natts; i++)
	{
		bool		same = strcmp(NameStr(TupleDescAttr(mirror->target_desc, i)->attname), name) == 0;

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
	int			i;

	mirror->identity_plain = true;
	for (i = 0; i < mirror->log.nidentity; i++)
	{
		AttrNumber	attnum = mirror->log.attnums[i];
		AttrNumber	target = find_target_identity(mirror, map, attnum);

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
	Bitmapset  *members = NULL;
	int			attr;

	if (map->derived[i] != NULL)
		return bms_is_member(map->derived[i]->source - FirstLowInvalidHeapAttributeNumber,
							 logged);
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
				members = bms_add_member(members,
										 attr + 1 - FirstLowInvalidHeapAttributeNumber);
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
	bool		deeper = false;
	Bitmapset  *logged = NULL;
	PartitionDesc partitions = RelationGetPartitionDesc(root, true);
	int			i;

	for (i = 0; i < partitions->nparts; i++)
		deeper = deeper || !partitions->is_leaf[i];
	for (i = 0; i < mirror->log.natts; i++)
		logged = bms_add_member(logged,
								mirror->log.attnums[i] - FirstLowInvalidHeapAttributeNumber);

	mirror->entry_risky = false;
	for (i = 0; i < map->natts; i++)
	{
		Bitmapset  *attr = bms_make_singleton(i + 1 - FirstLowInvalidHeapAttributeNumber);
		bool		in_expression;

		if (TupleDescAttr(mirror->target_desc, i)->attisdropped ||
			!entry_determines(mirror, map, i, logged))
			continue;
		if (is_risky(map->expr[i]) && !deeper && !has_partition_attrs(root, attr, &in_expression))
			continue;
		mirror->key_attrs = bms_add_member(mirror->key_attrs, i);
		mirror->entry_risky |= is_risky(map->expr[i]) && map->derived[i] == NULL;
	}
	(void) columns_of_partition_key(mirror->m, &mirror->key_known);

	/* what routing runs on deeper levels isn't looked at: assume the worst */
	mirror->user_code = deeper || contains_user_code((Node *) RelationGetPartitionKey(root)->partexprs);
	for (i = 0; i < RelationGetPartitionKey(root)->partnatts; i++)
		mirror->user_code |= is_user_function(RelationGetPartitionKey(root)->partsupfunc[i].fn_oid,
											  NULL);
}

/* Which keys are derived, and what to do where nothing comes of it. */
static void
open_derived(Mirror *mirror, ColumnMap *map)
{
	int			i;

	for (i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL)
			mirror->derived = bms_add_member(mirror->derived, map->derived[i]->source);
	}
	mirror->root_key = columns_of_root_key(mirror->m->target);
	mirror->skip_null_key = columns_skip_null_key(mirror->m);
}

/*
 * Does a source's row lack its key?  Then what its key is derived from decides
 * where the target's row stands, and that may have changed since: anywhere.
 */
bool
map_lacks_key(Mirror *mirror, TupleTableSlot *source_row)
{
	int			attnum = -1;

	while ((attnum = bms_next_member(mirror->derived, attnum)) >= 0)
	{
		if (slot_attisnull(source_row, attnum))
			return true;
	}
	return false;
}

/*
 * Fill in the mirror's columns part.  Both tables are locked.  Errors of
 * columns_build() and 55000 where the target lacks the identity.
 */
void
map_open(Mirror *mirror)
{
	ColumnMap  *forward = columns_build(mirror->m, DIRECTION_FORWARD);
	ColumnMap  *reverse = NULL;
	Relation	root = table_open(mirror->m->target, NoLock);

	simplify_map(forward);
	open_identity(mirror, forward);
	open_derived(mirror, forward);
	open_key(mirror, forward, root);
	mirror->forward = columns_prepare(forward, mirror->estate);
	mirror->map_risky = is_map_risky(forward);
	mirror->user_code |= map_has_user_code(forward);
	if (mirror->direction == DIRECTION_REVERSE)
	{
		reverse = columns_build(mirror->m, DIRECTION_REVERSE);
		simplify_map(reverse);
		mirror->reverse = columns_prepare(reverse, mirror->estate);
		mirror->map_risky = is_map_risky(reverse);
		mirror->user_code |= map_has_user_code(reverse);
	}
	mirror->entry_slot = MakeSingleTupleTableSlot(mirror->source_desc, &TTSOpsVirtual);
	mirror->key_slot = MakeSingleTupleTableSlot(mirror->target_desc, &TTSOpsVirtual);
	table_close(root, NoLock);
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
	mirror->router_context = AllocSetContextCreate(CurrentMemoryContext, "migrate_ext routing",
												   ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(mirror->router_context);
	mirror->router_root = table_open(mirror->m->target,
									 mirror->direction == DIRECTION_FORWARD ?
									 RowExclusiveLock : AccessShareLock);
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

/* ------------------------------------------------------------------------
 * Entries
 * ------------------------------------------------------------------------
 */

/* Put an entry into the slot of a source row, all other columns NULL. */
static void
store_entry(Mirror *mirror, const MirrorEntry *entry)
{
	TupleTableSlot *slot = mirror->entry_slot;
	int			i;

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
	Oid			leaf;
} LeafArg;

/* Guarded: the leaf of a source row of which an entry's columns are there. */
static bool
route_source_row(Call *call, void *arg, MirrorRefusal *refusal)
{
	LeafArg    *leaf = arg;
	Mirror	   *mirror = call->mirror;
	TupleTableSlot *slot = mirror->key_slot;
	int			i = -1;

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
	LeafArg		arg = {source, InvalidOid};
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
	Mirror	   *mirror = call->mirror;
	Subject    *subject = arg;
	Datum		values[INDEX_MAX_KEYS];
	int			i;

	for (i = 0; i < mirror->log.nidentity; i++)
	{
		int			attr = mirror->target_identity[i] - 1;
		bool		isnull;

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
	int			i;

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
	int			i;

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
	int			i;

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
	Mirror	   *mirror = call->mirror;
	MirrorRefusal ignored = {0};
	int			i;

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
		Oid			leaf;

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
	TupleTableSlot *back;		/* in the root's format */
	Oid			leaf;			/* direction forward */
	bool		skipped;
} CarryArg;

/* Does a row of the target's root, as it would be, have no key? */
static bool
key_is_null(Mirror *mirror, TupleTableSlot *slot)
{
	int			attnum = -1;

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
	return mirror->map_risky ||
		(mirror->direction == DIRECTION_FORWARD && map_lacks_key(mirror, carry->front));
}

/* Guarded: carry a row over, and find its leaf. */
static bool
carry_row(Call *call, void *arg, MirrorRefusal *refusal)
{
	CarryArg   *carry = arg;
	Mirror	   *mirror = call->mirror;
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
	Mirror	   *mirror = call->mirror;
	Place	   *place;

	if (mirror->direction == DIRECTION_REVERSE)
		return place_get(mirror, mirror->m->source);
	for (;;)
	{
		Oid			leaf = carry->leaf;

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
	Mirror	   *mirror = call->mirror;
	bool		forward = mirror->direction == DIRECTION_FORWARD;
	CarryArg	carry = {wanted->front};

	carry.back = MakeSingleTupleTableSlot(forward ? mirror->target_desc : mirror->source_desc,
										  &TTSOpsVirtual);
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
											 MakeSingleTupleTableSlot(wanted->place->desc,
																	  &TTSOpsVirtual));
	return check_row(call, wanted, refusal);
}

/*
 * The identity of a row of the back side which stands in the way, as a subject
 * of its own.  NULL if it can't be told.
 */
Subject *
map_obstacle(Call *call, Row *row)
{
	Mirror	   *mirror = call->mirror;
	bool		forward = mirror->direction == DIRECTION_FORWARD;
	Subject    *subject = palloc0(sizeof(Subject));
	MirrorEntry *entry = palloc0(sizeof(MirrorEntry));
	MirrorRefusal ignored = {0};
	int			i;

	if (forward && !mirror->identity_plain)
		return NULL;
	entry->values = palloc0(mirror->log.natts * sizeof(Datum));
	entry->isnull = palloc(mirror->log.natts * sizeof(bool));
	memset(entry->isnull, true, mirror->log.natts * sizeof(bool));
	for (i = 0; i < mirror->log.nidentity; i++)
	{
		AttrNumber	attnum = row->place->identity[i];
		Datum		value = slot_getattr(row->slot, attnum, &entry->isnull[i]);

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
		subject->leaves = list_make1_oid(forward ? row->place->relid :
										 leaf_of_source_row(call, row->slot));
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
	Mirror	   *mirror = call->mirror;
	Subject    *subject = row->subject;
	MirrorEntry entry;
	int			i;

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
	EntryArg   *work = arg;
	Mirror	   *mirror = call->mirror;
	ColumnEval *eval = mirror->reverse;
	ExprContext *econtext = GetPerTupleExprContext(mirror->estate);
	int			i;

	econtext->ecxt_scantuple = work->root_slot;
	for (i = 0; i < mirror->log.natts; i++)
	{
		int			attr = mirror->log.attnums[i] - 1;
		Form_pg_attribute att = TupleDescAttr(mirror->source_desc, attr);
		Datum		value;

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
	bool		computed = false;
	int			i;

	for (i = 0; i < mirror->log.natts; i++)
	{
		AttrNumber	root_attnum = mirror->reverse->map->from_attnum[mirror->log.attnums[i] - 1];

		if (root_attnum == 0)
			computed = true;
		else
			entry->values[i] = slot_getattr(slot, place->to_root == NULL ? root_attnum :
											place->to_root->attnums[root_attnum - 1],
											&entry->isnull[i]);
	}
	return computed;
}

/* See mirror.h.  The caller is the owner. */
bool
mirror_entry(Mirror *mirror, Relation front, TupleTableSlot *slot, MirrorEntry *entry,
			 MirrorRefusal *refusal)
{
	Call		call = {.mirror = mirror, .result_context = CurrentMemoryContext};
	EntryArg	arg = {slot, entry};
	Place	   *place;
	bool		ok;
	int			i;

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
		arg.root_slot = execute_attr_map_slot(place->to_root, slot,
											  MakeSingleTupleTableSlot(mirror->target_desc,
																	   &TTSOpsVirtual));
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
	Place	   *place = place_get(mirror, RelationGetRelid(front));
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull;
	int			i;

	for (i = 0; i < place->nkeys; i++)
		values[i] = slot_getattr(slot, place->identity[i], &isnull);
	return changelog_identity(place->relid, place->nkeys, place->identity, values);
}
