/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Pieces of work that several processes share: block ranges to copy,
 *	  indexes to build.  A batch is leased to a process.  A lease is a
 *	  session-level advisory lock, so a dead process's batches are free at once,
 *	  on any server, without shared memory.
 *
 * Life of a batch: batch_claim (a short transaction of its own) -> batch_begin
 * (first thing in the transaction that does the work) -> the work ->
 * batch_finish -> commit.  A process that stalled and lost its lease finds so
 * in batch_begin and must do nothing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_BATCH_H
#define MIGRATE_EXT_BATCH_H

#include "types.h"

#define BATCH_COPY "copy"
#define BATCH_INDEX "index"
#define BATCH_KEY "key" /* a record only: what a later pass has filled */

/*
 * Condition in SQL: may what could not be done at the last of "attempts", at that time, be
 * tried again?  The time between two is doubled each time: what was in the way may be gone
 * in a moment, and what is not is for a person to mend.
 */
#define BATCH_IS_DUE(tried_at)                                           \
	"(attempts = 0 OR " tried_at " + LEAST(interval '0.1 s'"             \
	" * pg_catalog.power(2, LEAST(attempts, 20) - 1), interval '1 min')" \
	" < pg_catalog.clock_timestamp())"

typedef struct Batch
{
	int64 batch; /* number within the migration */
	Oid relation;
	BlockNumber first_block; /* inclusive */
	BlockNumber last_block;	 /* inclusive */
	char *detail;			 /* what an index batch is to build: its own words */
	int open; /* batches of its kind to be done, this one included; or fewer, if many */
} Batch;

/* Take this process's lease, or give it back. */
extern void lease_take(Run *run);
extern void lease_release(Run *run);
/* Is the process that took this lease still there?  In a transaction. */
extern bool lease_alive(int64 lease);

/* One leader a migration: false if there is another.  Session-level. */
extern bool leader_lock(int64 migration_id);
extern void leader_unlock(int64 migration_id);
/* its process, this one included, or 0; in a transaction */
extern int leader_pid(int64 migration_id);

/* One drainer a log, until the end of the transaction. Waits. */
extern void drainer_lock(int64 migration_id);

/* Add a batch to be claimed later; in the caller's transaction. */
extern void batch_add(Migration *m, const char *kind, Oid relation, const char *detail);

/*
 * Claim the next pending batch, or one whose process is gone; NULL if there is
 * none.  For BATCH_COPY, batches are cut from the blocks not given away yet,
 * "blocks" at a time, up to m->end_block.
 */
extern Batch *batch_claim(Run *run, const char *kind, BlockNumber blocks);

/* False: the batch is no longer ours, do nothing. */
extern bool batch_begin(Run *run, Batch *batch);
extern void batch_finish(Run *run, Batch *batch, int64 rows, int64 logged, int64 skipped);
/*
 * Give a batch back, in a transaction of its own.  It is claimed again after a while,
 * which gets longer each time: others come first.  Should this fail, the error which led
 * here is the one to tell: only a cancel is raised.
 */
extern void batch_give_back(Run *run, Batch *batch);

/*
 * Cut a batch of blocks in two, each for anybody to claim at once, in a transaction of
 * its own; only a cancel is raised, as above: what can't be cut is given back later.
 */
extern void batch_split(Run *run, Batch *batch);

/* Record rows that a later pass has filled, without a claim, as a BATCH_KEY that is done. */
extern void batch_record(Run *run, BlockNumber first, BlockNumber last, int64 rows);

/* Not finished yet (of this epoch), blocks not given away yet included. */
extern int64 batch_open_count(Migration *m, const char *kind);
/* All ever added, of this epoch. */
extern int64 batch_count(Migration *m, const char *kind);

/* A new epoch: forget all batches. */
extern void batch_reset(Migration *m);

#endif
