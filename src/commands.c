/*-------------------------------------------------------------------------
 *
 * commands.c
 *	  SQL functions that steer a migration: they check the request, write it
 *	  into the migration's row, and ask for a wake-up at the caller's commit.
 *	  No work is done here; a rolled back call leaves nothing.  (swap and unswap
 *	  are the exception: being in the caller's transaction is what they are for.)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "arguments.h"
#include "batch.h"
#include "catalog.h"
#include "other_triggers.h"
#include "run.h"
#include "settings.h"
#include "stages.h"
#include "state.h"
#include "throttle_probe.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(migrate_ext_install_sync);
PG_FUNCTION_INFO_V1(migrate_ext_start);
PG_FUNCTION_INFO_V1(migrate_ext_pause);
PG_FUNCTION_INFO_V1(migrate_ext_resume);
PG_FUNCTION_INFO_V1(migrate_ext_configure);
PG_FUNCTION_INFO_V1(migrate_ext_swap);
PG_FUNCTION_INFO_V1(migrate_ext_unswap);
PG_FUNCTION_INFO_V1(migrate_ext_forget);

static Migration *
find(FunctionCallInfo fcinfo, const char *call)
{
	char *name = argument_text(fcinfo, 0, "migration");

	argument_require_writable(call);
	return catalog_find(name, true);
}

static int
paused_hint(Migration *m)
{
	if (!m->paused)
		return 0;
	return errhint("It is paused: call migrate_ext.resume.");
}

/* Said here, where the caller hears it, and again by the step that would go wrong. */
static void
check_other_triggers(Migration *m)
{
	UserSwitch user;

	user_switch_superuser(&user);
	other_triggers_check(m);
	user_switch_back(&user);
}

/* Raise the goal; asking for what is on its way already is a NOTICE. */
static void
set_goal(Migration *m, MigrationState goal)
{
	migration_require_unfinished(m);
	if (m->state >= goal)
		ereport(NOTICE, (errmsg("migration \"%s\" is %s already", m->name, state_name(m->state)),
						 paused_hint(m)));
	else if (m->goal >= goal)
		ereport(NOTICE, (errmsg("migration \"%s\" is on its way to state %s already", m->name,
								state_name(m->goal)),
						 paused_hint(m)));
	else
	{
		if (m->state == STATE_CREATED)
			check_other_triggers(m);
		catalog_save_goal(m, goal, NULL);
		event_add(m, "goal", NULL, "asked for: %s", state_name(goal));
	}
	if (!migration_is_idle(m))
		worker_wake_or_warn(m);
}

/* install_sync(migration): goal logging */
Datum
migrate_ext_install_sync(PG_FUNCTION_ARGS)
{
	Migration *m = find(fcinfo, "migrate_ext.install_sync()");

	migration_require_target(m, "migrate_ext.install_sync()");
	set_goal(m, STATE_LOGGING);
	PG_RETURN_VOID();
}

/* start(migration), start_backfill(migration): goal live */
Datum
migrate_ext_start(PG_FUNCTION_ARGS)
{
	set_goal(find(fcinfo, "migrate_ext.start()"), STATE_LIVE);
	PG_RETURN_VOID();
}

/* pause(migration, reason): state, trigger and progress stay */
Datum
migrate_ext_pause(PG_FUNCTION_ARGS)
{
	Migration *m = find(fcinfo, "migrate_ext.pause()");
	char *reason = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));

	migration_require_unfinished(m);
	if (!migration_pause(m, reason))
		ereport(NOTICE, (errmsg("migration \"%s\" is paused already", m->name)));
	else if (leader_pid(m->id) != 0)
		(void) worker_wake(m);
	PG_RETURN_VOID();
}

/* resume(migration): also the way back after a restart without preload */
Datum
migrate_ext_resume(PG_FUNCTION_ARGS)
{
	Migration *m = find(fcinfo, "migrate_ext.resume()");

	migration_require_unfinished(m);
	if (m->paused)
	{
		catalog_save_pause(m, false, NULL);
		event_add(m, "resumed", NULL, "resumed");
	}
	else if (leader_pid(m->id) != 0)
		ereport(NOTICE, (errmsg("migration \"%s\" is not paused", m->name)));
	if (!migration_is_idle(m))
		worker_wake_or_warn(m);
	PG_RETURN_VOID();
}

/* configure(migration, setting, value): a setting for this migration alone */
Datum
migrate_ext_configure(PG_FUNCTION_ARGS)
{
	Migration *m = find(fcinfo, "migrate_ext.configure()");
	char *setting = argument_text(fcinfo, 1, "setting");
	char *value = argument_text(fcinfo, 2, "value");

	migration_require_unfinished(m);
	settings_check(setting, value);
	if (strcmp(setting, "throttle_query") == 0)
		throttle_check_query(m, value);
	catalog_save_setting(m, setting, value);
	event_add(m, "configured", NULL, "%s set to %s", setting, value);
	if (leader_pid(m->id) != 0)
		(void) worker_wake(m);
	PG_RETURN_VOID();
}

/*
 * The swap alone, in the caller's transaction: one attempt at the locks,
 * nothing waited for.
 */
static void
swap(FunctionCallInfo fcinfo, const char *call, Direction direction)
{
	Migration *m = find(fcinfo, call);
	MigrationState wanted = direction == DIRECTION_FORWARD ? STATE_LIVE : STATE_SWAPPED;
	UserSwitch user;

	migration_require_target(m, call);
	if (m->state != wanted)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is in state %s", m->name, state_name(m->state)),
						errdetail("%s needs state %s.", call, state_name(wanted))));
	if (m->paused)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is paused", m->name),
						m->pause_reason ? errdetail("%s", m->pause_reason) : 0,
						errhint("Call migrate_ext.resume first.")));
	user_switch_superuser(&user);
	limit_lock_waits(m);
	swap_in_transaction(m, direction);
	user_switch_back(&user);
	worker_wake_or_warn(m);
}

Datum
migrate_ext_swap(PG_FUNCTION_ARGS)
{
	swap(fcinfo, "migrate_ext.swap()", DIRECTION_FORWARD);
	PG_RETURN_VOID();
}

Datum
migrate_ext_unswap(PG_FUNCTION_ARGS)
{
	swap(fcinfo, "migrate_ext.unswap()", DIRECTION_REVERSE);
	PG_RETURN_VOID();
}

/* forget(migration): the record of a finished migration, with its events */
Datum
migrate_ext_forget(PG_FUNCTION_ARGS)
{
	Migration *m = find(fcinfo, "migrate_ext.forget()");

	if (m->state < STATE_COMPLETED)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("migration \"%s\" is in state %s", m->name, state_name(m->state)),
			 errhint(
				 "End it first: CALL migrate_ext.cancel before a swap, CALL migrate_ext.complete after it.")));
	catalog_forget(m->id);
	PG_RETURN_VOID();
}
