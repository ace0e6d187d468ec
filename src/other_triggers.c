/*-------------------------------------------------------------------------
 *
 * other_triggers.c
 *	  Hand-written sync triggers on the table that is migrated; see
 *	  other_triggers.h.
 *
 * A trigger is disabled under SHARE ROW EXCLUSIVE, the lock under which ours
 * comes: no write is between the two.  To drop it takes ACCESS EXCLUSIVE, which
 * waits for readers too, and so is done later, when nobody has to wait for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "lock_queue.h"
#include "other_triggers.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"

/* ------------------------------------------------------------------------
 * Found
 * ------------------------------------------------------------------------
 */

void
other_triggers_check(Migration *m)
{
	char *target = get_rel_name(m->target);
	char *found;

	if (target == NULL || get_rel_name(m->source) == NULL)
		return;
	/* the name as a word: not as part of a longer one */
	found = sql_text(
		"SELECT pg_catalog.string_agg(pg_catalog.quote_ident(t.tgname), ', ' ORDER BY t.tgname)"
		" FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid"
		" WHERE t.tgrelid = %u AND NOT t.tgisinternal AND t.tgenabled <> 'D'"
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid = p.pronamespace"
		" AND n.nspname = 'migrate_ext')"
		" AND pg_catalog.regexp_replace(p.prosrc || ' ' || pg_catalog.encode(t.tgargs, 'escape'),"
		" '[^[:alnum:]_]+', ' ', 'g') ~* ('(^| )' || pg_catalog.regexp_replace(%s,"
		" '[^[:alnum:]_]+', ' ', 'g') || '( |$)')",
		m->source, quote_literal_cstr(target));
	if (found == NULL)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("a trigger on table \"%s\" seems to write to \"%s\" already: %s",
				get_rel_name(m->source), target, found),
		 errdetail("Its function or its arguments name that table. Two triggers that write the "
				   "same rows would make writes fail."),
		 errhint("Have it replaced: SELECT migrate_ext.replace_sync(%s, ARRAY[...]). If it does "
				 "something else, disable it, or write the name in another way.",
				 quote_literal_cstr(m->name))));
}

/* ------------------------------------------------------------------------
 * Replaced
 * ------------------------------------------------------------------------
 */

/* Has replace_sync() dealt with it already? */
static bool
is_replaced(const Migration *m, const char *name)
{
	Oid types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(m->id), CStringGetTextDatum(name)};

	return catalog_exists(
		"SELECT 1 FROM migrate_ext.replaced_trigger WHERE migration = $1 AND name = $2", 2, types,
		values);
}

static void
remember(const Migration *m, const char *name, bool dropped)
{
	Oid types[] = {INT8OID, TEXTOID, BOOLOID};
	Datum values[] = {Int64GetDatum(m->id), CStringGetTextDatum(name), BoolGetDatum(dropped)};

	(void) catalog_exec(
		"INSERT INTO migrate_ext.replaced_trigger (migration, name, dropped)"
		" VALUES ($1, $2, $3) ON CONFLICT (migration, name) DO UPDATE SET dropped = $3",
		3, types, values, NULL);
}

/* The user's trigger of that name on a table; NULL, or 42809 if it isn't one of his. */
static Trigger *
find_trigger(Relation rel, const char *name)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger *trigger = &rel->trigdesc->triggers[i];

		if (strcmp(trigger->tgname, name) != 0)
			continue;
		if (trigger->tgisinternal ||
			strncmp(name, OUR_TRIGGER_PREFIX, strlen(OUR_TRIGGER_PREFIX)) == 0)
			ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
							errmsg("trigger \"%s\" on table \"%s\" can't be replaced", name,
								   RelationGetRelationName(rel)),
							errdetail("It belongs to a constraint or to migrate_ext.")));
		return trigger;
	}
	return NULL;
}

/* ALTER TABLE or DROP TRIGGER, as the table's owner. */
static void
take_away(Oid relid, const char *name, bool drop)
{
	const char *table = sql_relation(relid);
	UserSwitch user;

	user_switch_owner(&user, relinfo_owner(relid));
	if (drop)
		(void) sql_run("DROP TRIGGER %s ON %s", quote_identifier(name), table);
	else
		(void) sql_run("ALTER TABLE ONLY %s DISABLE TRIGGER %s", table, quote_identifier(name));
	user_switch_back(&user);
}

static void
replace_one(Migration *m, Oid relid, const char *name)
{
	Relation rel = table_open(relid, ShareRowExclusiveLock);
	bool exclusive = CheckRelationLockedByMe(rel, AccessExclusiveLock, false);
	bool known = is_replaced(m, name);
	Trigger *trigger = find_trigger(rel, name);
	bool there = trigger != NULL;
	bool done = !there || (known && !exclusive && trigger->tgenabled == TRIGGER_DISABLED);

	table_close(rel, NoLock); /* ALTER TABLE wants it for itself */
	if (!there && !known)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("trigger \"%s\" for table \"%s\" does not exist", name,
							   get_rel_name(relid))));
	if (done)
	{
		ereport(NOTICE, (errmsg("trigger \"%s\" has been replaced already", name)));
		return;
	}
	take_away(relid, name, exclusive);
	remember(m, name, exclusive);
	event_add(m, "trigger_replaced", psprintf("{\"trigger\": %s}", json_quote(name)),
			  "trigger %s on %s is %s: the sync trigger takes its place", quote_identifier(name),
			  sql_relation(relid), exclusive ? "dropped" : "disabled");
}

void
other_triggers_replace(Migration *m, List *names)
{
	ListCell *cell;

	foreach (cell, names)
		replace_one(m, front_of(m, direction_of(m)), lfirst(cell));
}

/* ------------------------------------------------------------------------
 * Dropped
 * ------------------------------------------------------------------------
 */

List *
other_triggers_to_drop(const Migration *m)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};

	return catalog_texts("SELECT name FROM migrate_ext.replaced_trigger"
						 " WHERE migration = $1 AND NOT dropped ORDER BY name",
						 1, types, values);
}

bool
other_triggers_pending(const Migration *m)
{
	return other_triggers_to_drop(m) != NIL;
}

/* The body of an attempt. */
static void
drop_body(Run *run, void *arg)
{
	Migration *m = run->m;
	List *names;
	ListCell *cell;

	if (m == NULL || (names = other_triggers_to_drop(m)) == NIL || get_rel_name(m->source) == NULL)
		return;
	run_limit_lock_waits(run);
	lock_queue_lock(m->source, AccessExclusiveLock);
	foreach (cell, names)
	{
		char *name = lfirst(cell);

		run_as_owner(run);
		if (OidIsValid(get_trigger_oid(m->source, name, true)))
			(void) sql_run("DROP TRIGGER %s ON %s", quote_identifier(name),
						   sql_relation(m->source));
		run_as_self(run);
		remember(m, name, true);
		event_add(m, "trigger_dropped", NULL, "trigger %s on %s, which was replaced, is dropped",
				  quote_identifier(name), sql_relation(m->source));
	}
}

StepResult
other_triggers_drop(Run *run)
{
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	bool ok;

	if (!attempt_due(run))
		return STEP_WAIT;
	run_report(run, "dropping triggers that were replaced");
	ok = run_attempt(run, drop_body, NULL, &error);
	return attempt_result(run, ok, error, began);
}
