/*-------------------------------------------------------------------------
 *
 * swap_transaction.c
 *	  The swap itself: one transaction that changes catalogs and nothing else.
 *
 * Everything is looked at twice.  First without the locks, where it may take
 * its time and what is missing is found without holding anybody up; that also
 * warms the caches, so that the second look, under the locks, is short; and what
 * the catalogs are asked is not asked again where they have not changed
 * (catalog_look.h).  Under the locks nobody can have anything uncommitted on the
 * tables and nobody can change them, so what the second look finds is final.
 *
 * Locks: the migration's row, views and what else uses the tables by a stored
 * query (carry.h), the application's table, the other one.  The row
 * comes first because it is the one lock that may have to be waited for longer
 * (somebody's open transaction called pause()), and no table may be locked
 * meanwhile.  Who holds a table and wants the row (a drain) ends in a deadlock
 * check or our lock_timeout, whichever is earlier: both are ours, not the
 * application's.
 *
 * A writer locks the table that he names and then, in the sync trigger, the
 * other one.  Taken in that order our locks let those finish who have begun and
 * queue up the rest.  The other way round each writer that comes between the
 * two would be a deadlock: at the swap back, where the application's table is
 * the target, the source so comes last.
 *
 * Statements that wait for the lock may have taken their snapshot before this
 * transaction commits.  They see the new table as it was then, and that is
 * complete: not a row is written here, neither the user's nor a log entry.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "commands/tablecmds.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "carry.h"
#include "carry_statements.h"
#include "catalog.h"
#include "changelog.h"
#include "debug_point.h"
#include "describe.h"
#include "errors.h"
#include "lock_queue.h"
#include "reconcile.h"
#include "reverse.h"
#include "run.h"
#include "settings.h"
#include "snapshots.h"
#include "sqlgen.h"
#include "stages.h"
#include "state.h"
#include "swap_catalog.h"
#include "swap_transaction.h"
#include "sync.h"
#include "sync_trigger.h"

MigrationState
swap_from(Direction direction)
{
	return direction == DIRECTION_FORWARD ? STATE_LIVE : STATE_SWAPPED;
}

MigrationState
swap_to(Direction direction)
{
	return direction == DIRECTION_FORWARD ? STATE_SWAPPED : STATE_LIVE;
}

double
swap_elapsed_ms(instr_time from, instr_time to)
{
	INSTR_TIME_SUBTRACT(to, from);
	return INSTR_TIME_GET_MILLISEC(to);
}

/* ------------------------------------------------------------------------
 * Ready?
 * ------------------------------------------------------------------------
 */

/* One more thing that is missing. */
static void
add_missing(StringInfo missing, const char *what)
{
	appendStringInfo(missing, "%s%s", missing->len > 0 ? "\n" : "", what);
}

/* What can change at any moment until the locks are there. */
static void
check_volatile(Migration *m, Direction direction, const SwapRequest *request, StringInfo missing)
{
	char *text = NULL;

	guard_check(m);
	if (reconcile_pending(m))
		add_missing(missing,
					"The tables are still being compared, since their columns have changed.");
	if (changelog_pending(m, 1) > 0)
		add_missing(missing, "Rows in the change log have not been carried over yet.");
	if (!request->accept_failed && failed_row_due(m) > 0)
		add_missing(missing, "There are rows in migrate_ext.failed_rows.");
	if (request->verify && m->verified_at != 0 && !verify_holds(m))
		add_missing(missing, "The partitions or their triggers have been changed since the tables "
							 "were verified.");
	if (preflight_errors(m, &text) > 0)
		add_missing(missing, text);
	if (!carry_is_prepared(m, direction))
		add_missing(missing,
					"What hangs on the table has not all been made ready on the other one.");
}

/* What only this extension changes, and with the migration's row locked not even that. */
static void
check_stable(Migration *m, Direction direction, const SwapRequest *request, StringInfo missing)
{
	if (m->tainted || (request->verify && m->verified_at == 0))
		add_missing(missing, direction == DIRECTION_FORWARD
								 ? "The tables have not been verified since the migration "
								   "went live."
								 : "The tables have not been verified since the swap.");
	if (direction == DIRECTION_FORWARD && m->analyzed_at == 0)
		add_missing(missing, "The target's statistics have not been gathered.");
	if (direction == DIRECTION_REVERSE && !reverse_is_possible(m))
		add_missing(missing, "Rows can't be carried back: options.reverse_columns is missing.");
	if (direction == DIRECTION_FORWARD && !reverse_is_prepared(m))
		add_missing(missing, "The reverse triggers are not there yet.");

	/* the leader has waited for those that it captured: request->older */
	if (!request->ignore_old_snapshots &&
		(request->older == NULL || request->stable != U64FromFullTransactionId(m->stable_xid)))
	{
		char *older = snapshots_capture(m->stable_xid);
		char *standbys = snapshots_of_standbys(m->stable_xid);

		if (standbys != NULL)
			add_missing(missing, psprintf("Older snapshots on standbys: %s.", standbys));
		if (*older != '\0')
			add_missing(missing, psprintf("Transactions with older snapshots: %s.",
										  snapshots_describe(older)));
	}
	else if (!request->ignore_old_snapshots && *request->older != '\0')
		add_missing(missing, "Older snapshots are still being waited for.");
}

static void
report_missing(Migration *m, Direction direction, StringInfo missing)
{
	if (missing->len == 0)
		return;
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("migration \"%s\" is not ready to be swapped%s", m->name,
						   direction == DIRECTION_FORWARD ? "" : " back"),
					errdetail("%s", missing->data),
					errhint("CALL migrate_ext.%s(%s) does what is missing and waits for the rest.",
							direction == DIRECTION_FORWARD ? "finalize" : "undo",
							quote_literal_cstr(m->name))));
}

/* ------------------------------------------------------------------------
 * Locks
 * ------------------------------------------------------------------------
 */

/* The migration's row, as it is now that it is locked. */
static void
lock_row(Migration *m, Direction direction)
{
	Migration *now = catalog_load(m->id, true);

	if (now == NULL || now->state != swap_from(direction))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is in state %s", m->name,
							   now ? state_name(now->state) : "(gone)"),
						errdetail("It was changed meanwhile; state %s is needed.",
								  state_name(swap_from(direction)))));
	*m = *now;
}

/* Wait for a lock no longer than until lock_timeout_ms after the first was asked for. */
static void
lock_within(Oid relid, LOCKMODE mode, const SwapTimes *times, int timeout)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	limit_lock_wait(timeout - (int) swap_elapsed_ms(times->asked_at, now));
	lock_queue_lock(relid, mode);
}

/*
 * What is used by way of the table, then both tables, and all waits within one
 * lock_timeout_ms.  What this very session does with them must be over as well.
 */
static void
lock_tables(Migration *m, Direction direction, SwapTimes *times)
{
	int timeout = settings_get_int(m, "lock_timeout_ms");
	Oid tables[] = {front_of(m, direction), back_of(m, direction)};
	List *others = carry_locks(m, direction, false);
	ListCell *lc;
	int i;

	INSTR_TIME_SET_CURRENT(times->asked_at);
	times->asked = true;
	foreach (lc, others)
	{
		CarryLock *lock = lfirst(lc);

		lock_within(lock->relid, lock->mode, times, timeout);
	}
	for (i = 0; i < lengthof(tables); i++)
		lock_within(tables[i], AccessExclusiveLock, times, timeout);
	INSTR_TIME_SET_CURRENT(times->granted_at);
	times->granted = true;

	for (i = 0; i < lengthof(tables); i++)
	{
		Relation rel = try_relation_open(tables[i], NoLock);

		/* where it is gone, guard_check() says so better than we could here */
		if (rel == NULL)
			continue;
		CheckTableNotInUse(rel, "swap");
		relation_close(rel, NoLock);
	}
}

/* ------------------------------------------------------------------------
 * The swap
 * ------------------------------------------------------------------------
 */

/* What the last swap renamed and moved. */
static List *
changes_of_last_swap(Migration *m)
{
	char *detail = event_last_detail(m->id, EVENT_RENAMED);
	char *changes = detail != NULL ? json_field(json_parse(detail), "changes") : NULL;

	return changes != NULL ? swap_changes_read(changes) : NIL;
}

static void
swap_forth(Migration *m)
{
	List *changes = swap_catalog_forth(m);

	sync_trigger_flip(m, DIRECTION_REVERSE);
	event_add(m, EVENT_RENAMED, psprintf("{\"changes\": %s}", swap_changes_text(changes)),
			  "%s is partitioned; the original is %s", sql_relation(m->target),
			  sql_relation(m->source));
	state_change(m, STATE_SWAPPED, "%s is swapped: the application uses the partitioned table",
				 sql_qualified(m->schema_name, m->table_name));
}

static void
swap_back(Migration *m, List *changes)
{
	swap_catalog_back(m, changes);
	sync_trigger_flip(m, DIRECTION_FORWARD);
	state_change(m, STATE_LIVE, "%s is swapped back: the application uses the original",
				 sql_qualified(m->schema_name, m->table_name));
}

/* All that changes.  changes: of the last swap, for the way back. */
static void
exchange(Migration *m, Direction direction, List *changes)
{
	Carried *carried = carry_collect(m, direction);

	if (direction == DIRECTION_FORWARD)
		swap_forth(m);
	else
		swap_back(m, changes);
	carry_move(m, direction, carried);

	/* each direction is verified anew: the roles of the tables have changed */
	catalog_save_verified(m, false);
}

void
swap_perform(Migration *m, Direction direction, const SwapRequest *request, SwapTimes *times)
{
	StringInfoData missing;
	List *changes = NIL;

	initStringInfo(&missing);
	sync_release();
	limit_lock_waits(m);
	lock_row(m, direction);
	check_stable(m, direction, request, &missing);
	check_volatile(m, direction, request, &missing);
	report_missing(m, direction, &missing);
	if (direction == DIRECTION_REVERSE)
		changes = changes_of_last_swap(m);

	ME_DEBUG_POINT("swap_before_locks");
	lock_tables(m, direction, times);
	ME_DEBUG_POINT("swap_locked");
	check_volatile(m, direction, request, &missing);
	report_missing(m, direction, &missing);

	times->swap_id =
		swap_add(m->id, direction == DIRECTION_FORWARD ? "finalize" : "undo", request->attempts + 1,
				 request->wait_ms + swap_elapsed_ms(times->asked_at, times->granted_at),
				 request->blocked_by);
	exchange(m, direction, changes);
	ME_DEBUG_POINT("swap_before_commit");
}

/* ------------------------------------------------------------------------
 * The rehearsal
 * ------------------------------------------------------------------------
 */

/* What only a person can mend, and no waiting: as finalize and undo tell it. */
static void
check_hopeless(Migration *m, Direction direction)
{
	char *text = NULL;
	int problems;
	int64 failed;

	guard_check(m);
	problems = preflight_errors(m, &text);
	if (problems > 0)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_PREFLIGHT),
						errmsg("%s would be refused: %d thing%s in the way",
							   direction == DIRECTION_FORWARD ? "finalize" : "undo", problems,
							   problems == 1 ? " stands" : "s stand"),
						errdetail("%s", text),
						errhint("SELECT * FROM migrate_ext.preflight(%s) tells what to do.",
								quote_literal_cstr(m->name))));
	failed = failed_row_due(m);
	if (failed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_MIGRATION_FAILED_ROWS),
				 errmsg("%s would be refused: " INT64_FORMAT " row%s could not be carried over",
						direction == DIRECTION_FORWARD ? "finalize" : "undo", failed,
						failed == 1 ? "" : "s"),
				 errhint("See migrate_ext.failed_rows.")));
	if (m->tainted)
		ereport(ERROR,
				(errcode(ERRCODE_MIGRATION_NOT_VERIFIED),
				 errmsg("the sync trigger was tampered with, and the tables have not been "
						"verified since"),
				 errhint("CALL migrate_ext.verify(%s) first.", quote_literal_cstr(m->name))));
}

/* Milliseconds since then, and the clock is set anew. */
static double
lap(instr_time *since)
{
	instr_time now;
	double ms;

	INSTR_TIME_SET_CURRENT(now);
	ms = swap_elapsed_ms(*since, now);
	*since = now;
	return ms;
}

void
swap_rehearse(Migration *m, SwapTimes *times, SwapRehearsal *rehearsal)
{
	/* comparing and waiting for snapshots come before the locks: they can't be rehearsed here */
	SwapRequest request = {.ignore_old_snapshots = true};
	Direction forth = direction_of(m);
	Direction back = forth == DIRECTION_FORWARD ? DIRECTION_REVERSE : DIRECTION_FORWARD;
	StringInfoData missing;
	List *changes = NIL;
	Jsonb *before;
	instr_time clock;

	initStringInfo(&missing);
	sync_release();
	limit_lock_waits(m);
	lock_row(m, forth);
	check_hopeless(m, forth);
	check_stable(m, forth, &request, &missing);
	check_volatile(m, forth, &request, &missing);
	report_missing(m, forth, &missing);
	if (forth == DIRECTION_REVERSE)
		changes = changes_of_last_swap(m);
	/* both, so that nothing has to be read or planned for the first time under the locks */
	(void) describe_relation(back_of(m, forth));
	before = describe_relation(front_of(m, forth));

	lock_tables(m, forth, times);
	ME_DEBUG_POINT("rehearsal_locked");
	clock = times->granted_at;
	check_hopeless(m, forth);
	check_volatile(m, forth, &request, &missing);
	report_missing(m, forth, &missing);
	exchange(m, forth, changes);
	CommandCounterIncrement();
	rehearsal->forth_ms = lap(&clock);
	rehearsal->swapped = describe_differences(before, describe_relation(front_of(m, back)));
	ME_DEBUG_POINT("rehearsal_swapped");
	(void) lap(&clock);

	check_hopeless(m, back);
	rehearsal->both_ways = back == DIRECTION_FORWARD || reverse_is_possible(m);
	if (!rehearsal->both_ways)
		return;
	exchange(m, back, back == DIRECTION_REVERSE ? changes_of_last_swap(m) : NIL);
	CommandCounterIncrement();
	rehearsal->back_ms = lap(&clock);
	rehearsal->returned = describe_differences(before, describe_relation(front_of(m, forth)));
}

/*
 * From swap() and unswap(): what finalize was asked to leave out was asked of
 * finalize, so all of it is checked here.
 */
void
swap_in_transaction(Migration *m, Direction direction)
{
	SwapRequest request = {.verify = true};
	SwapTimes times = {0};

	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a swap needs a transaction at isolation level READ COMMITTED"),
				 errdetail("This one may read with a snapshot from before the last rows were "
						   "carried over."),
				 errhint("Use SET TRANSACTION ISOLATION LEVEL READ COMMITTED.")));
	swap_perform(m, direction, &request, &times);
}
