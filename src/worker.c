/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  Background workers: a leader walks a migration's states towards its goal,
 *	  helpers share the copying and the index building.
 *
 * A leader is registered in the SQL call that needs it, and waits for the
 * caller's transaction to end before it reads anything: starting it from a
 * commit callback would risk an error where none is allowed.  If the call was
 * rolled back there is nothing for it to do and it goes.  It restarts by itself
 * after a crash (postmaster keeps it on its list); over a restart of the server
 * the launcher brings it back, or resume().
 *
 * Who may write what: nothing is in shared memory.  The migration's row, the
 * batches and the advisory locks of batch.c are all there is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xact.h"
#include "catalog/pg_tablespace_d.h"
#include "commands/extension.h"
#include "common/relpath.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "catalog.h"
#include "phases.h"
#include "priority.h"
#include "run.h"
#include "settings.h"
#include "version.h"
#include "worker.h"

/* An idle leader looks at its migration's row this often, even if not woken. */
#define LEADER_POLL_MS 500
/* With helpers at work it looks whether they are through. */
#define LEADER_WATCH_MS 50
/* An idle leader looks this often for migrations that no worker was to be had for. */
#define LEADER_LACKING_MS 5000
/* A helper without work looks again, and goes after some time without any. */
#define HELPER_POLL_MS 100
#define HELPER_IDLE_LIMIT 10
/* After an error: doubled each time, up to the maximum. */
#define BACKOFF_MIN_MS 1000
#define BACKOFF_MAX_MS 60000
/* postmaster restarts a leader that died */
#define LEADER_RESTART_S 1

/* While the extension's objects are of another version than the library, which is told every ten minutes. */
#define UPDATE_POLL_MS 500
#define UPDATE_POLLS 1200

#define MAX_HELPERS 64

typedef struct WorkerArgs
{
	Oid database;
	int64 migration_id;
	TransactionId wait_for; /* the registering transaction */
	bool leader;
} WorkerArgs;

extern PGDLLEXPORT void migrate_ext_worker_main(Datum arg);

/* ---- starting and waking ---- */

static bool
register_worker(int64 migration_id, const char *name, bool leader, TransactionId wait_for,
				BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};
	WorkerArgs args = {.database = MyDatabaseId,
					   .migration_id = migration_id,
					   .wait_for = wait_for,
					   .leader = leader};

	StaticAssertStmt(sizeof(WorkerArgs) <= BGW_EXTRALEN, "arguments must fit");
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = leader ? LEADER_RESTART_S : BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "migrate_ext", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "migrate_ext_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_type, BGW_MAXLEN, "migrate_ext %s", leader ? "leader" : "helper");
	snprintf(worker.bgw_name, BGW_MAXLEN, "migrate_ext %s for %s", leader ? "leader" : "helper",
			 name);
	worker.bgw_notify_pid = leader ? 0 : MyProcPid;
	memcpy(worker.bgw_extra, &args, sizeof(args));
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

bool
worker_start_leader(int64 migration_id, const char *name, TransactionId wait_for)
{
	return register_worker(migration_id, name, true, wait_for, NULL);
}

/* Whose leaders are to be woken when the current transaction commits. */
typedef struct Wake
{
	int64 migration_id;
	char name[NAMEDATALEN];
	int pid; /* as of the commit */
} Wake;

static Wake wakes[16];
static int wake_count = 0;

/* A leader that has found nothing more to do since it was called is gone: another one comes. */
static void
replace_leaders(void)
{
	int i;

	if (wake_count == 0)
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	for (i = 0; i < wake_count; i++)
	{
		wakes[i].pid = leader_pid(wakes[i].migration_id);
		if (wakes[i].pid == 0)
			(void) worker_start_leader(wakes[i].migration_id, wakes[i].name,
									   GetTopTransactionIdIfAny());
	}
	PopActiveSnapshot();
}

static void
wake_at_commit(XactEvent event, void *arg)
{
	int i;

	if (event == XACT_EVENT_PRE_COMMIT)
		replace_leaders();
	if (event == XACT_EVENT_COMMIT)
		for (i = 0; i < wake_count; i++)
		{
			PGPROC *proc = wakes[i].pid != 0 ? BackendPidGetProc(wakes[i].pid) : NULL;

			if (proc)
				SetLatch(&proc->procLatch);
		}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_count = 0;
}

bool
worker_wake(Migration *m)
{
	static bool registered = false;

	if (leader_pid(m->id) == 0)
		return worker_start_leader(m->id, m->name, GetTopTransactionIdIfAny());
	if (!registered)
	{
		RegisterXactCallback(wake_at_commit, NULL);
		registered = true;
	}
	/* one too many to remember is only woken later, by its own clock */
	if (wake_count < lengthof(wakes))
	{
		Wake *wake = &wakes[wake_count++];

		wake->migration_id = m->id;
		strlcpy(wake->name, m->name, sizeof(wake->name));
	}
	return true;
}

void
worker_wake_or_warn(Migration *m)
{
	if (worker_wake(m))
		return;
	event_add(m, "no_worker", NULL, "no background worker slot is free");
	ereport(
		WARNING,
		(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
		 errmsg("no background worker slot is free for migration \"%s\"", m->name),
		 errdetail(
			 "The request is recorded; nothing is done until a worker or a session takes it up."),
		 m->state < STATE_LIVE
			 ? errhint(
				   "Raise max_worker_processes (now %d) and restart, or do the work in a session: CALL migrate_ext.run(%s).",
				   max_worker_processes, quote_literal_cstr(m->name))
			 : errhint(
				   "Raise max_worker_processes (now %d) and restart. CALLs of finalize, undo and complete do without a worker.",
				   max_worker_processes)));
}

/* ---- the workers ---- */

/* Is there an extension to work for?  It may be dropped while we run. */
static bool
extension_exists(void)
{
	bool exists;

	StartTransactionCommand();
	exists = OidIsValid(get_extension_oid("migrate_ext", true));
	CommitTransactionCommand();
	return exists;
}

/* Nothing can be done while its objects are of another version; if there are none, nothing need be. */
static bool
version_fits(bool tell)
{
	char *objects;
	bool fits;

	StartTransactionCommand();
	fits = !OidIsValid(version_extension(&objects)) || version_of_library_against(objects) == 0;
	if (!fits && tell)
		ereport(LOG, (errmsg("a process of migrate_ext waits for another version of its library or "
							 "of its objects"),
					  errdetail("The library is version %s, the objects are version %s.",
								version_of_library, objects)));
	CommitTransactionCommand();
	return fits;
}

/*
 * A package has come and ALTER EXTENSION UPDATE has not, or a preloaded library is
 * older.  The leader's lock keeps others from starting one more.  After a while it
 * ends, for the postmaster to start it anew: what it has loaded may be what is wrong.
 */
static void
wait_for_update(const WorkerArgs *args)
{
	if (version_fits(false))
		return;
	if (args->leader && !leader_lock(args->migration_id))
		proc_exit(0);
	for (int polls = 0; !version_fits(polls == 0); polls++)
	{
		pgstat_report_activity(STATE_RUNNING, "waiting for ALTER EXTENSION migrate_ext UPDATE");
		if (polls >= UPDATE_POLLS)
			proc_exit(1);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, UPDATE_POLL_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (args->leader)
		leader_unlock(args->migration_id);
}

static void
wait_for_caller(TransactionId xid)
{
	if (!TransactionIdIsValid(xid))
		return;
	pgstat_report_activity(STATE_RUNNING, "waiting for the calling transaction to end");
	StartTransactionCommand();
	XactLockTableWait(xid, NULL, NULL, XLTW_None);
	CommitTransactionCommand();
}

/* errors: in a row, with this one */
static void
sleep_after(Run *run, ErrorData *error, int errors, long ms)
{
	if (error)
		ms = Min((long) BACKOFF_MIN_MS << Min(errors - 1, 10), BACKOFF_MAX_MS);
	run_report(run, "%s", error ? "waiting after an error" : "waiting");
	run_sleep(run, ms);
}

/*
 * Between two pieces of work.  One that has always more to do never sleeps, and
 * would outlive the postmaster; no new one can start as long as it is there.
 */
static void
look_up(void)
{
	CHECK_FOR_INTERRUPTS();
	if (!PostmasterIsAlive())
		proc_exit(1);
}

/* ---- migrations for which no worker was to be had ---- */

/*
 * The first of them that still has no leader, other than last; NULL if there is
 * none.  In a transaction.
 */
static Migration *
first_lacking(int64 last)
{
	ListCell *lc;
	List *ids = catalog_unfinished();

	foreach (lc, ids)
	{
		int64 id = *(int64 *) lfirst(lc);
		Migration *m;

		if (id == last || leader_pid(id) != 0 || !event_lacks_worker(id))
			continue;
		m = catalog_load(id, false);
		if (m && !m->paused)
			return m;
	}
	return NULL;
}

/* A slot may have come free since. */
static void
start_lacking(Run *run)
{
	Migration *m;

	run_begin(run);
	m = run->m ? first_lacking(run->migration_id) : NULL;
	if (m)
		(void) worker_start_leader(m->id, m->name, InvalidTransactionId);
	run_commit(run);
}

/* ---- leader ---- */

typedef struct Helpers
{
	BackgroundWorkerHandle *handle[MAX_HELPERS];
} Helpers;

/*
 * Have as many helpers as the settings allow; returns how many there are.  A
 * slot that is not to be had is no error: the work is then shared by fewer.
 */
static int
ensure_helpers(Run *run, Helpers *helpers, const char *name, int wanted)
{
	int running = 0;
	int i;

	for (i = 0; i < Min(wanted, MAX_HELPERS); i++)
	{
		pid_t pid;

		if (helpers->handle[i] && GetBackgroundWorkerPid(helpers->handle[i], &pid) == BGWH_STOPPED)
		{
			pfree(helpers->handle[i]);
			helpers->handle[i] = NULL;
		}
		if (helpers->handle[i] == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			if (!register_worker(run->migration_id, name, false, InvalidTransactionId,
								 &helpers->handle[i]))
				helpers->handle[i] = NULL;
			MemoryContextSwitchTo(old);
		}
		if (helpers->handle[i])
			running++;
	}
	return running;
}

static int
helpers_wanted(Run *run, char **name)
{
	int wanted = 0;

	run_begin(run);
	if (run->m)
	{
		wanted = settings_get_int(run->m, "workers");
		*name = pstrdup(run->m->name);
	}
	run_commit(run);
	return wanted;
}

/* Work of the state is to be done: by helpers, or by ourselves where there are none. */
static void
share_work(Run *run, Helpers *helpers)
{
	ErrorData *error = NULL;
	char *name = NULL;
	int wanted = helpers_wanted(run, &name);

	if (wanted > 0 && ensure_helpers(run, helpers, name, wanted) > 0)
	{
		run_report(run, "%s, by %d helpers", state_name(run->seen_state), wanted);
		run_sleep(run, LEADER_WATCH_MS);
	}
	else if (phase_work(run, &error) == STEP_WAIT)
		sleep_after(run, error, run->work_errors, LEADER_POLL_MS);
}

static void
leader_loop(Run *run)
{
	Helpers helpers = {0};
	TimestampTz looked = GetCurrentTimestamp();

	for (;;)
	{
		ErrorData *error;
		StepResult result = phase_step(run, &error);

		if (result != STEP_DONE || run->gone)
		{
			if (run->gone || run->seen_idle)
				return;
			if (result == STEP_WAIT)
			{
				if (TimestampDifferenceExceeds(looked, GetCurrentTimestamp(), LEADER_LACKING_MS))
				{
					start_lacking(run);
					looked = GetCurrentTimestamp();
				}
				sleep_after(run, error, run->errors, LEADER_POLL_MS);
			}
			else if (phase_has_work(run))
				share_work(run, &helpers);
		}
		MemoryContextReset(run->scratch);
		look_up();
	}
}

/* ---- helper ---- */

/*
 * Is there still a leader, and work in this state, for a process like this one?
 * One that can't come back to a higher priority makes room for another.  Sets
 * run->seen_state.
 */
static bool
helper_wanted(Run *run)
{
	bool wanted = false;
	int nice = 0;

	run_begin(run);
	if (run->m)
	{
		phase_saw(run, run->m);
		wanted = !run->m->paused && run->m->goal != STATE_CANCELLED && phase_has_work(run) &&
				 leader_pid(run->m->id) != 0;
		nice = settings_get_int(run->m, "worker_nice");
	}
	run_commit(run);
	return wanted && priority_give_way(nice);
}

static void
helper_loop(Run *run)
{
	int idle = 0;

	while (idle < HELPER_IDLE_LIMIT && helper_wanted(run))
	{
		ErrorData *error;

		if (phase_work(run, &error) == STEP_WAIT)
		{
			sleep_after(run, error, run->work_errors, HELPER_POLL_MS);
			idle++;
		}
		else
			idle = 0;
		MemoryContextReset(run->scratch);
		look_up();
	}
}

/* ---- entry point ---- */

/* A leader that is through goes on with a migration that has none: its slot is there. */
static bool
take_next(WorkerArgs *args)
{
	Migration *m;
	bool found;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	m = first_lacking(args->migration_id);
	found = m != NULL;
	if (found)
		args->migration_id = m->id;
	PopActiveSnapshot();
	CommitTransactionCommand();
	return found;
}

/*
 * Lead as long as there is something to do.  Who gave a leader more to do while it was
 * about to go took it for there: so it looks once more when it no longer is.
 */
static void
lead(Run *run)
{
	bool idle = false;

	while (!idle && leader_lock(run->migration_id))
	{
		leader_loop(run);
		leader_unlock(run->migration_id);
		run_begin(run);
		idle = run->m == NULL || migration_is_idle(run->m);
		run_commit(run);
	}
}

static void
work(WorkerArgs *args)
{
	Run *run = run_create(args->migration_id, false);

	run_begin(run);
	if (run->m == NULL)
	{
		run_commit(run);
		return;
	}
	lease_take(run);
	SetConfigOption("application_name", psprintf("migrate_ext %s", run->m->name), PGC_USERSET,
					PGC_S_SESSION);
	run_commit(run);

	if (args->leader)
		lead(run);
	else
		helper_loop(run);
	lease_release(run);
}

/*
 * Is the database still there?  One may be dropped by force, and to connect to it
 * then is FATAL: postmaster would start us again every second, for ever.  No
 * catalog can be read before that, but a database has a folder in one tablespace
 * or another.
 */
static bool
database_exists(Oid database)
{
	struct stat st;
	DIR *dir;
	struct dirent *entry;
	bool exists = stat(GetDatabasePath(database, DEFAULTTABLESPACE_OID), &st) == 0;

	if (exists)
		return true;
	dir = AllocateDir("pg_tblspc");
	while (!exists && (entry = ReadDir(dir, "pg_tblspc")) != NULL)
	{
		Oid tablespace = (Oid) strtoul(entry->d_name, NULL, 10);

		exists = OidIsValid(tablespace) && stat(GetDatabasePath(database, tablespace), &st) == 0;
	}
	FreeDir(dir);
	return exists;
}

void
migrate_ext_worker_main(Datum arg)
{
	WorkerArgs args;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	if (!database_exists(args.database))
		proc_exit(0);

	/* as superuser: a NOLOGIN owner could not connect; see run.c for whose rights count */
	BackgroundWorkerInitializeConnectionByOid(args.database, InvalidOid, 0);
	run_settle_worker();
	wait_for_caller(args.wait_for);
	wait_for_update(&args);
	do
	{
		if (!extension_exists())
			break;
		work(&args);
	} while (args.leader && extension_exists() && take_next(&args));
	proc_exit(0);
}
