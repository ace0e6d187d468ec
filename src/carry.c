/*-------------------------------------------------------------------------
 *
 * carry.c
 *	  What hangs on the application's table and follows it at a swap; see
 *	  carry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "carry.h"
#include "carry_kinds.h"
#include "catalog.h"
#include "catalog_look.h"
#include "catalog_spi.h"
#include "run.h"
#include "sqlgen.h"

/* Comments come after what they are about, privileges after all that restricts them. */
static const Carrier *const carriers[] = {
	&carry_columns, &carry_checks,	 &carry_storage,	  &carry_statistics,	&carry_fk_out,
	&carry_fk_in,	&carry_triggers, &carry_policies,	  &carry_comments,		&carry_labels,
	&carry_grants,	&carry_named,	 &carry_publications, &carry_subscriptions,
};

/* The event that tells what moved in the swap's own transaction. */
#define EVENT_MOVED "moved"

/* For how long pieces of preparing follow each other. */
#define PREPARE_MS 1000

struct Carried
{
	void *of[lengthof(carriers)];
};

bool
carry_is_prepared(Migration *m, Direction direction)
{
	static uint64 good = 0;
	bool prepared = true;
	CatalogLook look;

	if (!catalog_look_begin(&look, m, direction, &good))
		return true;
	for (int i = 0; i < lengthof(carriers) && prepared; i++)
	{
		if (carriers[i]->prepare != NULL)
			prepared = carriers[i]->prepare(m, direction, true);
	}
	catalog_look_end(&look, prepared);
	return prepared;
}

/*
 * The body of an attempt: a carrier that has something left to do.  The one that
 * had some at last is asked first: it may have a piece for each of 1,000
 * partitions, and those before it were done.
 */
static void
prepare_one(Run *run, void *arg)
{
	static int busy = 0;
	bool *done = arg;
	Migration *m = run->m;
	Direction direction;

	*done = true;
	if (m == NULL || m->paused || (m->state != STATE_LIVE && m->state != STATE_SWAPPED))
		return;
	direction = direction_of(m);
	run_limit_lock_waits(run);
	for (int i = 0; i < lengthof(carriers) && *done; i++)
	{
		if (carriers[busy]->prepare != NULL)
			*done = carriers[busy]->prepare(m, direction, false);
		if (*done)
			busy = (busy + 1) % lengthof(carriers);
	}
}

/* done: nothing was left to do. */
static StepResult
prepare_piece(Run *run, bool asked, bool *done)
{
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	bool ok;

	if (!asked && !attempt_due(run))
		return STEP_WAIT;
	ok = run_attempt(run, prepare_one, done, &error);
	if (!ok && asked && attempt_is_lock_failure(error))
	{
		attempt_failed(run, began, TimestampDifferenceMilliseconds(began, GetCurrentTimestamp()));
		return STEP_WAIT;
	}
	return attempt_result(run, ok, error, began);
}

/* Who calls us looks at more than this in between, and that takes its time. */
StepResult
carry_prepare_step(Run *run, bool asked)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PREPARE_MS);
	bool done = false;

	while (!done)
	{
		if (prepare_piece(run, asked, &done) == STEP_WAIT)
			return STEP_WAIT;
		if (GetCurrentTimestamp() >= end)
			break;
	}
	return done ? STEP_DONE : STEP_MORE;
}

List *
carry_add_lock(List *locks, Oid relid, LOCKMODE mode)
{
	CarryLock *lock;
	ListCell *lc;

	foreach (lc, locks)
	{
		lock = lfirst(lc);
		if (lock->relid == relid)
		{
			lock->mode = Max(lock->mode, mode);
			return locks;
		}
	}
	lock = palloc(sizeof(CarryLock));
	lock->relid = relid;
	lock->mode = mode;
	return lappend(locks, lock);
}

static int
compare_locks(const ListCell *a, const ListCell *b)
{
	Oid oid_a = ((CarryLock *) lfirst(a))->relid;
	Oid oid_b = ((CarryLock *) lfirst(b))->relid;

	return oid_a < oid_b ? -1 : oid_a > oid_b;
}

List *
carry_locks(Migration *m, Direction direction, bool ahead)
{
	List *locks = NIL;
	ListCell *lc;

	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i]->locks == NULL)
			continue;
		foreach (lc, carriers[i]->locks(m, direction, ahead))
		{
			CarryLock *lock = lfirst(lc);

			locks = carry_add_lock(locks, lock->relid, lock->mode);
		}
	}
	list_sort(locks, compare_locks);
	return locks;
}

/*
 * A view made while the tables were waited for.  Now that they are locked there
 * can be no more of them; but to wait here would be to hold up everybody.
 */
static void
lock_new(Migration *m, Direction direction)
{
	ListCell *lc;

	foreach (lc, carry_locks(m, direction, false))
	{
		CarryLock *lock = lfirst(lc);

		if (!ConditionalLockRelationOid(lock->relid, lock->mode))
			ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
							errmsg("could not obtain lock on relation \"%s\"",
								   get_rel_name(lock->relid))));
	}
}

Carried *
carry_collect(Migration *m, Direction direction)
{
	Carried *carried = palloc0(sizeof(Carried));

	lock_new(m, direction);
	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i]->collect != NULL)
			carried->of[i] = carriers[i]->collect(m, direction);
	}
	return carried;
}

void
carry_tell(Migration *m, char *moved)
{
	m->moved = lappend(m->moved, moved);
}

/* One event for all: everybody waits meanwhile. */
static void
record_moved(Migration *m, Oid to)
{
	StringInfoData things;
	int count = list_length(m->moved);
	ListCell *lc;

	if (count == 0)
		return;
	initStringInfo(&things);
	foreach (lc, m->moved)
		json_append(&things, lfirst(lc));
	event_add(m, EVENT_MOVED, psprintf("{\"moved\": [%s]}", things.data),
			  "%d thing%s moved to %s with the swap", count, count == 1 ? "" : "s",
			  sql_relation(to));
}

void
carry_move(Migration *m, Direction direction, Carried *carried)
{
	m->moved = NIL;
	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i]->move != NULL)
			carriers[i]->move(m, direction, carried->of[i]);
	}
	record_moved(m, back_of(m, direction));
}

void
carry_plan(MigrationPlan *plan, CarryPart part)
{
	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i]->plan != NULL)
			carriers[i]->plan(plan, part);
	}
}

void
carry_leave(Migration *m, Oid left)
{
	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i]->leave != NULL)
			carriers[i]->leave(m, left);
	}
}

/* ------------------------------------------------------------------------
 * What the carriers share
 * ------------------------------------------------------------------------
 */

List *
carry_texts(SPIPlanPtr *plan, const char *sql, Oid one, Oid other)
{
	Oid types[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(one), ObjectIdGetDatum(other)};

	return catalog_texts_kept(plan, sql, lengthof(types), types, values);
}

List *
carry_changes(SPIPlanPtr *plan, const char *function, Oid front, Oid back, bool ahead)
{
	char *sql = psprintf("SELECT relation || ' ' || change FROM migrate_ext.%s($1, $2, %s)",
						 function, ahead ? "true" : "false");
	List *changes = NIL;
	ListCell *lc;

	foreach (lc, carry_texts(plan, sql, front, back))
	{
		CarryChange *change = palloc(sizeof(CarryChange));

		change->relid = atooid(lfirst(lc));
		change->change = strchr(lfirst(lc), ' ') + 1;
		changes = lappend(changes, change);
	}
	return changes;
}

void
carry_plan_changes(MigrationPlan *plan, const char *function, const char *alter)
{
	ListCell *lc;

	foreach (lc, carry_changes(NULL, function, plan->m->source, plan->m->target, true))
	{
		CarryChange *change = lfirst(lc);

		plan_add_ddl(
			plan, psprintf("%s %s %s", alter, plan_relation(plan, change->relid), change->change),
			PLAN_IN_SWAP);
	}
}

void
carry_plan_follows(MigrationPlan *plan, const char *object, const char *does)
{
	plan_add(plan,
			 psprintf("-- %s %s the partitioned %s in the place of %s", object, does,
					  plan_relation(plan, plan->m->target), plan_relation(plan, plan->m->source)),
			 plan_swap_lock(plan), PLAN_EQUIVALENT);
}

void
carry_run(Oid owner, const char *sql)
{
	UserSwitch user;

	user_switch_owner(&user, owner);
	(void) sql_run("%s", sql);
	user_switch_back(&user);
}

void
carry_utility(Oid owner, Node *statement, const char *text)
{
	PlannedStmt *wrapper = makeNode(PlannedStmt);
	UserSwitch user;

	wrapper->commandType = CMD_UTILITY;
	wrapper->utilityStmt = statement;
	wrapper->stmt_location = -1;
	user_switch_owner(&user, owner);
	PushActiveSnapshot(GetTransactionSnapshot());
	ProcessUtility(wrapper, text, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, NULL);
	PopActiveSnapshot();
	user_switch_back(&user);
	CommandCounterIncrement();
}

/* The name was written by PostgreSQL, qualified and quoted as we do it. */
char *
carry_renamed(const char *text, const RangeVar *named, const char *other)
{
	char *name = sql_qualified(named->schemaname, named->relname);

	Assert(strncmp(text + named->location, name, strlen(name)) == 0);
	return psprintf("%.*s%s%s", named->location, text, other,
					text + named->location + strlen(name));
}
