/*-------------------------------------------------------------------------
 *
 * stages.h
 *	  The stages: one file each, which don't know each other.  A step is called
 *	  by phases.c outside of a transaction and returns MORE, WAIT or DONE.  It
 *	  opens transactions by run_begin()/run_attempt() itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_STAGES_H
#define MIGRATE_EXT_STAGES_H

#include "types.h"

/* install.c: created -> logging, and the restart of a copy */
extern StepResult install_step(Run *run);
extern StepResult install_restart_step(Run *run);
/* live, swapped: put a trigger right that was tampered with */
extern StepResult install_mend_step(Run *run);

/*
 * guard: called by every batch after it locked the source (and before its
 * snapshot): errors with ERRCODE_MIGRATION_RESTART if the source was rewritten
 * or truncated since the horizon, ERRCODE_MIGRATION_TAMPERED if trigger,
 * columns or leaves are not what they were.  Reads m's options and shapes anew.
 * guard.c
 */
extern void guard_check(Migration *m);

/* Of that, only whether the source's columns are still those that the target was made for. */
extern void guard_check_source(Migration *m);

/*
 * A number that changes when somebody did to the partitions what escapes
 * guard_check(), as he put it back: detached and attached one, or (swapped)
 * disabled a reverse trigger and enabled it always.  New partitions leave it as
 * it is.
 */
extern int64 guard_mark(Migration *m);

/* Swapped: somebody has disabled, enabled or made a reverse trigger since. */
extern bool guard_reverse_was_touched(Migration *m);

/* copy.c: logging -> copying -> indexing */
extern StepResult copy_begin_step(Run *run); /* state logging, goal beyond */
extern StepResult copy_step(Run *run);		 /* DONE when all batches are done */
extern StepResult copy_work(Run *run);		 /* one batch; WAIT if none is to be had */

/* index.c: indexing -> catching_up */
extern StepResult index_step(Run *run);
extern StepResult index_work(Run *run);

/*
 * drain.c: empties the change log.  drain_step: a batch, in one transaction; WAIT
 * when the pass is through: what stood there when it began is drained, and under
 * load more has come.  live: takes ShareRowExclusiveLock on the front table,
 * bounded, for a short batch; MORE until nothing is left.
 * drain_rest: within the caller's transaction, which holds ShareRowExclusive on
 * the front: drains all there is; returns entries drained.
 */
extern StepResult drain_step(Run *run, bool live);
extern int64 drain_rest(Run *run);

/* golive.c: catching_up -> live */
extern StepResult golive_step(Run *run);

/* live.c: what goes on while live and swapped: drain logged identities, statistics */
extern StepResult live_step(Run *run);

struct VerifyCounts;

/*
 * verify.c.  verify_all(): compare everything, outside of a transaction; the processes
 * of the migration join in.  *counts is filled in and recorded.  False if the deadline
 * (0: none) passed before the end.  Errors: 55000 in a state in which the tables aren't
 * kept equal, those of guard_check().
 */
extern bool verify_all(Run *run, TimestampTz deadline, struct VerifyCounts *counts);

/*
 * The leader's: compare everything (full), or what may have changed.  Opens a pass, which
 * is then shared work; MORE until that is done, WAIT while another process has one of
 * its own, DONE when it is recorded and *counts filled in.  Errors as verify_all().
 */
extern StepResult verify_step(Run *run, bool full, bool background, struct VerifyCounts *counts);

/* Is there a pass to share, and its share: WAIT if there is nothing to read now. */
extern bool verify_has_work(const Migration *m);
extern StepResult verify_work(Run *run);

/* What there is to do about verification while nobody asks; in a transaction of the leader. */
typedef enum VerifyDue
{
	VERIFY_NOTHING,
	VERIFY_DUE,		  /* verify_step(), in the background */
	VERIFY_OF_OTHERS, /* share it */
	VERIFY_UNWANTED	  /* ours, and who wanted it has gone: verify_give_up() */
} VerifyDue;

extern VerifyDue verify_due(const Run *run);
extern void verify_give_up(Run *run);

/* Do its findings still count?  What was clean then is so no more without a trace. */
extern bool verify_holds(Migration *m);

/* preflight.c: number of problems of severity error; messages appended to *text */
extern int preflight_errors(Migration *m, char **text);

/* swap.c: live <-> swapped.  Step of the leader, when asked for. */
extern StepResult swap_step(Run *run);

/*
 * The swap itself, in the current transaction; takes the locks, checks all
 * under them, errors if anything is not ready.  From swap()/unswap() and swap_step.
 */
extern void swap_in_transaction(Migration *m, Direction direction);

/* cleanup.c: completed and cancelled */
extern StepResult complete_step(Run *run);
extern StepResult cancel_step(Run *run);

/* target.c: keep range partitions ahead; called while live and swapped */
extern void target_keep_headroom(Run *run);

/*
 * key_backfill.c: the states of a migration of kind "key", and its ends.  The
 * restart is that of a first pass whose blocks have moved.
 */
extern StepResult key_begin_step(Run *run);
extern StepResult key_logging_step(Run *run);
extern StepResult key_copy_step(Run *run);
extern StepResult key_copy_work(Run *run);
extern StepResult key_indexing_step(Run *run);
extern StepResult key_catch_up_step(Run *run);
extern StepResult key_finish_step(Run *run);
extern StepResult key_cancel_step(Run *run);
extern StepResult key_restart_step(Run *run);

/* What verify_all() is to others: missing are rows that lack the key and should have it. */
extern bool key_verify(Run *run, TimestampTz deadline, struct VerifyCounts *counts);

#endif
