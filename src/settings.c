/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Definition and look-up of settings; see settings.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "settings.h"
#include "sqlgen.h"

char *setting_databases;
int setting_workers;
int setting_batch_target_ms;
int setting_lock_timeout_ms;
int setting_deadlock_timeout_ms;

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
	{"batch_target_ms", &setting_batch_target_ms, 500, 10, 60000, GUC_UNIT_MS,
	 "Duration that the size of a copy batch is fitted to."},
	{"lock_timeout_ms", &setting_lock_timeout_ms, 200, 1, 60000, GUC_UNIT_MS,
	 "Longest wait of one attempt to lock a table."},
	{"deadlock_timeout_ms", &setting_deadlock_timeout_ms, 50, 1, 60000, GUC_UNIT_MS,
	 "deadlock_timeout within a lock attempt; below lock_timeout_ms, or an autovacuum is never asked to yield."},
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

void
settings_check(const char *name, const char *value)
{
	const IntSetting *setting = setting_find(name);
	const char *hint = NULL;
	int number;

	if (setting == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("unrecognized setting \"%s\"", name),
			 errhint(
				 "Settings of a migration are workers, batch_target_ms, lock_timeout_ms and deadlock_timeout_ms.")));
	if (!parse_int(value, &number, 0, &hint))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for setting \"%s\": \"%s\"", name, value),
						errhint("Give a whole number from %d to %d.", setting->min, setting->max)));
	if (number < setting->min || number > setting->max)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%d is outside the valid range for setting \"%s\"", number, name),
						errdetail("The range is %d to %d.", setting->min, setting->max)));
}
