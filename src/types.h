/*-------------------------------------------------------------------------
 *
 * types.h
 *	  The words of the extension as C types: states, the migration's row, and
 *	  the run, which is what a process that works on a migration carries.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_TYPES_H
#define MIGRATE_EXT_TYPES_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/transam.h"
#include "nodes/pg_list.h"
#include "storage/block.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/*
 * The states of a migration, in the order in which they are reached.  The
 * comment names what may follow; state.c holds the same as a table and is the
 * only place that changes a state.  The order is meaningful: "has this state
 * been reached or passed" is a comparison.
 */
typedef enum MigrationState
{
	STATE_CREATED,	   /* -> logging, cancelled */
	STATE_LOGGING,	   /* -> copying, logging (restart), cancelled */
	STATE_COPYING,	   /* -> indexing, logging (restart), cancelled */
	STATE_INDEXING,	   /* -> catching_up, logging (restart), cancelled */
	STATE_CATCHING_UP, /* -> live, logging (restart), cancelled */
	STATE_LIVE,		   /* -> swapped, logging (restart), cancelled;
								 * kind "key": -> completed */
	STATE_SWAPPED,	   /* -> live (undo), completed */
	STATE_COMPLETED,   /* the end */
	STATE_CANCELLED	   /* the other end */
} MigrationState;

#define NUM_STATES (STATE_CANCELLED + 1)

/*
 * What the names of all our triggers begin with, and those of no user's should:
 * '!' sorts before every other name.
 */
#define OUR_TRIGGER_PREFIX "!migrate_ext_"

/*
 * What the names of the source and of what hangs on it end with after the swap,
 * and those of the target before it.
 */
#define ORIGINAL_SUFFIX "_orig"
#define TARGET_SUFFIX "_new"

/* Which way rows are carried: from the source, or back to it after the swap. */
typedef enum Direction
{
	DIRECTION_FORWARD,
	DIRECTION_REVERSE
} Direction;

/* What one call of a stage's step came to. */
typedef enum StepResult
{
	STEP_MORE, /* call again at once */
	STEP_WAIT, /* nothing to do now: sleep, then call again */
	STEP_DONE  /* the state has been left */
} StepResult;

/*
 * A row of migrate_ext.migration, read in one piece.  Valid in the transaction
 * (and memory context) that read it, and no longer.
 */
typedef struct Migration
{
	int64 id;
	char *name;
	char *kind;		   /* "partition" or "key" */
	char *schema_name; /* of the source when the migration was made */
	char *table_name;  /* the name the application knows */
	Oid source;		   /* the table the application used at first;
								 * the original, after the swap */
	Oid target;
	Oid log;   /* change log, InvalidOid before logging */
	Oid owner; /* the source's owner, read anew at each load;
								 * InvalidOid if the source is gone */
	MigrationState state;
	MigrationState goal;
	bool paused;
	char *pause_reason;			  /* or NULL */
	char *last_error;			  /* or NULL */
	Jsonb *options;				  /* as given to partition_by_* */
	Jsonb *settings;			  /* as given to configure() */
	Jsonb *request;				  /* what finalize, undo, complete asked; or NULL */
	Jsonb *definition;			  /* the normalized request that made it */
	bool made_target;			  /* ours to drop when cancelled */
	int32 epoch;				  /* raised when the copy starts over */
	FullTransactionId horizon;	  /* invalid before logging */
	BlockNumber end_block;		  /* the copy reads blocks below this one */
	Oid relfilenode;			  /* the source's, when the horizon was taken */
	Oid trigger_oid;			  /* sync trigger on the source */
	TransactionId trigger_xmin;	  /* of its pg_trigger row, as we left it */
	char *source_shape;			  /* relinfo_shape() when it was made */
	char *target_shape;			  /* relinfo_shape() plus leaf set */
	FullTransactionId stable_xid; /* last transaction of ours that wrote the
									 * target outside a writer's transaction:
									 * snapshots that do not see it must be
									 * gone before a swap */
	TimestampTz live_at;		  /* 0 if not yet */
	TimestampTz swapped_at;
	TimestampTz analyzed_at; /* the target's statistics, since live */
	TimestampTz verified_at; /* last complete clean verification since live */
	bool tainted;			 /* the sync trigger was tampered with: nothing
								 * counts until a clean verification */
	bool needs_mending;		 /* and it has not been put right yet */
	List *moved;			 /* char *: what the swap under way has moved, for people */
} Migration;

/* Which way its rows are carried in the state it is in. */
static inline Direction
direction_of(const Migration *m)
{
	return m->state == STATE_SWAPPED ? DIRECTION_REVERSE : DIRECTION_FORWARD;
}

/* The table that rows are carried from: the one that the application uses. */
static inline Oid
front_of(const Migration *m, Direction direction)
{
	return direction == DIRECTION_FORWARD ? m->source : m->target;
}

/* The one that is kept in step with it. */
static inline Oid
back_of(const Migration *m, Direction direction)
{
	return direction == DIRECTION_FORWARD ? m->target : m->source;
}

/*
 * A process working on a migration: leader, helper, or a session inside
 * run(), finalize() and the like.  run.c owns it.
 */
typedef struct Run
{
	int64 migration_id;
	bool in_session;	   /* transactions end by SPI_commit */
	bool in_transaction;   /* between run_begin and run_commit */
	int64 lease;		   /* this process's, see batch.h */
	MemoryContext scratch; /* reset at the end of every step */
	Migration *m;		   /* as of the current transaction's start */
	Oid save_userid;	   /* run_begin .. run_commit */
	int save_sec_context;
	int guc_nestlevel;
	int owner_nestlevel; /* run_as_owner .. run_as_self, or 0 */
	bool holds_locks;	 /* its COMMIT must not wait for a standby; see run.c */

	/* what the last step saw, for the loop around it; see phases.c */
	bool seen_key; /* it is one of kind "key" */
	MigrationState seen_state;
	bool seen_idle;			  /* there was nothing to do for a leader */
	bool seen_verifying;	  /* there was a verification to share */
	bool gone;				  /* the migration, or the whole extension, is */
	int errors;				  /* of steps, in a row, for the back-off */
	int work_errors;		  /* the same of shared work */
	int again;				  /* ERROR_AGAIN in a row */
	int attempts;			  /* at a lock, failed ones in a row: see attempt.c */
	TimestampTz next_attempt; /* not before, if there are any */
} Run;

#endif
