/*-------------------------------------------------------------------------
 *
 * attempt.h
 *	  What becomes of an attempt that failed, at exclusive locks above all.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_ATTEMPT_H
#define MIGRATE_EXT_ATTEMPT_H

#include "storage/lockdefs.h"

#include "types.h"

/* Did it fail for want of a lock?  Then it is worth another try. */
extern bool attempt_is_lock_failure(const ErrorData *error);

/*
 * Record who was in the way of an attempt that began then and waited so long,
 * signal them if that was asked for, and sleep before the next one.  In
 * transactions of its own.
 */
extern void attempt_failed(Run *run, TimestampTz began, double waited_ms);

/*
 * Lock a table in a transaction that isn't ours: by several attempts, between which
 * nobody waits behind us.  Each that failed is a NOTICE that tells who held the table; after
 * a few seconds that is an error, 55P03.  One attempt alone where the transaction
 * holds a lock already that others wait for.
 */
extern void attempt_lock(Oid relid, LOCKMODE mode);

/* Sleep before the next attempt, the n-th. */
extern void attempt_back_off(Run *run, int n, TimestampTz deadline);

/* Has the time that was given after a failed attempt passed?  A step that makes one asks first. */
extern bool attempt_due(const Run *run);

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
