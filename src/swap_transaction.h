/*-------------------------------------------------------------------------
 *
 * swap_transaction.h
 *	  The swap itself, and the way back: one transaction, catalog changes only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SWAP_TRANSACTION_H
#define MIGRATE_EXT_SWAP_TRANSACTION_H

#include "nodes/pg_list.h"
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

/* What a rehearsal found. */
typedef struct SwapRehearsal
{
	double forth_ms; /* from the locks granted: checks and changes of the swap */
	double back_ms;	 /* and of the swap back */
	bool both_ways;	 /* false: there is no way back to rehearse */
	List *swapped;	 /* of Difference (describe.h): the application's table
								 * before, and the one that took over */
	List *returned;	 /* and after the way back; those should be none */
} SwapRehearsal;

/*
 * The swap from m's present state and the swap back, in the current
 * transaction, which the caller must roll back whatever comes of it.  Locks and
 * waits as swap_perform() does, and holds the locks for as long as both swaps
 * and two descriptions take.  What is compared and waited for before a swap's
 * locks is left out.
 *
 * Errors: those of swap_perform(), where 55000 is what the leader will have made
 * ready soon; MX003, MX005, MX001: what finalize or undo would be refused for.
 */
extern void swap_rehearse(Migration *m, SwapTimes *times, SwapRehearsal *rehearsal);

/* The state a direction starts from, and the one it leads to. */
extern MigrationState swap_from(Direction direction);
extern MigrationState swap_to(Direction direction);

/* Milliseconds between two times. */
extern double swap_elapsed_ms(instr_time from, instr_time to);

#endif
