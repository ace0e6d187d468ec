/*-------------------------------------------------------------------------
 *
 * run.h
 *	  A process's work on one migration: transactions, whose rights it acts
 *	  with, bounded attempts.  The same stage code runs in a background worker
 *	  (plain transactions) and in a session inside CALL (SPI_commit).
 *
 * Protocol.  A step is called outside of any work: it calls run_begin(), works,
 * run_commit(), as often as it likes.  Between the two the process is the
 * bootstrap superuser with empty search_path, row_security off, READ
 * COMMITTED, read write, no time-outs; run->m is the migration as of
 * run_begin().  The active snapshot is one of that moment, for the catalogs: a
 * stage locks first and takes its own to read rows with after that.  Around
 * everything that may evaluate an expression of the user's (copy, drain, index
 * build, renames, DDL on the user's tables) the stage calls run_as_owner() /
 * run_as_self().
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_RUN_H
#define MIGRATE_EXT_RUN_H

#include "types.h"

/* In a background worker that has just connected. */
extern void run_settle_worker(void);

extern Run *run_create(int64 migration_id, bool in_session);

extern void run_begin(Run *run);
/* The same where run->m is used without a look: 42704 if the migration, or the extension, is gone. */
extern void run_begin_existing(Run *run);
extern void run_commit(Run *run);
/* after an error was caught, its data copied and flushed: roll back */
extern void run_abort(Run *run);

/*
 * One transaction of its own, from run_begin_existing() to run_commit(), around body.
 * On an error everything is rolled back; *error gets a copy (in run->scratch)
 * and the result is false.  A cancel or a shutdown is never caught.  Used where
 * failing is part of the plan: lock attempts.
 */
typedef void (*RunBody)(Run *run, void *arg);
extern bool run_attempt(Run *run, RunBody body, void *arg, ErrorData **error);

/* The same, but rolled back in any case: for a rehearsal. */
extern bool run_rolled_back(Run *run, RunBody body, void *arg, ErrorData **error);

/*
 * Inside a transaction: become the source's owner, restricted
 * (LOCAL_USERID_CHANGE | RESTRICTED_OPERATION | NOFORCE_RLS), and back.
 * Errors in between are undone by the abort of the transaction.
 */
extern void run_as_owner(Run *run);
extern void run_as_self(Run *run);

/*
 * Set lock_timeout and deadlock_timeout for this transaction, from the
 * migration's settings, and how long others may wait behind it (lock_queue.h).
 * Bounded attempts call it first.  The transaction's COMMIT does not wait for
 * synchronous standbys.
 */
extern void run_limit_lock_waits(Run *run);
/* the same within a UserSwitch or any other GUC nest level of the caller's */
extern void limit_lock_waits(const Migration *m);

/* Of these the first alone, in milliseconds, for what is left of a sum of waits. */
extern void limit_lock_wait(int ms);

/*
 * Sleep outside of a transaction's work, up to ms, or until the latch is set.
 * Handles interrupts, configuration reload, postmaster death.
 */
extern void run_sleep(Run *run, long ms);

/* pgstat_report_activity() and ps title: what a DBA reads */
extern void run_report(Run *run, const char *fmt, ...) pg_attribute_printf(2, 3);

/*
 * Become (userid restricted) outside of a Run, for commands and triggers.
 */
typedef struct UserSwitch
{
	Oid userid;
	int sec_context;
	int guc_nestlevel;
} UserSwitch;

extern void user_switch_superuser(UserSwitch *save);		/* to touch our tables */
extern void user_switch_owner(UserSwitch *save, Oid owner); /* + safe GUCs */
extern void user_switch_back(UserSwitch *save);

/*
 * Pin the settings that an expression of a user's may see, in the caller's GUC
 * nest level, which ends it.  A Run and a UserSwitch have done so already.
 */
extern void pin_expression_settings(void);

/* One setting in the same way, whatever the user may set. */
extern void pin_setting(const char *name, const char *value);

/* For all of the transaction, its COMMIT too, after the GUC nest levels have ended. */
extern void set_until_commit(const char *name, const char *value);

/*
 * For statements that take less time than compiling them would, however much the
 * planner thinks that they cost.
 */
extern void forbid_compiling(void);

#endif
