/*-------------------------------------------------------------------------
 *
 * drain.c
 *	  Empties the change log: each identity in it is read again from the front
 *	  side and put right on the back side.
 *
 * catching_up: beside the writers.  Lock the source, then become the one
 * drainer, then take the snapshot: entries and rows are read in it.  Whatever a
 * writer does after it will bring an entry of its own.
 *
 *		T1 changes row 7 (a -> b), commits			entry e1
 *		drain takes its snapshot, reads e1
 *		T2 changes row 7 (b -> c), commits			entry e2
 *		drain reads row 7 (b), writes b, deletes e1, commits
 *		the next batch reads e2 and writes c
 *
 * live and swapped: what could not be written through is logged.  Writers
 * don't log here what they write through, so nothing would correct a race: the
 * batch keeps writers out (SHARE ROW EXCLUSIVE on the front table), and is
 * short.  It changes rows outside of the writers' transactions, so snapshots
 * older than it must be gone before the next swap: stable_xid.
 *
 * Entries are deleted in the transaction that deals with them, and the place in
 * the log is saved there; how it is told what has been drained is explained in
 * changelog_read.c.  Entries of one row within a batch are one piece of work.
 *
 * A row that doesn't fit goes to failed_rows, and its entry is deleted.  What the
 * target has of it is deleted as well: a stale row, of which nobody would know
 * any more in which leaf it stands, is worse than a missing one.  (The original
 * keeps its row: there is only one place, and foreign keys may point at it.)  A batch
 * that fails as a whole (an error that the mirror couldn't foresee, a foreign
 * key) is tried again with half the entries, down to the one that is to blame,
 * which is set aside in the same way.  From there batches grow again, twofold at a
 * time: what a bad row costs is the logarithm of a batch, however many there are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "batch.h"
#include "catalog.h"
#include "catalog/pg_collation.h"
#include "changelog.h"
#include "debug_point.h"
#include "errors.h"
#include "failed_rows.h"
#include "lock_queue.h"
#include "mirror.h"
#include "miscadmin.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

/*
 * Entries a batch.  Beside the writers a batch may take some 100 ms; while they
 * are locked out it should be over in a few.
 */
#define DRAIN_BATCH 10000
#define DRAIN_BATCH_LIVE 500

/*
 * A pass that found nothing is remembered only when so many transactions have
 * passed: an idle migration should write nothing.
 */
#define DRAIN_SAVE_EVERY 10000

/* How many entries this process takes at a time: fewer while a row among them fails. */
static struct
{
	int64 migration_id;
	int max;
} pace;

/* A batch under way, in one transaction. */
typedef struct Drain
{
	Run *run;
	bool live;
	int max; /* entries to take */

	/* what came of it */
	int count; /* entries taken */
	bool more; /* the pass isn't through */

	/* within the transaction */
	Oid log;
	LogColumns columns;
	Mirror *mirror;
	MemoryContext context;	/* of one group */
	TypeCacheEntry **types; /* of the identity's columns */
	bool have_failed;		/* there are failed rows, which may be mended now */
	int failed;
	bool written;
} Drain;

/* ------------------------------------------------------------------------
 * Order
 * ------------------------------------------------------------------------
 */

/* What is needed to sort by identity. */
static void
prepare_order(Drain *drain, Relation source)
{
	int i;

	drain->types = palloc(drain->columns.nidentity * sizeof(TypeCacheEntry *));
	for (i = 0; i < drain->columns.nidentity; i++)
	{
		Form_pg_attribute att =
			TupleDescAttr(RelationGetDescr(source), drain->columns.attnums[i] - 1);

		drain->types[i] = lookup_type_cache(att->atttypid, TYPECACHE_CMP_PROC_FINFO);
	}
}

/*
 * By identity, so that entries of one row stand together and the tables are
 * read along their indexes.  Any order will do: C's for text.
 */
static int
compare_entries(const void *a, const void *b, void *arg)
{
	const LogEntry *x = a;
	const LogEntry *y = b;
	Drain *drain = arg;
	int i;

	for (i = 0; i < drain->columns.nidentity; i++)
	{
		TypeCacheEntry *type = drain->types[i];
		int result = 0;

		if (OidIsValid(type->cmp_proc_finfo.fn_oid))
			result = DatumGetInt32(FunctionCall2Coll(&type->cmp_proc_finfo, C_COLLATION_OID,
													 x->values[i], y->values[i]));
		if (result != 0)
			return result;
	}
	if (x->xid != y->xid)
		return x->xid < y->xid ? -1 : 1;
	return x->n < y->n ? -1 : 1;
}

static bool
same_identity(Drain *drain, LogEntry *a, LogEntry *b)
{
	int i;

	for (i = 0; i < drain->columns.nidentity; i++)
	{
		TypeCacheEntry *type = drain->types[i];

		if (!datumIsEqual(a->values[i], b->values[i], type->typbyval, type->typlen))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Groups
 * ------------------------------------------------------------------------
 */

static Jsonb *
identity_of(Drain *drain, Datum *values)
{
	return changelog_identity(drain->run->m->source, drain->columns.nidentity,
							  drain->columns.attnums, values);
}

static void
set_aside(Drain *drain, Datum *values, int sqlerrcode, const char *message)
{
	failed_row_add(drain->run->m->id, direction_of(drain->run->m), identity_of(drain, values),
				   sqlerrcode, message);
	drain->failed++;
}

/* The entries of one row. */
static void
drain_group(Drain *drain, LogEntry *entries, int count)
{
	Datum **values = palloc(count * sizeof(Datum *));
	bool **isnull = palloc(count * sizeof(bool *));
	MirrorRefusal refusal;
	MirrorResult result;
	ListCell *cell;
	int i;

	for (i = 0; i < count; i++)
	{
		values[i] = entries[i].values;
		isnull[i] = entries[i].isnull;
	}
	result = mirror_row(drain->mirror, count, values, isnull, false, GetActiveSnapshot(), &refusal);
	if (result == MIRROR_REFUSED)
	{
		set_aside(drain, values[0], refusal.sqlerrcode, refusal.message);
		if (direction_of(drain->run->m) == DIRECTION_FORWARD)
			mirror_remove(drain->mirror, count, values, isnull, GetActiveSnapshot());
		drain->written = true;
	}
	else if (drain->have_failed)
		failed_row_remove(drain->run->m->id, identity_of(drain, values[0]));
	if (result == MIRROR_WRITTEN || refusal.displaced != NIL)
		drain->written = true;
	foreach (cell, refusal.displaced)
	{
		MirrorDisplaced *displaced = lfirst(cell);

		set_aside(drain, displaced->values, displaced->sqlerrcode, displaced->message);
	}
}

static void
drain_groups(Drain *drain, LogEntry *entries, int count)
{
	MemoryContext old_context = MemoryContextSwitchTo(drain->context);
	int first;
	int next;

	for (first = 0; first < count; first = next)
	{
		for (next = first + 1; next < count; next++)
		{
			if (!same_identity(drain, &entries[first], &entries[next]))
				break;
		}
		drain_group(drain, entries + first, next - first);
		MemoryContextReset(drain->context);
	}
	MemoryContextSwitchTo(old_context);
}

/* Nobody else deletes entries: we are the one drainer. */
static void
delete_entries(Drain *drain, LogEntry *entries, int count)
{
	Relation log = table_open(drain->log, RowExclusiveLock);
	int i;

	for (i = 0; i < count; i++)
		simple_table_tuple_delete(log, &entries[i].tid, GetActiveSnapshot());
	table_close(log, NoLock);
}

/* ------------------------------------------------------------------------
 * Batches
 * ------------------------------------------------------------------------
 */

/*
 * Lock what a batch needs, in the order in which everybody does: the front
 * table, the back table, the log.  Errors: those of guard_check(), 55P03.
 */
static void
lock_tables(Drain *drain)
{
	Migration *m = drain->run->m;
	Direction direction = direction_of(m);

	if (drain->live)
		run_limit_lock_waits(drain->run);
	lock_queue_lock(front_of(m, direction), drain->live ? ShareRowExclusiveLock : AccessShareLock);
	LockRelationOid(back_of(m, direction), RowExclusiveLock);
	guard_check(m);
	drainer_lock(m->id);
}

/* After the snapshot: what draining needs. */
static void
begin_draining(Drain *drain)
{
	Migration *m = drain->run->m;
	Relation source = table_open(m->source, AccessShareLock);

	drain->log = m->log;
	changelog_columns(m->log, &drain->columns);
	prepare_order(drain, source);
	table_close(source, NoLock);
	drain->context =
		AllocSetContextCreate(CurrentMemoryContext, "migrate_ext drain", ALLOCSET_DEFAULT_SIZES);
	drain->have_failed = failed_row_count(m->id) > 0;
	run_as_owner(drain->run);
	drain->mirror = mirror_open(m, direction_of(m));
	run_as_self(drain->run);
}

static void
end_draining(Drain *drain)
{
	Migration *m = drain->run->m;

	mirror_close(drain->mirror);
	MemoryContextDelete(drain->context);
	if (drain->failed > 0)
	{
		event_add(m, "failed", NULL, "%d rows of %s could not be carried over", drain->failed,
				  sql_qualified(m->schema_name, m->table_name));
		failed_rows_limit(m);
	}
	if (drain->live && drain->written)
		catalog_save_stable(m);
}

/*
 * Drain up to max entries after "place", which is moved on.  Returns how many;
 * drain->more tells whether the pass has more.
 */
static int
drain_entries(Drain *drain, DrainPlace *place, int max)
{
	LogEntry *entries;
	int count = changelog_read(drain->log, place, GetActiveSnapshot(), max, &entries);

	drain->more = count == max;
	if (count == 0)
		return 0;
	place->xid = entries[count - 1].xid;
	place->n = entries[count - 1].n;

	run_as_owner(drain->run);
	qsort_arg(entries, count, sizeof(LogEntry), compare_entries, drain);
	mirror_begin_statement(drain->mirror);
	drain_groups(drain, entries, count);
	mirror_end_statement(drain->mirror);
	run_as_self(drain->run);
	delete_entries(drain, entries, count);
	return count;
}

/* A pass begins with a snapshot of its own, and its end is that snapshot's. */
static void
begin_pass(DrainPlace *place)
{
	if (place->pass != NULL)
		return;
	place->pass = changelog_snapshot_text();
	place->xid = 0;
	place->n = 0;
}

/* True if the end of a pass is worth being written down. */
static bool
is_worth_saving(DrainPlace *place, bool began_here, int count)
{
	return count > 0 || !began_here || place->done == NULL ||
		   changelog_snapshot_xmax(place->pass) >
			   changelog_snapshot_xmax(place->done) + DRAIN_SAVE_EVERY;
}

static void
end_pass(DrainPlace *place)
{
	place->done = place->pass;
	place->pass = NULL;
	place->xid = 0;
	place->n = 0;
}

/* One batch; the body of an attempt. */
static void
drain_batch(Run *run, void *arg)
{
	Drain *drain = arg;
	Migration *m = run->m;
	DrainPlace place;
	bool began_here;

	lock_tables(drain);
	PushActiveSnapshot(GetLatestSnapshot());
	ME_DEBUG_POINT("drain_after_snapshot");
	drain_place_load(m->id, &place);
	began_here = place.pass == NULL;
	begin_pass(&place);

	begin_draining(drain);
	drain->count = drain_entries(drain, &place, (int) throttle_rows(m, drain->max));
	end_draining(drain);
	throttle_note(m, drain->count, InvalidBlockNumber);

	if (drain->more)
		drain_place_save(m->id, &place);
	else if (is_worth_saving(&place, began_here, drain->count))
	{
		end_pass(&place);
		drain_place_save(m->id, &place);
	}
	PopActiveSnapshot();
	ME_DEBUG_POINT("drain_before_commit");
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

typedef struct SetAside
{
	Drain *drain;
	ErrorData *error;
} SetAside;

/* The body of an attempt: give up the one entry that a batch fails with. */
static void
set_aside_first(Run *run, void *arg)
{
	SetAside *work = arg;
	Drain *drain = work->drain;
	Migration *m = run->m;
	DrainPlace place;
	LogEntry *entries;

	lock_tables(drain);
	PushActiveSnapshot(GetLatestSnapshot());
	drain_place_load(m->id, &place);
	begin_pass(&place);
	begin_draining(drain);
	if (changelog_read(m->log, &place, GetActiveSnapshot(), 1, &entries) == 1)
	{
		/* a type may have a cast to json of the owner's making */
		run_as_owner(run);
		set_aside(drain, entries[0].values, work->error->sqlerrcode, work->error->message);
		if (direction_of(m) == DIRECTION_FORWARD)
			mirror_remove(drain->mirror, 1, &entries[0].values, &entries[0].isnull,
						  GetActiveSnapshot());
		run_as_self(run);
		drain->written = true;
		delete_entries(drain, entries, 1);
		place.xid = entries[0].xid;
		place.n = entries[0].n;
		drain_place_save(m->id, &place);
	}
	end_draining(drain);
	PopActiveSnapshot();
}

/* Give up the entry that a batch of one fails with. */
static StepResult
give_up_one(Run *run, bool live, ErrorData *error)
{
	Drain drain = {.run = run, .live = live};
	SetAside blame = {&drain, error};

	error = NULL;
	if (run_attempt(run, set_aside_first, &blame, &error))
		return STEP_MORE;
	if (error_kind(error->sqlerrcode) != ERROR_AGAIN)
		ReThrowError(error);
	return STEP_WAIT;
}

/*
 * One batch, smaller than the last if that failed.  Errors that aren't a row's
 * are raised again, as is one that comes without any entry to blame.
 */
static StepResult
drain_narrowing(Run *run, bool live)
{
	int full = live ? DRAIN_BATCH_LIVE : DRAIN_BATCH;
	Drain drain = {.run = run, .live = live};
	ErrorData *error = NULL;
	ErrorKind kind;

	if (pace.migration_id != run->migration_id)
	{
		pace.migration_id = run->migration_id;
		pace.max = DRAIN_BATCH;
	}
	drain.max = Min(pace.max, full);
	if (run_attempt(run, drain_batch, &drain, &error))
	{
		pace.max = Min(drain.max * 2, DRAIN_BATCH);
		return drain.more || (live && drain.count > 0) ? STEP_MORE : STEP_WAIT;
	}
	kind = error_kind(error->sqlerrcode);
	if (kind == ERROR_AGAIN)
		return STEP_WAIT;
	if (kind < ERROR_DEFINITION || drain.columns.natts == 0)
		ReThrowError(error);
	if (drain.max == 1)
		return give_up_one(run, live, error);
	pace.max = drain.max / 2;
	return STEP_MORE;
}

/* See stages.h. */
StepResult
drain_step(Run *run, bool live)
{
	bool pending;

	run_report(run, "draining the change log");
	if (live)
	{
		/* don't lock writers out to find nothing */
		run_begin(run);
		pending = run->m != NULL && changelog_pending(run->m, 1) > 0;
		run_commit(run);
		if (!pending)
			return STEP_WAIT;
	}
	return drain_narrowing(run, live);
}

/*
 * See stages.h.  Everything is committed (the caller keeps writers out), so one
 * snapshot shows all there is.
 */
int64
drain_rest(Run *run)
{
	Drain drain = {.run = run, .live = run->m->state >= STATE_LIVE};
	DrainPlace place;
	int64 total = 0;

	drainer_lock(run->m->id);
	PushActiveSnapshot(GetLatestSnapshot());
	drain_place_load(run->m->id, &place);
	place.pass = NULL; /* all of it, in a pass of its own */
	begin_pass(&place);
	begin_draining(&drain);
	do
	{
		total += drain_entries(&drain, &place, DRAIN_BATCH);
	} while (drain.more);
	end_draining(&drain);
	end_pass(&place);
	drain_place_save(run->m->id, &place);
	PopActiveSnapshot();
	return total;
}
