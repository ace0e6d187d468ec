/*-------------------------------------------------------------------------
 *
 * reconcile.h
 *	  Comparing both tables and putting right what differs: what takes the
 *	  place of the copy where the target had rows before, and what follows a
 *	  change of columns that may have left them apart.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_RECONCILE_H
#define MIGRATE_EXT_RECONCILE_H

#include "types.h"

/*
 * Ask for a comparison from the beginning, in the current transaction.
 * adopted: for good, the target had rows or indexes before the migration.
 */
extern void reconcile_ask(Migration *m, bool adopted);

/* Nothing is to be compared any more: all rows have been copied anew. */
extern void reconcile_forget(Migration *m);

/* Had the target rows or indexes before?  Then it is never copied to. */
extern bool reconcile_adopted(const Migration *m);

/* Is there something left to compare? */
extern bool reconcile_pending(const Migration *m);

/*
 * Compare all, in the current transaction, and append what differs to the change
 * log; returns how many rows.  Both tables are locked by the caller, who is
 * superuser.
 */
extern int64 reconcile_now(Migration *m);

/*
 * Compare the next range, in a transaction of its own, and append what differs
 * to the change log, for the drain to put right.  States catching_up, live and
 * swapped.  DONE if nothing is left, else MORE; WAIT while a table is locked.
 * Locks both tables AccessShareLock.  Errors of guard_check().
 */
extern StepResult reconcile_step(Run *run);

#endif
