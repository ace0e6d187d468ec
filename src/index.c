/*-------------------------------------------------------------------------
 *
 * index.c
 *	  indexing -> catching_up: the source's indexes on the target.
 *
 * Leaves get theirs one by one, each build a batch that any worker takes: the
 * one on the identity first, on all leaves, then the others.  A batch names the
 * leaf and the source's index, and nothing more; the statement is made from
 * what the source's index is when the build begins.
 *
 * At the end the leader makes, in one transaction, the partitioned tables' own
 * indexes (ON ONLY, empty), and attaches what the leaves have.  The leaf's
 * index is found by its definition, not by name, and is built on the spot where
 * there is none: the source may have got another index meanwhile.  So the
 * batches only do in advance and in parallel what the end would do anyway, and
 * a crash at any point leaves something to go on with.
 *
 * Nobody else uses the target yet: writers only log, so a SHARE lock on a leaf
 * for hours is in nobody's way but VACUUM's, which yields.  The source is
 * locked for moments only, to read definitions: a TRUNCATE of it must not wait
 * for an index build, nor everybody else for the TRUNCATE.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "batch.h"
#include "catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "commands/comment.h"
#include "debug_point.h"
#include "index_def.h"
#include "index_drop.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "relinfo.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* ------------------------------------------------------------------------
 * Reading definitions
 * ------------------------------------------------------------------------
 */

/*
 * Definitions are read as the owner and with a snapshot: the relation cache
 * simplifies index expressions, which may run his functions.  The source is
 * locked only meanwhile.
 */
static void
begin_reading(Run *run)
{
	LockRelationOid(run->m->source, AccessShareLock);
	run_as_owner(run);
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_reading(Run *run)
{
	PopActiveSnapshot();
	run_as_self(run);
	UnlockRelationOid(run->m->source, AccessShareLock);
}

/* Definitions of all indexes that the target lacks; List of IndexDef *. */
static List *
read_definitions(Run *run)
{
	List *defs = NIL;
	ListCell *cell;

	begin_reading(run);
	foreach (cell, index_def_wanted(run->m))
	{
		IndexDef *def = index_def(run->m, lfirst_oid(cell));

		if (def != NULL)
			defs = lappend(defs, def);
	}
	end_reading(run);
	return defs;
}

/* ------------------------------------------------------------------------
 * Batches
 * ------------------------------------------------------------------------
 */

/*
 * One batch a leaf and index, the identity's before all others: with it, a leaf
 * can be drained to.
 */
static void
add_batches(Run *run)
{
	List *leaves = relinfo_leaves(run->m->target);
	List *defs = read_definitions(run);
	ListCell *def_cell;
	ListCell *leaf_cell;

	foreach (def_cell, defs)
	{
		IndexDef *def = lfirst(def_cell);

		foreach (leaf_cell, leaves)
			batch_add(run->m, BATCH_INDEX, lfirst_oid(leaf_cell), psprintf("%u", def->source));
	}
}

/*
 * A crash may lose the last commits, but none in part: an index and the batch that says
 * that it is built are of one transaction.  The last one, which attaches them all, is
 * flushed, and with it all before.  With many small leaves this is half of the time.
 */
static void
commit_later(void)
{
	set_until_commit("synchronous_commit", "off");
}

static void
index_error_context(void *arg)
{
	Batch *batch = arg;

	errcontext("building an index on partition \"%s\"",
			   get_rel_name(batch->relation) ? get_rel_name(batch->relation) : "(dropped)");
}

/*
 * Build one leaf's index, as the owner.
 */
static void
build_on_leaf(IndexDef *def, Oid leaf)
{
	char *name = index_def_leaf_name(def, leaf);

	(void) sql_run("%s", index_def_sql(def, name, leaf, false));
	CommandCounterIncrement();
	index_def_set_statistics(def, get_relname_relid(name, get_rel_namespace(leaf)));
}

/*
 * A migration has as many processes as it is allowed helpers.  Only where fewer
 * indexes are left than that does a build get those who would else be idle.
 */
static void
limit_parallel(Run *run, const Batch *batch)
{
	int each = settings_get_int(run->m, "workers") / Max(batch->open, 1);

	if (!run->in_session)
		set_until_commit("max_parallel_maintenance_workers",
						 psprintf("%d", Min(max_parallel_maintenance_workers, Max(each - 1, 0))));
}

/*
 * The transaction of a batch.  Locks: target ACCESS SHARE, so that the copy
 * can't start over (it empties the target) between the look at the batch and
 * the build's end; the leaf what the statement takes.  Bounded: a target that
 * was given to us may have readers.
 */
static void
index_batch(Run *run, void *arg)
{
	Batch *batch = arg;
	ErrorContextCallback callback = {error_context_stack, index_error_context, batch};
	IndexDef *def;

	if (run->m == NULL || run->m->state != STATE_INDEXING)
		return;
	error_context_stack = &callback;
	commit_later();
	begin_reading(run);
	def = index_def(run->m, atooid(batch->detail));
	end_reading(run);

	run_limit_lock_waits(run);
	LockRelationOid(run->m->target, AccessShareLock);
	if (batch_begin(run, batch))
	{
		/* an index or a leaf that is gone meanwhile is no work */
		if (def != NULL && get_rel_relkind(batch->relation) == RELKIND_RELATION)
		{
			run_report(run, "building index %s on %s", def->name, get_rel_name(batch->relation));
			limit_parallel(run, batch);
			run_as_owner(run);
			if (!index_def_exists(def, batch->relation))
				build_on_leaf(def, batch->relation);
			run_as_self(run);
		}
		batch_finish(run, batch, 0, 0, 0);
		ME_DEBUG_POINT("index_before_commit");
	}
	error_context_stack = callback.previous;
}

/* Build one index.  An error gives the batch back and goes on to the caller. */
StepResult
index_work(Run *run)
{
	Batch *batch = NULL;
	ErrorData *error = NULL;

	run_begin(run);
	commit_later();
	if (run->m != NULL && run->m->state == STATE_INDEXING && !run->m->paused)
		batch = batch_claim(run, BATCH_INDEX, 0);
	run_commit(run);
	if (batch == NULL)
		return STEP_WAIT;

	if (!run_attempt(run, index_batch, batch, &error))
	{
		batch_give_back(run, batch);
		ReThrowError(error);
	}
	return STEP_MORE;
}

/* ------------------------------------------------------------------------
 * Attaching
 * ------------------------------------------------------------------------
 */

/* Direct partitions, copied: the descriptor may change while we work. */
static List *
direct_partitions(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(rel, false);
	List *children = NIL;

	for (int i = 0; i < desc->nparts; i++)
		children = lappend_oid(children, desc->oids[i]);
	table_close(rel, NoLock);
	return children;
}

/* The leaf's index that is the same as its parent's; built if there is none. */
static Oid
find_or_build(IndexDef *def, Oid leaf, Oid parent_index)
{
	Oid index = index_def_find(leaf, parent_index);

	if (!OidIsValid(index))
	{
		build_on_leaf(def, leaf);
		index = index_def_find(leaf, parent_index);
	}
	if (!OidIsValid(index))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("partition \"%s\" has no index like \"%s\"", get_rel_name(leaf),
							   get_rel_name(parent_index))));
	return index;
}

/*
 * Make the index of a partitioned table, by this name, and attach those of its
 * partitions, whatever is below them.  Returns its OID.  From the bottom up: a
 * primary key can be made ON ONLY a table whose partitions' columns are NOT NULL
 * already, as their own primary keys make them.
 *
 *		CREATE INDEX t_a_idx_new ON ONLY public.t_new USING btree (a)
 *		ALTER INDEX public.t_a_idx_new ATTACH PARTITION public.t_p0_a_idx
 */
static Oid
make_partitioned(IndexDef *def, Oid relid, const char *name)
{
	List *children = direct_partitions(relid);
	List *child_indexes = NIL; /* InvalidOid for a leaf's, found later */
	Oid index;
	ListCell *cell;
	ListCell *index_cell;

	foreach (cell, children)
	{
		Oid child = lfirst_oid(cell);
		Oid child_index = InvalidOid;

		if (get_rel_relkind(child) == RELKIND_PARTITIONED_TABLE)
			child_index = make_partitioned(def, child, index_def_leaf_name(def, child));
		else if (def->contype == CONSTRAINT_PRIMARY && !index_def_exists(def, child))
			build_on_leaf(def, child);
		child_indexes = lappend_oid(child_indexes, child_index);
	}

	(void) sql_run("%s", index_def_sql(def, name, relid, true));
	CommandCounterIncrement();
	index = get_relname_relid(name, get_rel_namespace(relid));
	forboth (cell, children, index_cell, child_indexes)
	{
		Oid child_index = lfirst_oid(index_cell);

		CHECK_FOR_INTERRUPTS();
		if (!OidIsValid(child_index))
			child_index = find_or_build(def, lfirst_oid(cell), index);
		(void) sql_run("ALTER INDEX %s ATTACH PARTITION %s", sql_relation(index),
					   sql_relation(child_index));
		CommandCounterIncrement();
	}
	index_def_set_statistics(def, index);
	if (!get_index_isvalid(index))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("index \"%s\" is not valid on all partitions", name)));
	return index;
}

/* ------------------------------------------------------------------------
 * Replica identity
 * ------------------------------------------------------------------------
 */

static char
replica_identity(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	char identity = rel->rd_rel->relreplident;

	table_close(rel, AccessShareLock);
	return identity;
}

/*
 * Give a table of the target the source's replica identity.  (It is FULL while
 * there is no index.)  "like" is the target's counterpart of the source's
 * replica identity index, and is attached: so the table's own is its child.
 */
static void
set_replica_identity(Oid relid, char wanted, Oid like)
{
	char *what = wanted == REPLICA_IDENTITY_FULL	  ? "FULL"
				 : wanted == REPLICA_IDENTITY_NOTHING ? "NOTHING"
													  : "DEFAULT";

	if (wanted == REPLICA_IDENTITY_INDEX)
	{
		char *name = sql_text("SELECT c.relname FROM pg_catalog.pg_partition_tree(%u) t"
							  " JOIN pg_catalog.pg_index i ON i.indexrelid = t.relid"
							  " JOIN pg_catalog.pg_class c ON c.oid = t.relid"
							  " WHERE i.indrelid = %u",
							  like, relid);

		what = name ? psprintf("USING INDEX %s", quote_identifier(name)) : "FULL";
	}
	else if (replica_identity(relid) == wanted)
		return;
	(void) sql_run("ALTER TABLE ONLY %s REPLICA IDENTITY %s", sql_relation(relid), what);
}

/*
 * The same on all tables of a target that we made.
 */
static void
set_replica_identities(Migration *m, Oid like)
{
	char wanted = replica_identity(m->source);
	List *tables = lcons_oid(m->target, relinfo_leaves(m->target));
	ListCell *cell;

	if (!m->made_target || (wanted == REPLICA_IDENTITY_INDEX && !OidIsValid(like)))
		return;
	foreach (cell, tables)
		set_replica_identity(lfirst_oid(cell), wanted, like);
}

/* ------------------------------------------------------------------------
 * The leader's step
 * ------------------------------------------------------------------------
 */

/* What changed about a unique index, for people to read. */
static void
report_unique(Migration *m, IndexDef *def)
{
	if (def->leaf_only)
		event_add(m, "unique_per_partition", psprintf("{\"index\": %s}", json_quote(def->name)),
				  "index %s is unique in each partition only: the partition key contains an "
				  "expression",
				  quote_identifier(def->name));
	else if (def->added != NULL)
		event_add(m, "unique_widened",
				  psprintf("{\"index\": %s, \"added\": %s}", json_quote(def->name),
						   json_quote(def->added)),
				  "unique index %s got the partition key added (%s): it does not keep its old "
				  "columns unique across partitions",
				  quote_identifier(def->name), def->added);
}

/* No partitioned table can have it: make sure that each leaf does. */
static void
make_on_leaves(Migration *m, IndexDef *def)
{
	ListCell *cell;

	foreach (cell, relinfo_leaves(m->target))
	{
		Oid leaf = lfirst_oid(cell);

		CHECK_FOR_INTERRUPTS();
		if (!index_def_exists(def, leaf))
			build_on_leaf(def, leaf);
	}
}

/* What people wrote about an index of the source, and about its constraint. */
static void
copy_comments(Oid from, Oid to)
{
	char *comment;

	if (!OidIsValid(from))
		return;
	comment = GetComment(from, RelationRelationId, 0);
	if (comment != NULL)
		CreateComments(to, RelationRelationId, 0, comment);

	from = get_index_constraint(from);
	to = get_index_constraint(to);
	if (!OidIsValid(from) || !OidIsValid(to))
		return;
	comment = GetComment(from, ConstraintRelationId, 0);
	if (comment != NULL)
		CreateComments(to, ConstraintRelationId, 0, comment);
}

/*
 * Everything is built: make the partitioned indexes, in this transaction.  Lets
 * go of the lock on the source that index_step() took, once it has been read.
 */
static void
finish_indexing(Run *run)
{
	Migration *m = run->m;
	List *defs;
	Oid schema = get_rel_namespace(m->target);
	Oid replica_index = InvalidOid;
	Oid source_replica_index;
	ListCell *cell;
	Relation source;

	source = table_open(m->source, AccessShareLock);
	guard_check(m);
	defs = read_definitions(run);
	list_free(RelationGetIndexList(source)); /* sets the field */
	source_replica_index = source->rd_replidindex;
	table_close(source, AccessShareLock);
	UnlockRelationOid(m->source, AccessShareLock);

	run_report(run, "attaching indexes");
	run_as_owner(run);
	foreach (cell, defs)
	{
		IndexDef *def = lfirst(cell);

		if (def->leaf_only)
			make_on_leaves(m, def);
		else
		{
			Oid index = make_partitioned(def, m->target, index_def_new_name(def, schema));

			copy_comments(def->source, index);
			if (def->source == source_replica_index)
				replica_index = index;
		}
	}
	set_replica_identities(m, replica_index);
	run_as_self(run);
	index_record_made(m);
	foreach (cell, defs)
		report_unique(m, lfirst(cell));

	/* a primary key makes its columns NOT NULL: that was us */
	m->target_shape = relinfo_target_shape(m->target);
	catalog_save_shapes(m);
	ME_DEBUG_POINT("indexing_before_commit");
	state_change(m, STATE_CATCHING_UP, "all indexes of %s are built", sql_relation(m->target));
}

/*
 * Add the batches; later, when all are done, finish.  Locks of the last
 * transaction: whatever making and attaching indexes takes on the target.
 */
StepResult
index_step(Run *run)
{
	StepResult result = STEP_DONE;

	run_begin(run);
	if (run->m != NULL && run->m->state == STATE_INDEXING)
	{
		result = STEP_MORE;
		run_limit_lock_waits(run);
		LockRelationOid(run->m->source, AccessShareLock);
		LockRelationOid(run->m->target, AccessShareLock);
		guard_check(run->m);
		if (batch_count(run->m, BATCH_INDEX) == 0)
			add_batches(run);
		if (batch_open_count(run->m, BATCH_INDEX) == 0)
		{
			finish_indexing(run);
			result = STEP_DONE;
		}
	}
	run_commit(run);
	return result;
}
