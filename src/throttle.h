/*-------------------------------------------------------------------------
 *
 * throttle.h
 *	  Why to slow down: whoever works on a migration asks before each piece of
 *	  work, and tells after it how much that was.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_THROTTLE_H
#define MIGRATE_EXT_THROTTLE_H

#include "types.h"

/*
 * May this process take its next piece of work?  Outside of a transaction.
 * False: not yet; it has slept for a fraction of a second (less where the latch
 * was set), and the caller looks at the migration's row again before it asks
 * again.  So a pause, a cancel or another setting acts at once.
 */
extern bool throttle_may_go(Run *run);

/*
 * What a piece of work came to, for the limits of rows and of megabytes a second.
 * blocks: of the table that were read; InvalidBlockNumber if it isn't known, then
 * the rows count by their average width.  In a transaction.
 */
extern void throttle_note(const Migration *m, int64 rows, BlockNumber blocks);

/* At most so many blocks, or rows, that a piece stays near what is allowed a second. */
extern BlockNumber throttle_blocks(const Migration *m, BlockNumber blocks);
extern int64 throttle_rows(const Migration *m, int64 rows);

/* The leader's, in a transaction: note that nobody has been slowed down of late. */
extern void throttle_settle(Migration *m);

#endif
