/*-------------------------------------------------------------------------
 *
 * headroom.c
 *	  Keeps range partitions ahead of the greatest key, while a migration is
 *	  live and while it is swapped.
 *
 * How much is left is told by the partitions themselves: the empty ones at the
 * end.  That is read from files of no blocks, or the first row of a file, so the
 * leader may ask as often as it likes.  What is missing is made apart, then
 * attached, all in one bounded attempt; whoever is in the way wins, and the next
 * call tries again.
 *
 * Rows beyond the end stand in the default partition.  As long as one is in the
 * range of a partition to be, PostgreSQL refuses to attach it: an event says so,
 * and split_default() is the way out.  Nor is a large default partition read
 * under the lock that attaching takes on it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "attempt.h"
#include "axis.h"
#include "bounds.h"
#include "catalog.h"
#include "catalog/pg_class.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "storage/lmgr.h"
#include "sync.h"
#include "sync_trigger.h"
#include "target_table.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"

/*
 * A default partition beyond this many blocks (64 MB) isn't read under ACCESS
 * EXCLUSIVE: up to it that takes tens of milliseconds.
 */
#define DEFAULT_BLOCKS_MAX 8192

/* The target's end as it is. */
typedef struct End
{
	Axis *axis;
	char *key;			   /* column name */
	int64 position;		   /* upper bound of the last partition */
	Oid default_partition; /* or InvalidOid */
	int missing;		   /* partitions to be added */
} End;

/*
 * What was told last, so that an obstacle that stays is one event and not one a
 * second.  Lost with the process, and then told again: no harm.
 */
static struct
{
	int64 migration_id;
	int64 position;
} told;

/* ------------------------------------------------------------------------
 * Is anything missing?
 * ------------------------------------------------------------------------
 */

static bool
is_empty(Oid partition)
{
	return relinfo_blocks(partition) == 0 ||
		   sql_int64("SELECT EXISTS (SELECT FROM ONLY %s)::pg_catalog.int4",
					 sql_relation(partition)) == 0;
}

/* Empty partitions at the end, up to "wanted" of them. */
static int
count_empty(PartitionDesc desc, int wanted)
{
	int last = desc->nparts - (partition_bound_has_default(desc->boundinfo) ? 2 : 1);
	int count = 0;

	/* partitions stand in the order of their bounds, the default one last */
	while (count < wanted && last - count >= 0 && is_empty(desc->oids[last - count]))
		count++;
	return count;
}

/*
 * Look at the target; false if there is nothing to do: not partitioned by us by
 * range, headroom enough, or no value can stand beyond the end.
 */
static bool
find_end(Migration *m, Relation target, End *end)
{
	char *method = json_field(m->definition, "method");
	char *headroom = json_field(m->definition, "headroom");
	char *timezone = json_field(m->options, "timezone");
	PartitionKey key;
	PartitionDesc desc;
	PartitionBoundInfo bounds;
	AttrNumber attnum;

	if (method == NULL || strcmp(method, "range") != 0 || headroom == NULL)
		return false;
	key = RelationGetPartitionKey(target);
	desc = RelationGetPartitionDesc(target, true);
	bounds = desc->boundinfo;
	if (key == NULL || key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->partattrs[0] == 0 || bounds == NULL || bounds->ndatums == 0 ||
		bounds->kind[bounds->ndatums - 1][0] != PARTITION_RANGE_DATUM_VALUE)
		return false;

	end->missing = pg_strtoint32(headroom);
	end->missing -= count_empty(desc, end->missing);
	if (end->missing <= 0)
		return false;

	attnum = key->partattrs[0];
	end->key = get_attname(m->target, attnum, false);
	end->axis = axis_create(end->key, getBaseType(key->parttypid[0]), ARG_TEXT,
							CStringGetTextDatum(json_field(m->definition, "step")),
							timezone ? timezone : "UTC");
	end->default_partition = get_default_oid_from_partdesc(desc);
	return axis_position(end->axis, bounds->datums[bounds->ndatums - 1][0], &end->position) &&
		   !axis_is_end(end->axis, end->position);
}

/* ------------------------------------------------------------------------
 * Adding
 * ------------------------------------------------------------------------
 */

static void
tell(Migration *m, int64 position, const char *message)
{
	if (told.migration_id == m->id && told.position == position)
		return;
	event_add(m, "headroom_blocked", NULL, "%s", message);
	told.migration_id = m->id;
	told.position = position;
}

/* Why the default partition forbids a partition from .. to, or NULL. */
static char *
obstacle(const End *end, int64 from, int64 to)
{
	const Axis *axis = end->axis;
	char *key = psprintf("s.%s", quote_identifier(end->key));
	char *upper = "";

	if (!OidIsValid(end->default_partition) || relinfo_blocks(end->default_partition) == 0)
		return NULL;
	if (relinfo_blocks(end->default_partition) > DEFAULT_BLOCKS_MAX)
		return psprintf("no partition was added at %s: the default partition is too large to be "
						"read under a lock",
						axis_show(axis, from));
	if (!axis_is_end(axis, to))
		upper = psprintf(" AND %s < %s", key, axis_bound(axis, to));
	if (sql_int64("SELECT EXISTS (SELECT FROM ONLY %s s WHERE %s >= %s%s)::pg_catalog.int4",
				  sql_relation(end->default_partition), key, axis_bound(axis, from), upper) == 0)
		return NULL;
	return psprintf("no partition was added at %s: the default partition holds rows of it",
					axis_show(axis, from));
}

/* Add what is missing, as the owner; returns how many were added. */
static int
add_partitions(Run *run, const End *end)
{
	Migration *m = run->m;
	Oid schema = get_rel_namespace(m->target);
	int64 from = end->position;
	int added;

	run_as_owner(run);
	for (added = 0; added < end->missing && !axis_is_end(end->axis, from); added++)
	{
		int64 to = axis_next(end->axis, from);
		char *blocked = obstacle(end, from, to);
		char *name = name_free(m->table_name, axis_suffix(end->axis, from), schema);

		if (blocked != NULL)
		{
			tell(m, from, blocked);
			break;
		}
		(void) target_table_attach(m->source, m->target, name,
								   bounds_range_clause(end->axis, from, to));
		event_add(m, "partition_added", psprintf("{\"partition\": %s}", json_quote(name)),
				  "added partition %s", quote_identifier(name));
		from = to;
	}
	run_as_self(run);
	return added;
}

/*
 * The transaction.  A quick look under ACCESS SHARE comes first; the end is read
 * again under the lock that attaching takes, so nobody else adds the same.
 */
static void
keep_headroom(Run *run, void *arg)
{
	Migration *m = run->m;
	End end = {0};
	Relation target;

	if (m == NULL || !m->made_target || (m->state != STATE_LIVE && m->state != STATE_SWAPPED))
		return;
	run_limit_lock_waits(run);
	target = try_relation_open(m->target, AccessShareLock);
	if (target == NULL)
		return;
	if (find_end(m, target, &end))
	{
		sync_release();
		LockRelationOid(m->target, ShareUpdateExclusiveLock);
		if (find_end(m, target, &end) && add_partitions(run, &end) > 0)
		{
			/* new leaves need triggers of their own, and are no tampering */
			sync_trigger_prepare_reverse(m);
			m->target_shape = relinfo_target_shape(m->target);
			catalog_save_shapes(m);
		}
	}
	relation_close(target, NoLock);
}

void
target_keep_headroom(Run *run)
{
	ErrorData *error = NULL;

	if (run_attempt(run, keep_headroom, NULL, &error))
		return;
	if (attempt_is_lock_failure(error))
		return; /* somebody is in the way: there is still time */

	run_begin(run);
	if (run->m != NULL)
		tell(run->m, error->sqlerrcode, psprintf("no partition was added: %s", error->message));
	run_commit(run);
}
