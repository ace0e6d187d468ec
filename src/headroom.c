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
 * the partition is left out, and whoever wants it moves the rows by hand
 * (docs/faq.md).  Nor is a large default partition read under the lock that
 * attaching takes on it.
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

/*
 * Ranges in a row that the default partition forbids, after which we give up:
 * each is a look at all of it.
 */
#define LEFT_OUT_MAX 12

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
 * What was told already, so that an obstacle that stays is one event and not one
 * a second.  Lost with the process, and then told again: no harm.
 */
static struct
{
	int64 migration_id;
	bool any;
	int64 position; /* all obstacles up to here */
	int sqlerrcode; /* the last error */
} told;

/* ------------------------------------------------------------------------
 * Is anything missing?
 * ------------------------------------------------------------------------
 */

static bool
is_empty(Oid partition)
{
	return relinfo_blocks(partition) == 0 || relinfo_rows(partition, 1) == 0;
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

/* The upper bound of the last partition, unless nothing can stand beyond it. */
static bool
find_position(Migration *m, PartitionKey key, PartitionBoundInfo bounds, End *end)
{
	char *timezone = json_field(m->options, "timezone");
	int last = bounds->ndatums - 1;

	if (bounds->kind[last][0] != PARTITION_RANGE_DATUM_VALUE)
		return false;
	end->key = get_attname(m->target, key->partattrs[0], false);
	end->axis = axis_create(end->key, getBaseType(key->parttypid[0]), ARG_TEXT,
							CStringGetTextDatum(json_field(m->definition, "step")),
							timezone ? timezone : "UTC");
	return axis_position(end->axis, bounds->datums[last][0], &end->position) &&
		   !axis_is_end(end->axis, end->position);
}

/*
 * Look at the target, under a lock of the caller's; false if there is nothing to
 * do: not partitioned by us by range, headroom enough, or no value can stand
 * beyond the end.  The relation is closed again: ALTER TABLE doesn't like it open.
 */
static bool
find_end(Migration *m, End *end)
{
	char *method = json_field(m->definition, "method");
	char *headroom = json_field(m->definition, "headroom");
	Relation target = try_relation_open(m->target, NoLock);
	PartitionKey key;
	PartitionDesc desc;
	bool found = false;

	memset(end, 0, sizeof(End));
	if (target == NULL)
		return false;
	key = RelationGetPartitionKey(target);
	if (method != NULL && strcmp(method, "range") == 0 && headroom != NULL && key != NULL &&
		key->strategy == PARTITION_STRATEGY_RANGE && key->partnatts == 1 && key->partattrs[0] != 0)
	{
		desc = RelationGetPartitionDesc(target, false);
		end->missing = pg_strtoint32(headroom);
		end->missing -= count_empty(desc, end->missing);
		end->default_partition = get_default_oid_from_partdesc(desc);
		found = end->missing > 0 && desc->boundinfo != NULL && desc->boundinfo->ndatums > 0 &&
				find_position(m, key, desc->boundinfo, end);
	}
	relation_close(target, NoLock);
	return found;
}

/* ------------------------------------------------------------------------
 * Adding
 * ------------------------------------------------------------------------
 */

static void
forget_told(Migration *m)
{
	if (told.migration_id == m->id)
		return;
	memset(&told, 0, sizeof(told));
	told.migration_id = m->id;
}

static void
tell_obstacle(Migration *m, const End *end, int64 position, const char *why)
{
	forget_told(m);
	if (told.any && position <= told.position)
		return;
	event_add(m, "headroom_blocked", NULL, "no partition was added at %s: %s",
			  axis_show(end->axis, position), why);
	told.any = true;
	told.position = position;
}

static void
tell_error(Migration *m, const ErrorData *error)
{
	forget_told(m);
	if (told.sqlerrcode == error->sqlerrcode)
		return;
	event_add(m, "headroom_blocked", NULL, "no partition was added: %s", error->message);
	told.sqlerrcode = error->sqlerrcode;
}

/* Does the default partition hold rows from .. to? */
static bool
is_in_default(const End *end, int64 from, int64 to)
{
	const Axis *axis = end->axis;
	char *key = psprintf("s.%s", quote_identifier(end->key));
	char *upper = "";

	if (!OidIsValid(end->default_partition) || relinfo_blocks(end->default_partition) == 0)
		return false;
	if (!axis_is_end(axis, to))
		upper = psprintf(" AND %s < %s", key, axis_bound(axis, to));
	return sql_int64("SELECT EXISTS (SELECT FROM ONLY %s s WHERE %s >= %s%s)::pg_catalog.int4",
					 sql_relation(end->default_partition), key, axis_bound(axis, from), upper) != 0;
}

/*
 * Add a partition from .. to, or tell why not.
 */
static bool
add_partition(Migration *m, const End *end, int64 from, int64 to)
{
	char *name;

	if (is_in_default(end, from, to))
	{
		tell_obstacle(m, end, from, "the default partition holds rows of it");
		return false;
	}
	name = name_free(m->table_name, axis_suffix(end->axis, from), get_rel_namespace(m->target));
	(void) target_table_attach(m->source, m->target, name,
							   bounds_range_clause(end->axis, from, to));
	event_add(m, "partition_added", psprintf("{\"partition\": %s}", json_quote(name)),
			  "added partition %s", quote_identifier(name));
	return true;
}

/*
 * Add what is missing, as the owner; returns how many were added.  A partition
 * that the default one forbids is left out, and those after it are made: else
 * one row too early would send all later ones to the default partition.
 */
static int
add_partitions(Run *run, const End *end)
{
	Migration *m = run->m;
	int64 from = end->position;
	int added = 0;
	int left_out = 0;

	if (OidIsValid(end->default_partition) &&
		relinfo_blocks(end->default_partition) > DEFAULT_BLOCKS_MAX)
	{
		tell_obstacle(m, end, from, "the default partition is too large to be read under a lock");
		return 0;
	}
	run_as_owner(run);
	while (added < end->missing && left_out < LEFT_OUT_MAX && !axis_is_end(end->axis, from))
	{
		int64 to = axis_next(end->axis, from);

		if (add_partition(m, end, from, to))
			added++;
		else
			left_out++;
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
	End end;

	if (m == NULL || !m->made_target || (m->state != STATE_LIVE && m->state != STATE_SWAPPED))
		return;
	run_limit_lock_waits(run);
	LockRelationOid(m->target, AccessShareLock);
	if (!find_end(m, &end))
		return;

	sync_release();
	LockRelationOid(m->target, ShareUpdateExclusiveLock);
	if (find_end(m, &end) && add_partitions(run, &end) > 0)
	{
		/* new leaves need triggers of their own, and are no tampering */
		sync_trigger_prepare_reverse(m);
		m->target_shape = relinfo_target_shape(m->target);
		catalog_save_shapes(m);
	}
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
		tell_error(run->m, error);
	run_commit(run);
}
