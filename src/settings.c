/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Definition and look-up of settings; see settings.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "settings.h"
#include "sqlgen.h"

char *setting_databases;
int setting_workers;
static int setting_worker_nice;
int setting_batch_target_ms;
int setting_lock_timeout_ms;
int setting_deadlock_timeout_ms;
static int setting_lock_queue_ms;
static int setting_max_failed_rows;
static int setting_verify_interval_s;
static int setting_throttle[9];
static int setting_throttle_wraparound;
static char *setting_throttle_text[3];

/* One line a setting that a migration can have a value of its own for. */
typedef struct IntSetting
{
	const char *name;
	int *variable;
	int boot;
	int min;
	int max;
	int flags;
	const char *what;
} IntSetting;

static const IntSetting int_settings[] = {
	{"workers", &setting_workers, 2, 0, 64, 0,
	 "Helper processes a migration may use for copying and indexing."},
	{"worker_nice", &setting_worker_nice, 10, 0, 19, 0,
	 "How far helpers let other processes go first where the processors are busy, as in nice(1)."},
	{"batch_target_ms", &setting_batch_target_ms, 500, 10, 60000, GUC_UNIT_MS,
	 "Duration that the size of a copy batch is fitted to."},
	{"lock_timeout_ms", &setting_lock_timeout_ms, 200, 1, 60000, GUC_UNIT_MS,
	 "Longest wait of one attempt to lock a table."},
	{"deadlock_timeout_ms", &setting_deadlock_timeout_ms, 50, 1, 60000, GUC_UNIT_MS,
	 "deadlock_timeout within a lock attempt; below lock_timeout_ms, or an autovacuum is never asked to yield."},
	{"lock_queue_ms", &setting_lock_queue_ms, 5000, 0, INT_MAX, GUC_UNIT_MS,
	 "Longest wait, added up, of the sessions behind one attempt to lock a table; 0 is no limit."},
	{"max_failed_rows", &setting_max_failed_rows, 10000, 0, INT_MAX, 0,
	 "Rows that may fail before a migration that isn't live pauses; 0 is no limit."},
	{"verify_interval_s", &setting_verify_interval_s, 0, 0, 1000000, GUC_UNIT_S,
	 "Seconds after which tables that are kept equal are compared again; 0 is only when asked."},
	{"throttle_rows_per_second", &setting_throttle[0], 0, 0, INT_MAX, 0,
	 "Rows a second that all processes of a migration may work on; 0 is no limit."},
	{"throttle_mb_per_second", &setting_throttle[1], 0, 0, 1000000, 0,
	 "Megabytes of table a second that all processes of a migration may work on; 0 is no limit."},
	{"throttle_replay_lag_s", &setting_throttle[2], 0, 0, 86400, GUC_UNIT_S,
	 "Replay lag of a standby in seconds that stops a migration's work; 0 is no limit."},
	{"throttle_replay_lag_mb", &setting_throttle[3], 0, 0, INT_MAX, GUC_UNIT_MB,
	 "Replay lag of a standby in megabytes of WAL that stops a migration's work; 0 is no limit."},
	{"throttle_slot_lag_mb", &setting_throttle[4], 0, 0, INT_MAX, GUC_UNIT_MB,
	 "WAL kept for a replication slot that stops a migration's work; 0 is no limit."},
	{"throttle_archive_files", &setting_throttle[5], 0, 0, INT_MAX, 0,
	 "WAL files waiting for the archiver that stop a migration's work; 0 is no limit."},
	{"throttle_wal_mb_per_second", &setting_throttle[6], 0, 0, 1000000, 0,
	 "Megabytes of WAL a second, whoever writes it, beyond which work stops; 0 is no limit."},
	{"throttle_active_sessions", &setting_throttle[7], 0, 0, INT_MAX, 0,
	 "Active sessions that stop a migration's work; 0 is no limit."},
	{"throttle_lock_waiters", &setting_throttle[8], 0, 0, INT_MAX, 0,
	 "Processes waiting for a lock on a migration's tables that stop its work; 0 is no limit."},
	{"throttle_wraparound", &setting_throttle_wraparound, 1, 0, 1, 0,
	 "Wait (1) or not (0) while an autovacuum against wraparound is at work on the tables."},
};

typedef struct TextSetting
{
	const char *name;
	char **variable;
	const char *what;
} TextSetting;

static const TextSetting text_settings[] = {
	{"throttle_standbys", &setting_throttle_text[0],
	 "Names of the standbys whose replay lag counts; empty is all."},
	{"throttle_slots", &setting_throttle_text[1],
	 "Names of the replication slots that count; empty is all."},
	{"throttle_query", &setting_throttle_text[2],
	 "Query of one value that slows a migration down or stops it; empty is none."},
};

void
settings_define(void)
{
	int i;

	DefineCustomStringVariable(
		"migrate_ext.databases", "Databases that get a launcher at server start.",
		"A comma-separated list; needs shared_preload_libraries.", &setting_databases, "",
		/* one of PGC_POSTMASTER can only be defined while the server starts */
		process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP, 0, NULL, NULL,
		NULL);
	for (i = 0; i < lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(psprintf("migrate_ext.%s", s->name), s->what,
								"configure() sets it for one migration.", s->variable, s->boot,
								s->min, s->max, PGC_SUSET, s->flags, NULL, NULL, NULL);
	}
	for (i = 0; i < lengthof(text_settings); i++)
	{
		const TextSetting *s = &text_settings[i];

		DefineCustomStringVariable(psprintf("migrate_ext.%s", s->name), s->what,
								   "configure() sets it for one migration.", s->variable, "",
								   PGC_SUSET, 0, NULL, NULL, NULL);
	}
	MarkGUCPrefixReserved("migrate_ext");
}

static const IntSetting *
setting_find(const char *name)
{
	int i;

	for (i = 0; i < lengthof(int_settings); i++)
		if (strcmp(int_settings[i].name, name) == 0)
			return &int_settings[i];
	return NULL;
}

int
settings_get_int(const Migration *m, const char *name)
{
	const IntSetting *setting = setting_find(name);
	char *own;

	Assert(setting != NULL);
	own = m->settings ? json_field(m->settings, name) : NULL;
	return own ? pg_strtoint32(own) : *setting->variable;
}

static const TextSetting *
text_setting_find(const char *name)
{
	int i;

	for (i = 0; i < lengthof(text_settings); i++)
		if (strcmp(text_settings[i].name, name) == 0)
			return &text_settings[i];
	return NULL;
}

const char *
settings_get_text(const Migration *m, const char *name)
{
	const TextSetting *setting = text_setting_find(name);
	char *own;

	Assert(setting != NULL);
	own = m->settings ? json_field(m->settings, name) : NULL;
	return own ? own : *setting->variable;
}

/* All that configure() takes, for a hint. */
static char *
setting_names(void)
{
	StringInfoData names;
	int i;

	initStringInfo(&names);
	for (i = 0; i < lengthof(int_settings); i++)
		appendStringInfo(&names, "%s, ", int_settings[i].name);
	for (i = 0; i < lengthof(text_settings); i++)
		appendStringInfo(&names, "%s%s",
						 i == 0							   ? ""
						 : i < lengthof(text_settings) - 1 ? ", "
														   : " and ",
						 text_settings[i].name);
	return names.data;
}

void
settings_check(const char *name, const char *value)
{
	const IntSetting *setting = setting_find(name);
	const char *hint = NULL;
	int number;

	if (text_setting_find(name) != NULL)
		return; /* any text; throttle_check_query() looks at the one that is more */
	if (setting == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("unrecognized setting \"%s\"", name),
				 errhint("Settings of a migration are %s.", setting_names())));
	if (!parse_int(value, &number, 0, &hint))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for setting \"%s\": \"%s\"", name, value),
						errhint("Give a whole number from %d to %d.", setting->min, setting->max)));
	if (number < setting->min || number > setting->max)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%d is outside the valid range for setting \"%s\"", number, name),
						errdetail("The range is %d to %d.", setting->min, setting->max)));
}
