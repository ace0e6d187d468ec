/*-------------------------------------------------------------------------
 *
 * replace.c
 *	  replace_sync(): after the application's table got other columns, or the
 *	  definition of its sharding key changed, the other table and the sync
 *	  trigger follow; hand-written sync triggers give way to ours.
 *
 * All of it happens in the caller's transaction, beside his ALTER TABLE, under
 * one lock that keeps writers out (SHARE ROW EXCLUSIVE; after ALTER TABLE the
 * transaction holds more already): before its commit every write was carried
 * over as it used to be, after it as it is to be, and none is in between.  One
 * attempt, bounded by lock_timeout_ms: the lock on the other table collides with
 * a batch of the copy, and with the build of an index; pause() first, then.
 *
 * Where writers only log, nothing more is to be done: an entry is an identity,
 * and the drain reads the row anew.  Batches that were copied before had of a new
 * column what the source had, its default.  Once writers write through, or where
 * values may differ for another reason, both tables are compared afterwards and
 * put right (reconcile.c).  Before the next swap all is verified anyway.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "catalog_spi.h"
#include "changelog.h"
#include "columns.h"
#include "errors.h"
#include "fmgr.h"
#include "follow_columns.h"
#include "install.h"
#include "nodes/pg_list.h"
#include "other_triggers.h"
#include "reconcile.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "sync.h"
#include "sync_trigger.h"
#include "target.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(migrate_ext_replace_sync);

/* ------------------------------------------------------------------------
 * The request
 * ------------------------------------------------------------------------
 */

/* The names in a text[]; 22004 for one that is NULL. */
static List *
read_names(FunctionCallInfo fcinfo, int n)
{
	List *names = NIL;
	Datum *values;
	bool *isnull;
	int count;

	argument_require(fcinfo, n, "replaces");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT, &values, &isnull,
					  &count);
	for (int i = 0; i < count; i++)
	{
		if (isnull[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("names of triggers must not be null")));
		names = lappend(names, TextDatumGetCString(values[i]));
	}
	return names;
}

/* 55000 in a state in which nothing follows anything. */
static void
check_state(Migration *m)
{
	migration_require_target(m, "migrate_ext.replace_sync()");
	migration_require_unfinished(m);
	if (m->goal == STATE_COMPLETED)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is being completed", m->name)));
}

/*
 * With the tables locked: what replace_sync() isn't there for.  MX004 where the
 * trigger or the partitions were changed by somebody else.
 */
static void
check_untouched(Migration *m)
{
	char *problem = m->state > STATE_CREATED ? sync_trigger_problem(m) : NULL;
	char *shape = relinfo_target_shape(m->target);

	if (problem == NULL && m->target_shape != NULL && !relinfo_same_leaves(m->target_shape, shape))
		problem = psprintf("the partitions of table \"%s\" were changed by somebody else",
						   get_rel_name(m->target));
	if (problem != NULL)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_TAMPERED), errmsg("%s", problem),
						errhint("Call migrate_ext.resume first: it puts that right.")));
}

/* ------------------------------------------------------------------------
 * The definition
 * ------------------------------------------------------------------------
 */

/* Read the values of derived keys again; true if one is another now. */
static bool
reread_derived(Migration *m)
{
	Oid types[] = {INT8OID, JSONBOID};
	Datum values[2];
	char *was = m->options != NULL ? json_field(m->options, "derived") : NULL;
	char *is;

	m->options =
		target_options_with_derived(m->source, m->target, m->options, target_key_names(m->target));
	is = json_field(m->options, "derived");
	if (was == NULL || is == NULL ? was == is : strcmp(was, is) == 0)
		return false;
	values[0] = Int64GetDatum(m->id);
	values[1] = JsonbPGetDatum(m->options);
	(void) catalog_exec("UPDATE migrate_ext.migration SET options = $2 WHERE id = $1",
						lengthof(types), types, values, NULL);
	return true;
}

/* Do both tables' columns fit each other now?  Errors of columns_build(). */
static void
check_columns(Migration *m)
{
	Relation source = table_open(m->source, NoLock);
	UserSwitch user;

	relinfo_check_columns(source);
	user_switch_owner(&user, m->owner);
	target_check_carried(source, m->target, columns_build(m, DIRECTION_FORWARD));
	if (m->state == STATE_SWAPPED)
		(void) columns_build(m, DIRECTION_REVERSE);
	user_switch_back(&user);
	table_close(source, NoLock);
	if (OidIsValid(m->log) && !changelog_types_fit(m->log, m->source))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the change log of migration \"%s\" does not fit the columns any more",
						m->name),
				 errdetail("It has the columns of the keys, by which a row is named and "
						   "placed; one of them was dropped or has another type."),
				 errhint("Cancel the migration and make it anew.")));
}

/* What triggers and workers have in their caches is not true any more. */
static void
invalidate(Migration *m)
{
	ListCell *cell;

	CacheInvalidateRelcacheByRelid(m->source);
	CacheInvalidateRelcacheByRelid(m->target);
	foreach (cell, relinfo_leaves(m->target))
		CacheInvalidateRelcacheByRelid(lfirst_oid(cell));
	CommandCounterIncrement();
}

/*
 * May rows that were carried over before have values that they shouldn't have?
 * In live, writes between ALTER TABLE and this call left the new columns out.
 */
static bool
may_differ(Migration *m, int changed, bool other_values)
{
	if (m->state >= STATE_LIVE)
		return changed > 0 || other_values;
	return m->state > STATE_LOGGING &&
		   (other_values || (changed > 0 && relinfo_relfilenode(m->source) != m->relfilenode));
}

/*
 * A pause for want of just this is over.  The trigger itself is as we left it,
 * which check_untouched() has seen to.
 */
static void
go_on(Migration *m)
{
	if (!m->needs_mending)
		return;
	catalog_save_trigger(m);
	if (m->paused)
	{
		catalog_save_pause(m, false, NULL);
		event_add(m, "resumed", NULL, "resumed: the columns fit each other again");
	}
}

static void
follow(Migration *m)
{
	bool other_values;
	bool derived;
	int changed;

	LockRelationOid(back_of(m, direction_of(m)), RowExclusiveLock);
	check_untouched(m);
	/* somebody else has been at the target's columns */
	other_values = m->target_shape != NULL &&
				   !relinfo_same_columns(m->target_shape, relinfo_target_shape(m->target));
	changed = follow_columns(m);
	derived = reread_derived(m);
	other_values |= derived;
	check_columns(m);
	m->source_shape = relinfo_shape(m->source);
	m->target_shape = relinfo_target_shape(m->target);
	catalog_save_shapes(m);
	invalidate(m);
	if (may_differ(m, changed, other_values))
	{
		reconcile_ask(m, false);
		if (m->state > STATE_COPYING)
		{
			m->relfilenode = relinfo_relfilenode(m->source);
			catalog_save_horizon(m);
		}
	}
	if (m->state >= STATE_LIVE)
		catalog_save_verified(m, false);
	event_add(m, "replaced",
			  psprintf("{\"columns\": %d, \"derived\": %s}", changed, derived ? "true" : "false"),
			  "the sync trigger follows the columns of %s: %d changed on the other table",
			  sql_qualified(m->schema_name, m->table_name), changed);
	go_on(m);
}

/* ------------------------------------------------------------------------
 * SQL
 * ------------------------------------------------------------------------
 */

/* replace_sync(migration, replaces) */
Datum
migrate_ext_replace_sync(PG_FUNCTION_ARGS)
{
	char *name = argument_text(fcinfo, 0, "migration");
	List *names = read_names(fcinfo, 1);
	UserSwitch user;
	Migration *m;

	argument_require_writable("migrate_ext.replace_sync()");
	m = catalog_find(name, true);
	check_state(m);

	user_switch_superuser(&user);
	limit_lock_waits(m);
	sync_release();
	install_lock_front(m);
	follow(m);
	other_triggers_replace(m, names);
	if (m->state == STATE_CREATED && names != NIL)
	{
		install_in_transaction(m);
		if (m->goal < STATE_LOGGING)
			catalog_save_goal(m, STATE_LOGGING, NULL);
	}
	user_switch_back(&user);
	if (m->state < m->goal || m->state >= STATE_LIVE)
		worker_wake_or_warn(m);
	PG_RETURN_VOID();
}
