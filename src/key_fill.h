/*-------------------------------------------------------------------------
 *
 * key_fill.h
 *	  Fills the sharding key of the rows in a range of a table's places, for
 *	  migrations of kind "key"; the algorithm is told in key_fill.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_KEY_FILL_H
#define MIGRATE_EXT_KEY_FILL_H

#include "batch.h"
#include "key_sql.h"
#include "types.h"

/* What came of it. */
typedef struct KeyCounts
{
	int64 rows; /* looked at */
	int64 filled;
	int64 skipped; /* come to NULL, and are left so by options.on_null_key */
	int64 failed;  /* put into failed_rows, NULL ones included */
	int64 left;	   /* locked by somebody or changed meanwhile: a later pass's */
} KeyCounts;

/* A range to be filled. */
typedef struct KeyJob
{
	KeyRange range;
	MigrationState state; /* in which the migration is, or the job is stopped */
	Batch *batch;		  /* that it is, or NULL */
	Oid relfilenode;	  /* the table's when the pass began */
	int target_ms;		  /* what a transaction should take */
	KeyCounts counts;
	bool stopped;	/* paused, cancelled, or the batch is somebody else's */
	bool rewritten; /* the table has another relfilenode: nothing was done */
	bool finished;	/* the batch */
} KeyJob;

extern KeyRange key_blocks(BlockNumber first, BlockNumber end);

/*
 * Fill it, in short transactions of its own: the owner's rights, RowExclusiveLock
 * on the source.  A row that its values make fail is put into failed_rows; any
 * other error is raised, with nothing lost that was filled before.
 */
extern void key_fill(Run *run, KeyJob *job);

/* How many blocks such a job should have. */
extern BlockNumber key_fill_blocks(int64 migration_id);

/*
 * Count what is there in a range, in transactions of its own: rows, those that
 * options.on_null_key leaves out as skipped, failed rows as failed, and all
 * others that lack the key as left.  AccessShareLock on the source.
 */
extern void key_count(Run *run, KeyRange range, KeyCounts *counts);

/* Add b to a. */
extern void key_counts_add(KeyCounts *a, const KeyCounts *b);

#endif
