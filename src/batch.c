/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Leases, and the batches that are shared out under them; see batch.h.
 *
 * Locks are advisory locks of classes of our own, so they show in pg_locks and
 * go with the process:
 *
 *		lease	(number)		held by each process that works on batches
 *		leader	(migration)		held by the one leader, worker or session
 *		drainer (migration)		held to the end of the draining transaction
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#include "batch.h"
#include "catalog_spi.h"
#include "run.h"

/* fourth field of the lock tag; PostgreSQL's own advisory locks use 1 and 2 */
#define LOCK_CLASS_LEASE 0x4D31
#define LOCK_CLASS_LEADER 0x4D32
#define LOCK_CLASS_DRAINER 0x4D33

static void
set_tag(LOCKTAG *tag, int64 key, uint16 lockclass)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, lockclass);
}

/*
 * Who holds it, or 0.  Looks at pg_locks: asking by taking the lock for a
 * moment would make a process that takes it in earnest fail.
 */
static int
holder(int64 key, uint16 lockclass)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = {OIDOID, OIDOID, OIDOID, INT4OID};
	Datum values[] = {ObjectIdGetDatum(MyDatabaseId), ObjectIdGetDatum((uint32) (key >> 32)),
					  ObjectIdGetDatum((uint32) key), Int32GetDatum(lockclass)};
	bool isnull;
	Datum pid;

	pid = catalog_scalar_kept(&plan,
							  "SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory'"
							  " AND database = $1 AND classid = $2 AND objid = $3 AND objsubid = $4"
							  " AND granted LIMIT 1",
							  4, types, values, &isnull);
	return isnull ? 0 : DatumGetInt32(pid);
}

void
lease_take(Run *run)
{
	LOCKTAG tag;
	bool isnull;

	run->lease = DatumGetInt64(
		catalog_scalar("SELECT pg_catalog.nextval('migrate_ext.lease')", 0, NULL, NULL, &isnull));
	set_tag(&tag, run->lease, LOCK_CLASS_LEASE);
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
}

void
lease_release(Run *run)
{
	LOCKTAG tag;

	if (run->lease == 0)
		return;
	set_tag(&tag, run->lease, LOCK_CLASS_LEASE);
	LockRelease(&tag, ExclusiveLock, true);
	run->lease = 0;
}

bool
lease_alive(int64 lease)
{
	return holder(lease, LOCK_CLASS_LEASE) != 0;
}

bool
leader_lock(int64 migration_id)
{
	LOCKTAG tag;

	set_tag(&tag, migration_id, LOCK_CLASS_LEADER);
	/* not re-entrant: a leader asks once */
	return LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_OK;
}

void
leader_unlock(int64 migration_id)
{
	LOCKTAG tag;

	set_tag(&tag, migration_id, LOCK_CLASS_LEADER);
	LockRelease(&tag, ExclusiveLock, true);
}

int
leader_pid(int64 migration_id)
{
	return holder(migration_id, LOCK_CLASS_LEADER);
}

void
drainer_lock(int64 migration_id)
{
	LOCKTAG tag;

	set_tag(&tag, migration_id, LOCK_CLASS_DRAINER);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
batch_add(Migration *m, const char *kind, Oid relation, const char *detail)
{
	Oid types[] = {INT8OID, TEXTOID, INT4OID, OIDOID, TEXTOID};
	Datum values[] = {Int64GetDatum(m->id), CStringGetTextDatum(kind), Int32GetDatum(m->epoch),
					  ObjectIdGetDatum(relation), CStringGetTextDatum(detail)};

	(void) catalog_exec(
		"WITH w AS (UPDATE migrate_ext.work SET next_batch = next_batch + 1"
		" WHERE migration = $1 RETURNING next_batch - 1 AS batch)"
		" INSERT INTO migrate_ext.batch (migration, batch, kind, epoch, relation, detail, state)"
		" SELECT $1, w.batch, $2, $3, $4, $5, 'pending' FROM w",
		5, types, values, NULL);
}

/* ---- claiming ---- */

/* Take over this batch, if it is still as we saw it. */
static Batch *
claim_existing(Run *run, int64 number, int64 old_lease)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = {INT8OID, INT8OID, INT8OID, INT8OID, INT4OID};
	Datum values[] = {Int64GetDatum(run->m->id), Int64GetDatum(number), Int64GetDatum(old_lease),
					  Int64GetDatum(run->lease), Int32GetDatum(MyProcPid)};
	CatalogCall call = {.plan = &plan};
	Batch *batch = NULL;
	bool isnull;

	if (catalog_begin(
			&call,
			"UPDATE migrate_ext.batch b SET state = 'running', lease = $4, pid = $5,"
			" attempts = attempts + 1, started_at = pg_catalog.clock_timestamp()"
			" FROM (SELECT batch FROM migrate_ext.batch WHERE migration = $1 AND batch = $2"
			" AND state <> 'done' AND COALESCE(lease, 0) = $3 FOR UPDATE SKIP LOCKED) l"
			" WHERE b.migration = $1 AND b.batch = l.batch"
			" RETURNING b.batch, b.relation::oid, b.first_block, b.last_block, b.detail",
			5, types, values, NULL) > 0)
	{
		MemoryContext old;
		Datum v;

		batch = MemoryContextAllocZero(call.outer, sizeof(Batch));
		batch->batch = DatumGetInt64(catalog_value(&call, 0, 1, &isnull));
		batch->relation = DatumGetObjectId(catalog_value(&call, 0, 2, &isnull));
		v = catalog_value(&call, 0, 3, &isnull);
		batch->first_block = isnull ? InvalidBlockNumber : (BlockNumber) DatumGetInt64(v);
		v = catalog_value(&call, 0, 4, &isnull);
		batch->last_block = isnull ? InvalidBlockNumber : (BlockNumber) DatumGetInt64(v);
		v = catalog_value(&call, 0, 5, &isnull);
		old = MemoryContextSwitchTo(call.outer);
		batch->detail = isnull ? NULL : TextDatumGetCString(v);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return batch;
}

/* A batch that was never begun, or whose process is gone. */
static Batch *
claim_open(Run *run, const char *kind)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = {INT8OID, TEXTOID, INT4OID};
	Datum values[] = {Int64GetDatum(run->m->id), CStringGetTextDatum(kind),
					  Int32GetDatum(run->m->epoch)};
	CatalogCall call = {.plan = &plan};
	int64 *numbers;
	int64 *leases;
	uint64 n;
	uint64 i;
	bool isnull;

	/* the first few pending ones, and everything that is running */
	n = catalog_begin(&call,
					  "SELECT batch, COALESCE(lease, 0) FROM migrate_ext.batch"
					  " WHERE migration = $1 AND kind = $2 AND epoch = $3 AND state = 'running'"
					  " UNION ALL (SELECT batch, COALESCE(lease, 0) FROM migrate_ext.batch"
					  " WHERE migration = $1 AND kind = $2 AND epoch = $3 AND state = 'pending'"
					  " AND " BATCH_IS_DUE("started_at") " ORDER BY batch LIMIT 16)",
					  3, types, values, NULL);
	numbers = MemoryContextAlloc(call.outer, sizeof(int64) * (n + 1));
	leases = MemoryContextAlloc(call.outer, sizeof(int64) * (n + 1));
	for (i = 0; i < n; i++)
	{
		numbers[i] = DatumGetInt64(catalog_value(&call, i, 1, &isnull));
		leases[i] = DatumGetInt64(catalog_value(&call, i, 2, &isnull));
	}
	catalog_end(&call);

	for (i = 0; i < n; i++)
	{
		Batch *batch;

		if (leases[i] != 0 && leases[i] != run->lease && lease_alive(leases[i]))
			continue;
		batch = claim_existing(run, numbers[i], leases[i]);
		if (batch)
		{
			batch->open = n;
			return batch;
		}
	}
	return NULL;
}

/* Cut the next range of blocks off what is left. */
static Batch *
claim_blocks(Run *run, BlockNumber blocks)
{
	Oid types[] = {INT8OID, INT8OID, INT8OID, INT4OID, OIDOID, INT8OID};
	Datum values[] = {Int64GetDatum(run->m->id),		Int64GetDatum((int64) run->m->end_block),
					  Int64GetDatum((int64) blocks),	Int32GetDatum(run->m->epoch),
					  ObjectIdGetDatum(run->m->source), (Datum) 0};
	Datum number;
	bool isnull;

	/* lock first: the second statement then sees what the lock's last holder wrote */
	values[5] = catalog_scalar("SELECT next_block FROM migrate_ext.work WHERE migration = $1"
							   " AND next_block < $2 FOR UPDATE",
							   2, types, values, &isnull);
	if (isnull)
		return NULL;
	number =
		catalog_scalar("WITH w AS (UPDATE migrate_ext.work"
					   " SET next_block = LEAST($6 + $3, $2), next_batch = next_batch + 1"
					   " WHERE migration = $1 RETURNING next_batch - 1 AS batch, next_block)"
					   " INSERT INTO migrate_ext.batch (migration, batch, kind, epoch, relation,"
					   " first_block, last_block, state)"
					   " SELECT $1, w.batch, 'copy', $4, $5, $6, w.next_block - 1, 'pending'"
					   " FROM w RETURNING batch",
					   6, types, values, &isnull);
	return isnull ? NULL : claim_existing(run, DatumGetInt64(number), 0);
}

Batch *
batch_claim(Run *run, const char *kind, BlockNumber blocks)
{
	Batch *batch = claim_open(run, kind);

	if (batch == NULL && strcmp(kind, BATCH_COPY) == 0)
		batch = claim_blocks(run, Max(blocks, 1));
	return batch;
}

/* ---- the work's own transaction ---- */

bool
batch_begin(Run *run, Batch *batch)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = {INT8OID, INT8OID, INT8OID, INT4OID};
	Datum values[] = {Int64GetDatum(run->m->id), Int64GetDatum(batch->batch),
					  Int64GetDatum(run->lease), Int32GetDatum(run->m->epoch)};

	return catalog_exec_kept(&plan,
							 "UPDATE migrate_ext.batch SET state = 'done' WHERE migration = $1"
							 " AND batch = $2 AND state = 'running' AND lease = $3 AND epoch = $4",
							 4, types, values) == 1;
}

void
batch_finish(Run *run, Batch *batch, int64 rows, int64 logged, int64 skipped)
{
	static SPIPlanPtr plan = NULL;
	Oid types[] = {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(run->m->id), Int64GetDatum(batch->batch), Int64GetDatum(rows),
					  Int64GetDatum(logged), Int64GetDatum(skipped)};

	(void) catalog_exec_kept(
		&plan,
		"UPDATE migrate_ext.batch SET rows = $3, logged = $4, skipped = $5, lease = NULL,"
		" took_ms = EXTRACT(epoch FROM pg_catalog.clock_timestamp() - started_at) * 1000"
		" WHERE migration = $1 AND batch = $2",
		5, types, values);
}

/* The body of an attempt. */
static void
give_back(Run *run, void *arg)
{
	Batch *batch = arg;
	Oid types[] = {INT8OID, INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(run->migration_id), Int64GetDatum(batch->batch),
					  Int64GetDatum(run->lease)};

	(void) catalog_exec("UPDATE migrate_ext.batch SET state = 'pending', lease = NULL"
						" WHERE migration = $1 AND batch = $2 AND state = 'running' AND lease = $3",
						3, types, values, NULL);
}

void
batch_give_back(Run *run, Batch *batch)
{
	ErrorData *error = NULL;

	(void) run_attempt(run, give_back, batch, &error);
}

/* The body of an attempt. */
static void
split(Run *run, void *arg)
{
	Batch *batch = arg;
	int64 middle = ((int64) batch->first_block + batch->last_block) / 2;
	Oid types[] = {INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(run->migration_id), Int64GetDatum(batch->batch),
					  Int64GetDatum(run->lease), Int64GetDatum(middle),
					  Int64GetDatum((int64) batch->last_block)};

	(void) catalog_exec(
		"WITH b AS (UPDATE migrate_ext.batch SET state = 'pending', lease = NULL, attempts = 0,"
		" last_block = $4 WHERE migration = $1 AND batch = $2 AND state = 'running'"
		" AND lease = $3 RETURNING kind, epoch, relation),"
		" w AS (UPDATE migrate_ext.work SET next_batch = next_batch + 1"
		" WHERE migration = $1 AND EXISTS (SELECT FROM b) RETURNING next_batch - 1 AS batch)"
		" INSERT INTO migrate_ext.batch (migration, batch, kind, epoch, relation, first_block,"
		" last_block, state)"
		" SELECT $1, w.batch, b.kind, b.epoch, b.relation, $4 + 1, $5, 'pending' FROM b, w",
		5, types, values, NULL);
}

void
batch_split(Run *run, Batch *batch)
{
	ErrorData *error = NULL;

	(void) run_attempt(run, split, batch, &error);
}

void
batch_record(Run *run, BlockNumber first, BlockNumber last, int64 rows)
{
	Oid types[] = {INT8OID, TEXTOID, INT4OID, OIDOID, INT8OID, INT8OID, INT8OID, INT4OID};
	Datum values[] = {Int64GetDatum(run->m->id),	CStringGetTextDatum(BATCH_KEY),
					  Int32GetDatum(run->m->epoch), ObjectIdGetDatum(run->m->source),
					  Int64GetDatum((int64) first), Int64GetDatum((int64) last),
					  Int64GetDatum(rows),			Int32GetDatum(MyProcPid)};

	(void) catalog_exec(
		"WITH w AS (UPDATE migrate_ext.work SET next_batch = next_batch + 1"
		" WHERE migration = $1 RETURNING next_batch - 1 AS batch)"
		" INSERT INTO migrate_ext.batch (migration, batch, kind, epoch, relation, first_block,"
		" last_block, rows, skipped, took_ms, pid, state, attempts, started_at)"
		" SELECT $1, w.batch, $2, $3, $4, $5, $6, $7, 0, 0, $8, 'done', 1,"
		" pg_catalog.clock_timestamp() FROM w",
		8, types, values, NULL);
}

/* ---- counting ---- */

int64
batch_open_count(Migration *m, const char *kind)
{
	Oid types[] = {INT8OID, TEXTOID, INT4OID, INT8OID};
	Datum values[] = {Int64GetDatum(m->id), CStringGetTextDatum(kind), Int32GetDatum(m->epoch),
					  Int64GetDatum((int64) m->end_block)};
	bool isnull;

	return DatumGetInt64(catalog_scalar(
		"SELECT (SELECT count(*) FROM migrate_ext.batch WHERE migration = $1 AND kind = $2"
		" AND epoch = $3 AND state <> 'done')"
		" + (SELECT count(*) FROM migrate_ext.work WHERE migration = $1"
		" AND $2 = 'copy' AND next_block < $4)",
		4, types, values, &isnull));
}

int64
batch_count(Migration *m, const char *kind)
{
	Oid types[] = {INT8OID, TEXTOID, INT4OID};
	Datum values[] = {Int64GetDatum(m->id), CStringGetTextDatum(kind), Int32GetDatum(m->epoch)};
	bool isnull;

	return DatumGetInt64(
		catalog_scalar("SELECT count(*) FROM migrate_ext.batch WHERE migration = $1"
					   " AND kind = $2 AND epoch = $3",
					   3, types, values, &isnull));
}

void
batch_reset(Migration *m)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};

	(void) catalog_exec("DELETE FROM migrate_ext.batch WHERE migration = $1", 1, types, values,
						NULL);
	(void) catalog_exec("UPDATE migrate_ext.work SET next_block = 0 WHERE migration = $1", 1, types,
						values, NULL);
}
