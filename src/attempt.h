/*-------------------------------------------------------------------------
 *
 * attempt.h
 *	  What becomes of an attempt that failed, at exclusive locks above all.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_ATTEMPT_H
#define MIGRATE_EXT_ATTEMPT_H

#include "types.h"

/* Did it fail for want of a lock?  Then it is worth another try. */
extern bool attempt_is_lock_failure(const ErrorData *error);

/*
 * Record who was in the way of an attempt that began then and waited so long,
 * signal them if that was asked for, and sleep before the next one.  In
 * transactions of its own.
 */
extern void attempt_failed(Run *run, TimestampTz began, double waited_ms);

/* Sleep before the next attempt, the n-th. */
extern void attempt_back_off(Run *run, int n, TimestampTz deadline);

/*
 * What a step that locks writers out, for a moment and asked for by nobody in
 * particular, comes to: DONE; WAIT after the lock was not to be had, who held it
 * being noted and more time given than the last time; any other error is raised
 * again.  began: when the attempt did.  In transactions of its own.
 */
extern StepResult attempt_result(Run *run, bool ok, ErrorData *error, TimestampTz began);

/*
 * Is this error one that passes, and not yet the tenth in a row?  Then some time has
 * passed, longer each time, and the work that failed is to be done again.  *failures
 * counts them; the caller sets it to 0 when the work succeeds.  Outside of a transaction.
 */
extern bool attempt_again(Run *run, const ErrorData *error, int *failures);

/* Withdraw the request because of this error, in a transaction of its own. */
extern void attempt_refuse(Run *run, const ErrorData *error);

#endif
