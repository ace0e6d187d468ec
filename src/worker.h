/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  Background workers: one leader a migration, helpers for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_WORKER_H
#define MIGRATE_EXT_WORKER_H

#include "types.h"

/*
 * See to it that a leader looks at the migration once the caller's transaction
 * has committed: wake the one there is, or register one.  False if no worker
 * slot is free; the caller decides what to say.
 */
extern bool worker_wake(Migration *m);

/* worker_wake(), with a WARNING and a hint where there is no slot. */
extern void worker_wake_or_warn(Migration *m);

/* The same from a process that isn't in the caller's position (launcher). */
extern bool worker_start_leader(int64 migration_id, const char *name, TransactionId wait_for);

#endif
