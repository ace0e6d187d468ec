/*-------------------------------------------------------------------------
 *
 * phases.h
 *	  The state machine's loop body: from a migration's state and goal to the
 *	  stage that has the next step.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PHASES_H
#define MIGRATE_EXT_PHASES_H

#include "types.h"

/*
 * One step of the leader.  Errors are handled here: a copy that must start
 * over, tampering (the migration is paused with the reason), a lock not to be
 * had (WAIT).  Any other error is copied to *error (in run->scratch), after
 * everything was rolled back, and the result is WAIT; in a worker it is also
 * recorded as last_error.  run->seen_* tell what the step saw.
 */
extern StepResult phase_step(Run *run, ErrorData **error);

/*
 * A piece of the state's shared work (copying, indexing), for helpers and for a
 * leader without helpers; WAIT if there is none.  Errors as in phase_step.
 */
extern StepResult phase_work(Run *run, ErrorData **error);

/* Note down what a look at the row told; phase_step() does so by itself. */
extern void phase_saw(Run *run, const Migration *m);

/* Does the state seen last have work that helpers can share? */
extern bool phase_has_work(const Run *run);

#endif
