/*-------------------------------------------------------------------------
 *
 * range_sum.h
 *	  Both sides of a range of the identity as sums over their rows: equal sums
 *	  are equal rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_RANGE_SUM_H
#define MIGRATE_EXT_RANGE_SUM_H

#include "nodes/pg_list.h"
#include "types.h"

/* How many rows, and their hashes added up modulo 2^64, two of each row. */
typedef struct RangeSum
{
	int64 rows;
	uint64 sums[2];
} RangeSum;

/* The blocks of a table that rows of a range stand in; tables are told by their files. */
typedef struct RangePlace
{
	Oid relfilenode;
	BlockNumber first;
	BlockNumber last;
} RangePlace;

typedef struct RangeSums
{
	RangeSum front;
	RangeSum back;
	int64 skipped;	/* rows of the source that are left out */
	List *places;	/* List of RangePlace *, of both sides */
	bool traceable; /* whatever changes a row changes one of these blocks' LSNs */
} RangeSums;

/*
 * Read the range (low, high], bounds as in compare.h, with the active snapshot, as the
 * owner.  Both roots are locked by the caller, who is superuser; leaves are locked,
 * AccessShareLock, while they are read.  False if sums can't tell whether rows are
 * equal: after a swap where keys are derived or rows left out, where a table lacks an
 * index to read it by, or a row doesn't fit.
 */
extern bool range_sums(Migration *m, const char *low, const char *high, RangeSums *sums);

#endif
