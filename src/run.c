/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Transactions and rights of a process that works on a migration; the
 *	  protocol is told in run.h.
 *
 * In a background worker run_begin .. run_commit is a plain transaction.  In a
 * session inside CALL a transaction is always open (SPI_commit starts the next
 * one), and the work is done in a subtransaction of it: that is what lets us
 * catch an error there, unwind SPI and everything else, and roll back.  Each
 * top-level transaction holds one subtransaction, so nothing overflows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "debug_point.h"
#include "lock_queue.h"
#include "run.h"
#include "settings.h"
#include "version.h"

/* As libpq/libpq.h has it, which wants the headers of Kerberos and OpenSSL, too. */
extern bool pq_check_connection(void);

typedef struct PinnedSetting
{
	const char *name;
	const char *value;
} PinnedSetting;

/*
 * What an expression of the user's may see, or its text be read by: a value must
 * come out the same in the copy, in a writer's trigger and in verification,
 * whatever the role, the database or the session has set.
 */
static const PinnedSetting expression_settings[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"row_security", "off"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"extra_float_digits", "3"},
	{"bytea_output", "hex"},
	{"xmlbinary", "base64"},
	{"xmloption", "content"},
	{"default_text_search_config", "pg_catalog.simple"},
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	{"array_nulls", "on"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"quote_all_identifiers", "off"},
};

/* What else must not disturb us. */
static const PinnedSetting own_settings[] = {
	{"session_replication_role", "origin"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
	{"check_function_bodies", "off"},
};

void
pin_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

void
set_until_commit(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
							 false);
}

void
forbid_compiling(void)
{
	pin_setting("jit", "off");
}

void
pin_expression_settings(void)
{
	int i;

	for (i = 0; i < lengthof(expression_settings); i++)
		pin_setting(expression_settings[i].name, expression_settings[i].value);
}

static void
pin_settings(void)
{
	int i;

	pin_expression_settings();
	for (i = 0; i < lengthof(own_settings); i++)
		pin_setting(own_settings[i].name, own_settings[i].value);
}

/*
 * A run's own limits, not those of the role or the session.  Once a
 * transaction: a look at our own tables must not lift what run_limit_lock_waits()
 * has set.
 */
static void
pin_timeouts(void)
{
	pin_setting("statement_timeout", "0");
	pin_setting("lock_timeout", "0");
	pin_setting("idle_in_transaction_session_timeout", "0");
	if (GetConfigOption("transaction_timeout", true, false) != NULL) /* since 17 */
		pin_setting("transaction_timeout", "0");
}

/*
 * Settings of the role or the database must not disturb a worker between its
 * runs either: it waits for locks, and looks at our tables.
 */
void
run_settle_worker(void)
{
	static const char *const settings[][2] = {
		{"lock_timeout", "0"},
		{"transaction_timeout", "0"}, /* since 17 */
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"role", "none"},
		{"jit", "off"}, /* many small statements, of which none is worth being compiled */
	};
	int i;

	for (i = 0; i < lengthof(settings); i++)
	{
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

static void
become(Oid userid, int flags)
{
	Oid current;
	int sec_context;

	GetUserIdAndSecContext(&current, &sec_context);
	SetUserIdAndSecContext(userid, sec_context | SECURITY_LOCAL_USERID_CHANGE | flags);
}

/*
 * Create a run for the migration, 0: for none, in CurrentMemoryContext (which must
 * outlive transactions).  Touches no table.
 */
Run *
run_create(int64 migration_id, bool in_session)
{
	Run *run = palloc0(sizeof(Run));

	run->migration_id = migration_id;
	run->in_session = in_session;
	run->scratch =
		AllocSetContextCreate(CurrentMemoryContext, "migrate_ext step", ALLOCSET_DEFAULT_SIZES);
	return run;
}

/*
 * Keep the extension from being dropped or updated until the transaction ends;
 * false if it is gone.  DROP EXTENSION locks it before all that belongs to it, so
 * it waits here, and not in the middle of a deadlock with us.  An update may just
 * have been (version.h): then a session can't go on, and a worker is started anew.
 */
static bool
lock_extension(const Run *run)
{
	Oid extension = get_extension_oid("migrate_ext", true);
	char *objects;

	if (!OidIsValid(extension))
		return false;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	if (version_extension(&objects) != extension)
		return false;
	if (version_of_library_against(objects) != 0)
	{
		if (run->in_session)
			version_refuse(objects);
		ereport(LOG, (errmsg("a process of migrate_ext ends, to be started with the library of "
							 "version %s",
							 objects)));
		proc_exit(1);
	}
	return true;
}

/*
 * A caller who is gone waits for nothing, and nobody reads what a call finds out
 * for him: his request must neither be carried out after he was given up, nor
 * stand in the way of the one who asks again in his place.  The server itself
 * looks only while client_connection_check_interval is set.  (No client: a
 * background worker's session.)
 */
static void
check_client(void)
{
	if (MyProcPort == NULL || !WaitEventSetCanReportClosed() || pq_check_connection())
		return;
	ClientConnectionLost = true;
	InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Begin a transaction of READ COMMITTED, read write, as superuser with pinned
 * settings, and load run->m (NULL if the migration is gone, or the extension).
 */
void
run_begin(Run *run)
{
	Assert(!run->in_transaction);
	if (run->in_session)
	{
		Assert(IsTransactionState() && !ActiveSnapshotSet());
		check_client();
		XactIsoLevel = XACT_READ_COMMITTED;
		XactReadOnly = false;
		XactDeferrable = false;
		BeginInternalSubTransaction(NULL);
	}
	else
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		XactIsoLevel = XACT_READ_COMMITTED;
		XactReadOnly = false;
		XactDeferrable = false;
	}

	run->in_transaction = true;

	/*
	 * Neither a worker has one nor a session between its commits.  SPI wants one to
	 * stand on, and so do values of the catalogs that are stored apart, such as a
	 * long rule of a view: 18 refuses to read them without.
	 */
	PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&run->save_userid, &run->save_sec_context);
	run->guc_nestlevel = NewGUCNestLevel();
	run->owner_nestlevel = 0;
	run->holds_locks = false;
	become(BOOTSTRAP_SUPERUSERID, 0);
	pin_settings();
	pin_timeouts();
	MemoryContextSwitchTo(run->scratch);
	run->m = lock_extension(run) ? catalog_load(run->migration_id, false) : NULL;
}

/* Between two transactions of a step the extension may be dropped, or the migration forgotten. */
void
run_begin_existing(Run *run)
{
	run_begin(run);
	if (run->m == NULL && run->migration_id != 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("the migration does not exist any more")));
}

/*
 * Take back what the owner's functions have set: an expression that calls
 * set_config() must not choose the search_path of what we do next as superuser,
 * nor of the session that called us.
 */
static void
forget_owners_settings(Run *run)
{
	if (run->owner_nestlevel > 0)
		AtEOXact_GUC(false, run->owner_nestlevel);
	run->owner_nestlevel = 0;
}

/*
 * Locks are held through COMMIT, and where a synchronous standby is away that
 * never returns: readers too would stand behind the locks of a swap.  So a
 * transaction that limits its lock waits does not wait for standbys.  Nothing is
 * lost by that: the state of a migration and what it tells of are in one stream
 * of WAL.  A standby that is promoted without the swap has no write either that
 * came after it, and goes on from the state before.  The next commit of ours
 * waits as the server is told to, with no lock.
 */
static void
commit_locally(Run *run)
{
	if (run->holds_locks && synchronous_commit > SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		set_until_commit("synchronous_commit", "local");
}

/* In a debug build; for an audit. */
static void
tell_locks(const Run *run)
{
	ME_DEBUG_LOCKS(psprintf("%s-%s", state_name(run->seen_state),
							run->m ? state_name(run->m->state) : "none"));
}

/* Commit what run_begin() began. */
void
run_commit(Run *run)
{
	Assert(run->in_transaction);
	tell_locks(run);
	lock_queue_leave();
	forget_owners_settings(run);
	SetUserIdAndSecContext(run->save_userid, run->save_sec_context);
	AtEOXact_GUC(true, run->guc_nestlevel);
	run->m = NULL;
	PopActiveSnapshot();
	if (run->in_session)
	{
		ReleaseCurrentSubTransaction();
		run->in_transaction = false;
		commit_locally(run);
		SPI_commit();
	}
	else
	{
		run->in_transaction = false;
		commit_locally(run);
		CommitTransactionCommand();
		pgstat_report_stat(false);
	}
	MemoryContextSwitchTo(run->scratch);
}

/*
 * Roll back after an error was caught (and its data copied and flushed).
 * Settings and user come back by themselves.
 */
void
run_abort(Run *run)
{
	tell_locks(run);
	lock_queue_leave();
	run->m = NULL;
	if (run->in_session)
	{
		if (run->in_transaction)
			RollbackAndReleaseCurrentSubTransaction();
		run->in_transaction = false;
		SPI_rollback();
	}
	else
	{
		run->in_transaction = false;
		AbortCurrentTransaction();
	}
	MemoryContextSwitchTo(run->scratch);
}

/* One transaction around body, committed if keep and nothing failed. */
static bool
attempt(Run *run, RunBody body, void *arg, bool keep, ErrorData **error)
{
	volatile bool ok = false;

	PG_TRY();
	{
		run_begin_existing(run);
		body(run, arg);
		if (keep)
			run_commit(run);
		ok = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(run->scratch);
		*error = CopyErrorData();
		FlushErrorState();
		run_abort(run);
	}
	PG_END_TRY();
	if (ok && !keep)
		run_abort(run);

	/* somebody wants this process to stop, not this attempt to be repeated */
	if (!ok && (*error)->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(*error);
	return ok;
}

/* See run.h. */
bool
run_attempt(Run *run, RunBody body, void *arg, ErrorData **error)
{
	return attempt(run, body, arg, true, error);
}

bool
run_rolled_back(Run *run, RunBody body, void *arg, ErrorData **error)
{
	return attempt(run, body, arg, false, error);
}

void
run_as_owner(Run *run)
{
	if (!OidIsValid(run->m->owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("the source of migration \"%s\" has been dropped", run->m->name),
						errhint("Call migrate_ext.cancel to end the migration.")));
	if (run->owner_nestlevel == 0)
		run->owner_nestlevel = NewGUCNestLevel();
	become(run->m->owner, SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
}

void
run_as_self(Run *run)
{
	forget_owners_settings(run);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   run->save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
limit_lock_wait(int ms)
{
	pin_setting("lock_timeout", psprintf("%d", Max(1, ms)));
}

/*
 * deadlock_timeout below lock_timeout: an autovacuum is only asked to yield
 * when the waiter's deadlock check runs.  From then on each look at who waits behind
 * us would be a line in the server's log; who is in the way events tell.
 */
void
limit_lock_waits(const Migration *m)
{
	limit_lock_wait(settings_get_int(m, "lock_timeout_ms"));
	pin_setting("deadlock_timeout", psprintf("%d", settings_get_int(m, "deadlock_timeout_ms")));
	pin_setting("log_lock_waits", "off");
}

void
run_limit_lock_waits(Run *run)
{
	limit_lock_waits(run->m);
	lock_queue_enter(settings_get_int(run->m, "lock_queue_ms"));
	run->holds_locks = true;
}

void
run_sleep(Run *run, long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (!run->in_session && ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void
run_report(Run *run, const char *fmt, ...)
{
	char text[256];
	va_list args;

	if (run->in_session)
		return; /* the CALL is what people should see there */
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	pgstat_report_activity(STATE_RUNNING, text);
	set_ps_display(text);
}

static void
user_switch(UserSwitch *save, Oid userid, int flags)
{
	GetUserIdAndSecContext(&save->userid, &save->sec_context);
	save->guc_nestlevel = NewGUCNestLevel();
	become(userid, flags);
	pin_settings();
}

void
user_switch_superuser(UserSwitch *save)
{
	user_switch(save, BOOTSTRAP_SUPERUSERID, 0);
}

void
user_switch_owner(UserSwitch *save, Oid owner)
{
	user_switch(save, owner, SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
}

void
user_switch_back(UserSwitch *save)
{
	AtEOXact_GUC(false, save->guc_nestlevel);
	SetUserIdAndSecContext(save->userid, save->sec_context);
}
