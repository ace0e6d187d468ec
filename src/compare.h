/*-------------------------------------------------------------------------
 *
 * compare.h
 *	  Comparing the two tables, a range of the identity at a time, as SQL text.
 *	  verify.c counts by it, reconcile.c puts right what differs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_COMPARE_H
#define MIGRATE_EXT_COMPARE_H

#include "changelog.h"
#include "types.h"

/* What the statements need to know of both tables, in the current direction. */
typedef struct Sides Sides;

/*
 * Describes both sides, which the caller has locked (AccessShareLock is enough),
 * in CurrentMemoryContext.  with_failed: rows in failed_rows are compared as
 * well.  0A000 where the identity is computed on the way: ranges of one side
 * wouldn't be ranges of the other.
 */
extern Sides *compare_sides(Migration *m, bool with_failed);

/*
 * The upper bound of the range that begins after "low" (NULL: at the beginning)
 * and has so many rows and one of the front's, as SQL text; NULL if what is left fits in
 * it.  Runs a statement, as the current user.
 */
extern char *compare_next_bound(Sides *sides, const char *low, int64 rows);

/* How many of the front's rows come after "low".  Runs a statement, as the current user. */
extern int64 compare_rows_after(Sides *sides, const char *low);

/* Columns of the one row that compare_counts() selects, all int8. */
enum
{
	COMPARE_FRONT,		   /* rows of the front side */
	COMPARE_MISSING,	   /* of those, not on the back side */
	COMPARE_EXTRA,		   /* only on the back side */
	COMPARE_DIFFERENT,	   /* on both, and not equal */
	COMPARE_JOINED_SOURCE, /* the source's rows, one found twice counted twice */
	COMPARE_SOURCE,		   /* the source's rows */
	COMPARE_SKIPPED,	   /* without key, and left out on purpose */
	COMPARE_STALE,		   /* equal but for a key derived from what has changed since */
	NUM_COMPARE_COUNTS
};

/* The statement that counts what differs in the range (low, high]. */
extern char *compare_counts(Migration *m, Sides *sides, const char *low, const char *high);

/*
 * The statement that selects the front's rows of the range as what they should be on
 * the back side: its columns, but for dropped ones, in order.
 */
extern char *compare_front_rows(Migration *m, Sides *sides, const char *low, const char *high);

/*
 * The statement that selects the rows which differ, stale keys included, as
 * entries of the change log: columns as LogColumns says, in the source's types.
 * A row that is there on both sides comes with the hint of the target's.
 */
extern char *compare_entries(Migration *m, Sides *sides, const LogColumns *columns, const char *low,
							 const char *high);

/*
 * The statement that selects the rows which differ, for people: identity jsonb,
 * kind text (missing, extra, different, stale_key), columns text[] (those that
 * differ, NULL where a row is missing), source_row jsonb, target_row jsonb; in the
 * order of the identity.
 */
extern char *compare_differences(Migration *m, Sides *sides, const char *low, const char *high);

/* For this transaction: plan such statements for what they are, small ranges. */
extern void compare_set_planner(void);

/* Rows of the next range, after one of so many took so long; 0: of the first. */
extern int64 compare_next_size(int64 rows, int target_ms, double took_ms);

#endif
