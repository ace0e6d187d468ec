/*-------------------------------------------------------------------------
 *
 * carry_fk_out.c
 *	  Foreign keys of the table that is swapped, which point at others or at
 *	  itself.
 *
 * The other table gets the same keys before the swap.  Each is made under a short
 * lock and without a look at the rows, then VALIDATEd leaf by leaf, which holds
 * up nobody.  PostgreSQL 15 knows no NOT VALID key of a partitioned table, so
 * only the leaves' keys are marked so: a dump, which has the root's alone, can be
 * restored at any time.  (Keys made on each leaf first, for the root's to take
 * over, would need ACCESS EXCLUSIVE on the referenced table for each of their
 * triggers to be dropped, and so a moment without anybody reading that table:
 * tryAttachPartitionForeignKey() and RemoveTriggerById().)
 *
 * Until the swap the other table's key does nothing.  What it would check, the
 * front's key has checked: the rows are the same.  Its triggers on the referenced
 * table are disabled.  They would do the work of ON DELETE CASCADE a second time,
 * and to the other table first where their names sort so: a deadlock with each
 * writer of the same row.  And a REPEATABLE READ transaction from before the copy
 * would fail to delete a row there, which it can't see (40001).
 *
 * The swap wakes the triggers of one side and lets those of the other sleep.  For
 * that it locks the referenced tables against writers (SHARE ROW EXCLUSIVE): who
 * had deleted a row there and had only the old key's triggers to fire would leave
 * the new table's rows behind.  So after the swap the original's keys sleep, until
 * an undo.
 *
 * A partition made later gets its key from its root, triggers on the referenced
 * table aren't made for it.  A new partition of the referenced table gets awake
 * ones; the next look sees them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_constraint.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "carry.h"
#include "carry_fk.h"
#include "carry_kinds.h"
#include "catalog.h"
#include "debug_point.h"
#include "lock_queue.h"
#include "relinfo.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"

static void make_key(Migration *m, Oid front, Oid back, const FkStep *step);

static FkKind outgoing = {.steps = "fk_out_steps", .flip = "fk_out_flip", .make = make_key};

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------
 */

/*
 * For each partition of a referenced table there is a row in pg_constraint, whose
 * name a violation tells.  It was made from the table's name: take the front's.
 */
static void
copy_names(Oid front, Oid back)
{
	ListCell *lc;

	foreach (lc, carry_texts(
					 NULL,
					 "SELECT b.oid || ' ' || f.conname FROM migrate_ext.fk_out_pairs($1, $2) p"
					 " JOIN pg_catalog.pg_constraint f ON f.conparentid = p.front_fk"
					 " AND f.conrelid = $1 AND f.confrelid <> $1"
					 " JOIN pg_catalog.pg_constraint b ON b.conparentid = p.back_fk"
					 " AND b.conrelid = $2 AND b.confrelid = f.confrelid AND b.conname <> f.conname"
					 " AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint o"
					 " WHERE o.conrelid = $2 AND o.contypid = 0 AND o.conname = f.conname)",
					 front, back))
	{
		char *name = strchr(lfirst(lc), ' ') + 1;

		RenameConstraintById(atooid(lfirst(lc)), name);
		CommandCounterIncrement();
	}
}

/* A key that points at its own table is told as pointing at the front, and is to name the back one. */
static char *
statement_of(const FkStep *step, Oid front, Oid back)
{
	return fk_is_add(step) && step->referenced == front ? fk_renamed(step->statement, back)
														: step->statement;
}

/*
 * The referenced table is locked first: its writers come to ours by the actions
 * of the front's key.
 */
static void
make_key(Migration *m, Oid front, Oid back, const FkStep *step)
{
	if (step->referenced != front)
		lock_queue_lock(step->referenced, ShareRowExclusiveLock);
	lock_queue_lock(back, ShareRowExclusiveLock);
	lock_queue_watch(true);
	fk_add(relinfo_owner(back), back, step->name, statement_of(step, front, back));
	lock_queue_watch(false);
	copy_names(front, back);
	fk_disable(&outgoing, front, back, step->name);
	event_add(m, EVENT_CARRIED,
			  psprintf("{\"kind\": \"foreign key\", \"name\": %s}", json_quote(step->name)),
			  "foreign key %s made on %s", quote_identifier(step->name), sql_relation(back));
	ME_DEBUG_POINT("fk_before_commit");
}

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	return fk_prepare(&outgoing, m, direction, look_only);
}

/* ------------------------------------------------------------------------
 * The swap
 * ------------------------------------------------------------------------
 */

/*
 * What the keys of both tables point at, in the order of locking; List of OIDs as
 * text.  With its partitions, which have rows of their own in pg_constraint.
 */
static List *
find_referenced(const Migration *m)
{
	static SPIPlanPtr plan = NULL;

	return carry_texts(&plan,
					   "SELECT DISTINCT k.confrelid::text, k.confrelid"
					   " FROM pg_catalog.pg_constraint k"
					   " WHERE k.conrelid IN ($1, $2) AND k.contype = 'f'"
					   " AND k.confrelid NOT IN ($1, $2)"
					   " AND NOT EXISTS (SELECT FROM migrate_ext.partitions_of($2) p"
					   " WHERE p.relation = k.confrelid) ORDER BY k.confrelid",
					   m->source, m->target);
}

/*
 * Under the swap's locks: lock what the keys point at against writers as well,
 * all waits within one lock_timeout_ms.  55P03 where one is not to be had.
 */
static void
lock_referenced(Migration *m)
{
	int timeout = settings_get_int(m, "lock_timeout_ms");
	TimestampTz began = GetCurrentTimestamp();
	ListCell *lc;

	foreach (lc, find_referenced(m))
	{
		Oid relid = atooid(lfirst(lc));
		long spent = TimestampDifferenceMilliseconds(began, GetCurrentTimestamp());

		limit_lock_wait(timeout - (int) spent);
		lock_queue_lock(relid, ShareRowExclusiveLock);
	}
}

static void *
collect(Migration *m, Direction direction)
{
	lock_referenced(m);
	return NULL;
}

static void
move(Migration *m, Direction direction, void *collected)
{
	fk_flip(&outgoing, front_of(m, direction), back_of(m, direction));
}

/* ------------------------------------------------------------------------
 * The end
 * ------------------------------------------------------------------------
 */

static List *
leaving(Oid other, Oid left, bool ahead)
{
	return carry_texts(NULL,
					   psprintf("SELECT name FROM migrate_ext.fk_out_leaving($1, $2, %s)",
								ahead ? "true" : "false"),
					   other, left);
}

static char *
drop_statement(char *table, const char *name)
{
	return psprintf("ALTER TABLE %s DROP CONSTRAINT %s", table, quote_identifier(name));
}

/*
 * Sleeping triggers must not be left to a table that stays on its own, and awake
 * ones would have a copy that nobody writes keep rows of other tables from being
 * deleted.  So the keys go, but for those that were the user's before a migration
 * that is cancelled.
 */
static void
leave(Migration *m, Oid left)
{
	bool completed = left == m->source;
	Oid other = completed ? m->target : m->source;
	ListCell *lc;

	foreach (lc, leaving(other, left, false))
	{
		char *drop = drop_statement(sql_relation(left), lfirst(lc));

		carry_run(relinfo_owner(left), drop);
		event_add(m, "foreign_key_dropped", NULL, "%s, which is not kept in step any more: %s",
				  sql_relation(left), drop);
	}
	/* the rest is of a target that was given to us */
	foreach (lc, carry_texts(NULL,
							 "SELECT pg_catalog.format('ALTER TABLE ONLY %s ENABLE TRIGGER %I',"
							 " t.relation::pg_catalog.regclass, t.name)"
							 " FROM migrate_ext.fk_out_pairs($1, $2) p"
							 " CROSS JOIN LATERAL migrate_ext.fk_out_triggers(p.back_fk) t"
							 " WHERE t.enabled = 'D'",
							 other, left))
		(void) sql_run("%s", (char *) lfirst(lc));
}

/* ------------------------------------------------------------------------
 * For plan()
 * ------------------------------------------------------------------------
 */

static void
plan_steps(MigrationPlan *plan)
{
	Migration *m = plan->m;
	ListCell *lc;

	foreach (lc, fk_steps(NULL, "fk_out_steps", m->source, m->target, true))
	{
		FkStep *step = lfirst(lc);
		char *lock =
			psprintf("SHARE ROW EXCLUSIVE on %s and its partitions", sql_relation(m->target));

		if (step->referenced != m->source)
			lock = psprintf("SHARE ROW EXCLUSIVE on %s and then %s", sql_relation(step->referenced),
							lock);
		if (fk_is_add(step))
			plan_add(plan, statement_of(step, m->source, m->target), lock, FK_NOTE_ADD);
		else
			plan_add_ddl(plan, step->statement,
						 strchr(step->statement, '?') != NULL ? FK_NOTE_DISABLE : NULL);
	}
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	Migration *m = plan->m;
	ListCell *lc;

	if (part == CARRY_PREPARE)
		plan_steps(plan);
	else if (part == CARRY_COLLECT)
	{
		foreach (lc, find_referenced(m))
			plan_add_lock(plan, atooid(lfirst(lc)), ShareRowExclusiveLock);
	}
	else if (part == CARRY_MOVE)
		carry_plan_changes(plan, "fk_out_flip", "ALTER TABLE ONLY");
	else
	{
		foreach (lc, leaving(m->target, m->source, plan->swapped))
			plan_add_ddl(plan, drop_statement(plan_relation(plan, m->source), lfirst(lc)),
						 "only if complete is to keep the original");
	}
}

const Carrier carry_fk_out = {
	.name = "outgoing foreign keys",
	.prepare = prepare,
	.collect = collect,
	.move = move,
	.leave = leave,
	.plan = plan_part,
};
