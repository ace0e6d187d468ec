/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  Brings the leaders of unfinished migrations back after a restart, a crash
 *	  or a promotion.
 *
 * There is one for each database of migrate_ext.databases.  It starts a leader
 * for every unfinished migration that has none, looks again from time to time,
 * and ends when nothing is unfinished: a connected launcher would block DROP
 * DATABASE.  (Migrations begun after that have leaders that the postmaster
 * restarts, until the server itself is restarted and the launcher with it.)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "batch.h"
#include "catalog.h"
#include "launcher.h"
#include "run.h"
#include "settings.h"
#include "worker.h"

/* How often it looks for migrations without a leader. */
#define LAUNCHER_POLL_MS 5000
/* A database that can't be connected to is tried again after so long. */
#define LAUNCHER_RESTART_S 30

extern PGDLLEXPORT void migrate_ext_launcher_main(Datum arg);

void
launcher_register_all(void)
{
	List *names = NIL;
	ListCell *lc;

	if (!SplitGUCList(pstrdup(setting_databases), ',', &names))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for setting \"%s\": \"%s\"", "migrate_ext.databases",
							   setting_databases),
						errhint("Give database names, separated by commas.")));
	foreach (lc, names)
	{
		BackgroundWorker worker = {0};
		const char *name = lfirst(lc);

		if (strlen(name) >= NAMEDATALEN)
			ereport(ERROR, (errcode(ERRCODE_NAME_TOO_LONG),
							errmsg("database name \"%s\" in \"%s\" is too long", name,
								   "migrate_ext.databases")));
		worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
		worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
		worker.bgw_restart_time = LAUNCHER_RESTART_S;
		strlcpy(worker.bgw_library_name, "migrate_ext", BGW_MAXLEN);
		strlcpy(worker.bgw_function_name, "migrate_ext_launcher_main", BGW_MAXLEN);
		strlcpy(worker.bgw_type, "migrate_ext launcher", BGW_MAXLEN);
		snprintf(worker.bgw_name, BGW_MAXLEN, "migrate_ext launcher for database %s", name);
		strlcpy(worker.bgw_extra, name, BGW_EXTRALEN);
		RegisterBackgroundWorker(&worker);
	}
}

/* Start what is missing; false if nothing is unfinished. */
static bool
look(void)
{
	List *ids = NIL;
	ListCell *lc;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(get_extension_oid("migrate_ext", true)))
		ids = catalog_unfinished();
	foreach (lc, ids)
	{
		Migration *m = catalog_load(*(int64 *) lfirst(lc), false);

		if (m && leader_pid(m->id) == 0 &&
			!worker_start_leader(m->id, m->name, InvalidTransactionId))
			ereport(LOG, (errmsg("no background worker slot is free for migration \"%s\"", m->name),
						  errhint("Raise max_worker_processes.")));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return ids != NIL;
}

void
migrate_ext_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(MyBgworkerEntry->bgw_extra, NULL, 0);
	run_settle_worker();
	pgstat_report_activity(STATE_RUNNING, "watching over unfinished migrations");

	while (look())
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LAUNCHER_POLL_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	proc_exit(0);
}
