/*-------------------------------------------------------------------------
 *
 * other_triggers.h
 *	  Hand-written sync triggers on the table that is migrated: found before
 *	  they write the target beside ours, and replaced by ours.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_OTHER_TRIGGERS_H
#define MIGRATE_EXT_OTHER_TRIGGERS_H

#include "nodes/pg_list.h"
#include "types.h"

/*
 * 55000 if an enabled trigger on the source seems to write the target: its
 * function's text, or its arguments, name it.  Two triggers that write the same
 * rows would make the application's writes fail.  Locks nothing.
 */
extern void other_triggers_check(Migration *m);

/*
 * Disable these triggers of the application's table (List of char *) and
 * remember that they are to be dropped; where the caller's transaction holds the
 * table exclusively, they are dropped at once.  The caller holds
 * ShareRowExclusiveLock.  42704 for one that is not there, 42809 for one that
 * isn't a user's.  One that was replaced already: NOTICE.
 */
extern void other_triggers_replace(Migration *m, List *names);

/* Names of those that are still to be dropped: List of char *.  Are there any? */
extern List *other_triggers_to_drop(const Migration *m);
extern bool other_triggers_pending(const Migration *m);

/*
 * Drop them, in a bounded attempt at AccessExclusiveLock on the source: DONE,
 * or WAIT after some sleep where it is not to be had now.
 */
extern StepResult other_triggers_drop(Run *run);

#endif
