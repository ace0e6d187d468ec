/*-------------------------------------------------------------------------
 *
 * swap_request.h
 *	  What the caller of finalize, undo, complete or cancel asked for, and how
 *	  far it has come: the column "request" of the migration's row.
 *
 *		{"call": .., "requester": lease, "deadline": .., "options": {..},	by procedures.c
 *		 "progress": {..}}													by the leader
 *
 * The progress is kept in the row and not in the process: another leader goes
 * on where the last one died, and what a stage waits for is told once, not once
 * a process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SWAP_REQUEST_H
#define MIGRATE_EXT_SWAP_REQUEST_H

#include "types.h"

/* What may be done about sessions that hold a lock in the way. */
typedef enum BlockersOption
{
	BLOCKERS_WAIT,
	BLOCKERS_CANCEL,
	BLOCKERS_TERMINATE
} BlockersOption;

/* What becomes of foreign keys that point at the table; see carry_fk_in.c. */
typedef enum IncomingFksOption
{
	INCOMING_FKS_MOVE,
	INCOMING_FKS_KEEP,
	INCOMING_FKS_DROP
} IncomingFksOption;

typedef struct SwapRequest
{
	/* as asked */
	TimestampTz deadline; /* 0: none */
	int64 requester;	  /* lease of the session that waits; 0: none does */
	bool ignore_old_snapshots;
	bool verify;
	bool accept_failed;
	bool drop_original;
	IncomingFksOption incoming_fks;
	BlockersOption blockers;
	Jsonb *pg_partman; /* settings, see partman.h; NULL: not asked for */

	/* progress */
	char *told;			 /* words of what was told already, or NULL */
	char *waiting;		 /* what it waits for now, for people, or NULL */
	bool retried_failed; /* failed rows were put back into the log */
	bool read_again;	 /* what may have changed since the tables were verified */
	uint64 stable;		 /* the stable_xid that "older" speaks of; 0: none */
	char *older;		 /* transactions that may hold a snapshot older than
								 * it, see snapshots.h; "" when all are gone */
	int attempts;		 /* at the locks, failed ones */
	double wait_ms;		 /* in those attempts */
	char *blocked_by;	 /* JSON array of who held us up */
} SwapRequest;

/* Read m->request, in CurrentMemoryContext; all defaults where it is NULL. */
extern SwapRequest *swap_request_read(const Migration *m);

/*
 * Write the progress back, in the current transaction.  False, and nothing is
 * written, if the row asks for something else by now.
 */
extern bool swap_request_save(Migration *m, const SwapRequest *request);

/*
 * It waits for what the message says: noted in the row, and recorded as an event
 * of kind "waiting" the first time for each word.  In the current transaction.
 */
extern void swap_request_tell(Migration *m, SwapRequest *request, const char *word,
							  const char *detail, const char *fmt, ...) pg_attribute_printf(5, 6);

/*
 * Give the request up: the goal becomes the present state, last_error the
 * message, and an event of kind "refused" tells the waiting caller.  values,
 * which may be NULL, become the DETAIL of his error.  In the current
 * transaction; does nothing if the row asks for something else by now.
 */
extern void swap_request_withdraw(Migration *m, int sqlerrcode, const char *values, const char *fmt,
								  ...) pg_attribute_printf(4, 5);

/*
 * Whether anybody still waits, and there is time left; if not, the request is
 * withdrawn.  In the current transaction.
 */
extern bool swap_request_holds(Migration *m, const SwapRequest *request);

#endif
