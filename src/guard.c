/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Is everything still as we left it?  Asked at every batch, under the lock
 *	  on the source that keeps it so until the batch's end.
 *
 * A rewrite (VACUUM FULL, CLUSTER, ALTER TABLE) moves rows to other blocks and
 * so breaks the copy's list of block ranges, as long as one is being worked
 * off.  Later it matters that it may have changed values, of which no trigger
 * knows: before it is live both tables are compared (golive.c), and what was
 * verified counts no more (guard_mark()).  TRUNCATE leaves rows in the target that are
 * gone: its trigger writes a mark, which counts until the table is live.  Both
 * mean: start over.  A trigger, a column or a partition changed by somebody
 * else means: stop and say so, a person must look.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "common/hashfn.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "changelog.h"
#include "errors.h"
#include "relinfo.h"
#include "sqlgen.h"
#include "stages.h"
#include "sync_trigger.h"

static void
check_restart(Migration *m)
{
	if (m->state >= STATE_LIVE)
		return;
	if (truncation_pending(m->id))
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_RESTART),
						errmsg("table %s was truncated: the copy starts over",
							   sql_qualified(m->schema_name, m->table_name))));
	if (m->state <= STATE_COPYING && relinfo_relfilenode(m->source) != m->relfilenode)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_RESTART),
						errmsg("table %s was rewritten: the copy starts over",
							   sql_qualified(m->schema_name, m->table_name))));
}

/*
 * What we have loaded may be from before the lock: a leader that adds partitions
 * writes the new shape down with them, and replace_sync() shapes and options.
 */
static void
reload_definition(Migration *m)
{
	Migration *now = catalog_load(m->id, false);

	if (now == NULL)
		return;
	m->options = now->options;
	m->source_shape = now->source_shape;
	m->target_shape = now->target_shape;
}

/* What a table is like now, where that isn't what was written down; else NULL. */
static char *
source_shape(const Migration *m)
{
	char *shape = m->source_shape != NULL ? relinfo_shape(m->source) : NULL;

	return shape != NULL && strcmp(m->source_shape, shape) != 0 ? shape : NULL;
}

static char *
target_shape(const Migration *m)
{
	char *shape = m->target_shape != NULL ? relinfo_target_shape(m->target) : NULL;

	return shape != NULL && strcmp(m->target_shape, shape) != 0 ? shape : NULL;
}

typedef char *(*ShapeLook)(const Migration *m);

/*
 * The migration's row is read before the catalogs, by a mere look without a lock:
 * enforce_key(), replace_sync() or a leader that adds partitions may have committed
 * in between.  So what doesn't fit is compared with the row of now.
 */
static char *
changed_shape(Migration *m, ShapeLook look)
{
	if (look(m) == NULL)
		return NULL;
	reload_definition(m);
	return look(m);
}

static int
hint_changed(Migration *m)
{
	return errhint("Call migrate_ext.replace_sync to have the other table follow, or change them "
				   "back and call migrate_ext.resume; or %s.",
				   m->state == STATE_SWAPPED
					   ? "call migrate_ext.complete to stay with the partitioned table"
					   : "cancel the migration and make it anew");
}

/*
 * Also asked where the trigger comes, and where the copy starts over: the
 * target was made for these columns, and one that came later would be left out
 * in silence.
 */
void
guard_check_source(Migration *m)
{
	char *shape = changed_shape(m, source_shape);

	if (shape != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MIGRATION_TAMPERED),
				 errmsg("the columns of table \"%s\" have changed since the migration was made",
						get_rel_name(m->source)),
				 errdetail("In detail: %s.", relinfo_shape_difference(m->source_shape, shape)),
				 hint_changed(m)));
}

/* Entries of the log name a row by the columns of its key, and so it is looked up. */
static void
check_key(Migration *m)
{
	Identity *identity = relinfo_identity(m->source, true);
	LogColumns columns;

	changelog_columns(m->log, &columns);
	if (identity == NULL || identity->natts != columns.nidentity ||
		memcmp(identity->attnums, columns.attnums, identity->natts * sizeof(AttrNumber)) != 0)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_TAMPERED),
						errmsg("the key of table \"%s\" that names a row was dropped or changed",
							   get_rel_name(m->source)),
						errhint("Make it again and call migrate_ext.resume, or cancel the "
								"migration and make it anew.")));
}

static void
check_shapes(Migration *m)
{
	char *shape;

	reload_definition(m);
	guard_check_source(m);
	shape = changed_shape(m, target_shape);
	if (shape != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_MIGRATION_TAMPERED),
			 errmsg("the columns or partitions of table \"%s\" were changed by somebody else",
					get_rel_name(m->target)),
			 errdetail("In detail: %s.", relinfo_shape_difference(m->target_shape, shape)),
			 relinfo_same_columns(m->target_shape, shape)
				 ? errhint(
					   "Call migrate_ext.resume to go on with the partitions there are: everything is %s again.",
					   m->state < STATE_LIVE ? "copied" : "verified")
				 : hint_changed(m)));
}

/*
 * Not tampered with, but moved on: somebody's swap() committed, or the trigger
 * was put right, while we waited for the lock with what we had loaded before.
 * The step is then to be made again.
 */
static void
check_moved_on(Migration *m)
{
	Migration *now = catalog_load(m->id, false);

	if (now != NULL && (now->state != m->state || now->trigger_xmin != m->trigger_xmin))
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("migration \"%s\" has changed meanwhile", m->name),
						errdetail("It was in state %s and is in state %s.", state_name(m->state),
								  state_name(now->state)),
						errhint("Try again.")));
}

void
guard_check(Migration *m)
{
	char *problem;

	if (get_rel_name(m->source) == NULL || get_rel_name(m->target) == NULL ||
		get_rel_name(m->log) == NULL)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_TAMPERED),
						errmsg("%s of migration \"%s\" has been dropped",
							   get_rel_name(m->source) == NULL	 ? "the source"
							   : get_rel_name(m->target) == NULL ? "the target"
																 : "the change log",
							   m->name),
						errhint("Call migrate_ext.%s to end the migration.",
								m->state == STATE_SWAPPED ? "complete" : "cancel")));
	check_restart(m);
	problem = sync_trigger_problem(m);
	if (problem)
		check_moved_on(m);
	if (problem)
		ereport(
			ERROR,
			(errcode(ERRCODE_MIGRATION_TAMPERED), errmsg("%s", problem),
			 errdetail("Writes made meanwhile may not have been recorded."),
			 errhint(
				 "Call migrate_ext.resume: it puts the trigger right, and everything is compared before the table counts as complete.")));
	check_shapes(m);
	check_key(m);
}

/* ---- the mark ---- */

/* Which transaction made this table a partition of what it is one of. */
static TransactionId
attached_by(Oid partition)
{
	Relation inherits = table_open(InheritsRelationId, AccessShareLock);
	TransactionId xmin = InvalidTransactionId;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(partition));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	return xmin;
}

/* Which transaction made the table: its row type is hardly ever touched again. */
static TransactionId
made_by(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(get_rel_type_id(relid)));
	TransactionId xmin = InvalidTransactionId;

	if (HeapTupleIsValid(tuple))
	{
		xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
		ReleaseSysCache(tuple);
	}
	return xmin;
}

static uint64
add_trace(uint64 mark, Oid relid, uint32 what)
{
	uint64 trace = ((uint64) relid << 32) | what;

	return hash_combine64(mark, hash_bytes_extended((unsigned char *) &trace, sizeof(trace), 0));
}

/*
 * A rewrite (ALTER TABLE ... USING above all) may have changed rows of which no trigger
 * knows.  A table's first file has the table's own number.
 */
static uint64
add_file(uint64 mark, Oid relid)
{
	Oid file = relinfo_relfilenode(relid);

	return file != relid ? add_trace(mark, relid, file) : mark;
}

/*
 * A partition that was made as such, its trigger with it, leaves no trace, so
 * that those which come later make nothing void.
 */
int64
guard_mark(Migration *m)
{
	bool swapped = m->state == STATE_SWAPPED;
	List *leaves = relinfo_leaves(m->target);
	uint64 mark = add_file(0, m->source);
	ListCell *lc;

	list_sort(leaves, list_oid_cmp);
	foreach (lc, leaves)
	{
		Oid relid;

		mark = add_file(mark, lfirst_oid(lc));
		for (relid = lfirst_oid(lc); relid != m->target && get_rel_relispartition(relid);
			 relid = get_partition_parent(relid, true))
		{
			TransactionId attached = attached_by(relid);
			TransactionId trigger = swapped ? sync_trigger_reverse_xmin(relid) : attached;

			if (attached != made_by(relid))
				mark = add_trace(mark, relid, attached);
			if (trigger != attached)
				mark = add_trace(mark, relid, trigger);
		}
	}
	if (swapped)
		mark = add_trace(mark, m->target, sync_trigger_reverse_xmin(m->target));
	return (int64) mark;
}

/*
 * Has a reverse trigger been disabled, enabled or made since the swap, other
 * than with its partition?  What was written meanwhile may be missing in the
 * original.  The source's trigger was last written by the swap.
 */
bool
guard_reverse_was_touched(Migration *m)
{
	List *tables = lcons_oid(m->target, relinfo_leaves(m->target));
	ListCell *lc;

	foreach (lc, tables)
	{
		Oid relid = lfirst_oid(lc);
		TransactionId trigger = sync_trigger_reverse_xmin(relid);

		if (TransactionIdFollows(trigger, m->trigger_xmin) && trigger != attached_by(relid))
			return true;
	}
	return false;
}
