/*-------------------------------------------------------------------------
 *
 * swap_transaction.h
 *	  The swap itself, and the way back: one transaction, catalog changes only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SWAP_TRANSACTION_H
#define MIGRATE_EXT_SWAP_TRANSACTION_H

#include "portability/instr_time.h"
#include "swap_request.h"
#include "types.h"

/* When what happened; filled in as it does, for a caller who measures. */
typedef struct SwapTimes
{
	bool asked;	  /* the locks have been asked for */
	bool granted; /* and both are there */
	instr_time asked_at;
	instr_time granted_at;
	int64 swap_id; /* of the row in migrate_ext.swaps */
} SwapTimes;

/*
 * Swap (forward) or swap back (reverse) in the current transaction, as
 * superuser.  Locks the migration's row, then the table that the application
 * uses and the other one (AccessExclusiveLock), waiting no longer than
 * lock_timeout_ms for both together.
 *
 * Errors, all of which leave nothing: 55P03 or 40P01 a lock was not to be had;
 * 55000 something is missing, errdetail tells what; MX004 trigger, columns or
 * partitions are not what they were.
 */
extern void swap_perform(Migration *m, Direction direction, const SwapRequest *request,
						 SwapTimes *times);

/* The state a direction starts from, and the one it leads to. */
extern MigrationState swap_from(Direction direction);
extern MigrationState swap_to(Direction direction);

/* Milliseconds between two times. */
extern double swap_elapsed_ms(instr_time from, instr_time to);

#endif
