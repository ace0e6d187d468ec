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

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "carry.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "debug_point.h"
#include "lock_queue.h"
#include "relinfo.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"

/* One row of migrate_ext.fk_out_steps(). */
typedef struct Step
{
	char *kind;
	char *name;
	Oid referenced;
	Oid relation;
	char *statement;
} Step;

/* ------------------------------------------------------------------------
 * Asking
 * ------------------------------------------------------------------------
 */

/* The first thing that is left to do, or NULL; name: for this key only. */
static Step *
next_step(Oid front, Oid back, const char *kind, const char *name)
{
	Oid types[] = {OIDOID, OIDOID, TEXTOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(front), ObjectIdGetDatum(back),
					  kind ? CStringGetTextDatum(kind) : (Datum) 0,
					  name ? CStringGetTextDatum(name) : (Datum) 0};
	char nulls[] = {' ', ' ', kind ? ' ' : 'n', name ? ' ' : 'n', '\0'};
	static SPIPlanPtr plan = NULL;
	CatalogCall call = {.plan = &plan};
	Step *step = NULL;
	bool isnull;

	if (catalog_begin(&call,
					  "SELECT step, name, referenced, relation, statement"
					  " FROM migrate_ext.fk_out_steps($1, $2)"
					  " WHERE ($3 IS NULL OR step = $3) AND ($4 IS NULL OR name = $4) LIMIT 1",
					  4, types, values, nulls) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		step = palloc(sizeof(Step));
		step->kind = catalog_value_text(&call, 0, 1);
		step->name = catalog_value_text(&call, 0, 2);
		step->referenced = DatumGetObjectId(catalog_value(&call, 0, 3, &isnull));
		step->relation = DatumGetObjectId(catalog_value(&call, 0, 4, &isnull));
		step->statement = catalog_value_text(&call, 0, 5);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return step;
}

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------
 */

/*
 * ALTER TABLE ... ADD CONSTRAINT, as the owner, but for two things: the rows are
 * not looked at, and a key that points at its own table names the back one.
 */
static void
add_key(Oid back, Oid front, const Step *step)
{
	RawStmt *raw = linitial_node(RawStmt, raw_parser(step->statement, RAW_PARSE_DEFAULT));
	AlterTableStmt *stmt = castNode(AlterTableStmt, raw->stmt);
	Constraint *key = castNode(Constraint, linitial_node(AlterTableCmd, stmt->cmds)->def);

	key->skip_validation = true;
	key->initially_valid = true;
	if (step->referenced == front)
		key->pktable = carry_range(back);
	carry_utility(relinfo_owner(back), (Node *) stmt, step->statement);
}

/* Mark a key and those below it not valid where rows are: they are looked at later. */
static void
mark_unvalidated(Relation constraints, Oid key)
{
	HeapTuple tuple = SearchSysCacheCopy1(CONSTROID, ObjectIdGetDatum(key));
	Form_pg_constraint form;
	ScanKeyData scankey;
	SysScanDesc scan;
	HeapTuple child;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (get_rel_relkind(form->conrelid) == RELKIND_RELATION)
	{
		form->convalidated = false;
		CatalogTupleUpdate(constraints, &tuple->t_self, tuple);
	}
	heap_freetuple(tuple);

	ScanKeyInit(&scankey, Anum_pg_constraint_conparentid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(key));
	scan = systable_beginscan(constraints, ConstraintParentIndexId, true, NULL, 1, &scankey);
	while (HeapTupleIsValid(child = systable_getnext(scan)))
		mark_unvalidated(constraints, ((Form_pg_constraint) GETSTRUCT(child))->oid);
	systable_endscan(scan);
}

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

/* All of them, under locks that this transaction has by now. */
static void
disable_triggers(Oid front, Oid back, const char *name)
{
	Step *step;

	while ((step = next_step(front, back, "disable", name)) != NULL)
	{
		(void) sql_run("%s", step->statement);
		CommandCounterIncrement();
	}
}

/*
 * The referenced table is locked first: its writers come to ours by the actions
 * of the front's key.
 */
static void
make_key(Migration *m, Oid front, Oid back, const Step *step)
{
	Relation constraints;
	Oid key;

	if (step->referenced != front)
		lock_queue_lock(step->referenced, ShareRowExclusiveLock);
	lock_queue_lock(back, ShareRowExclusiveLock);
	lock_queue_watch(true);
	add_key(back, front, step);
	lock_queue_watch(false);
	key = get_relation_constraint_oid(back, step->name, false);
	constraints = table_open(ConstraintRelationId, RowExclusiveLock);
	mark_unvalidated(constraints, key);
	table_close(constraints, RowExclusiveLock);
	CommandCounterIncrement();
	copy_names(front, back);
	disable_triggers(front, back, step->name);
	event_add(m, EVENT_CARRIED,
			  psprintf("{\"kind\": \"foreign key\", \"name\": %s}", json_quote(step->name)),
			  "foreign key %s made on %s", quote_identifier(step->name), sql_relation(back));
	ME_DEBUG_POINT("fk_before_commit");
}

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	Step *step = next_step(front, back, NULL, NULL);

	if (step == NULL || look_only)
		return step == NULL;
	if (strcmp(step->kind, "add") == 0)
		make_key(m, front, back, step);
	else if (strcmp(step->kind, "disable") == 0)
		disable_triggers(front, back, step->name);
	else
	{
		carry_run(relinfo_owner(step->relation), step->statement);
		ME_DEBUG_POINT("fk_validated");
	}
	return false;
}

/* ------------------------------------------------------------------------
 * The swap
 * ------------------------------------------------------------------------
 */

/*
 * Under the swap's locks: lock what the keys of both tables point at against
 * writers as well, all waits within one lock_timeout_ms.  With its partitions,
 * which have rows of their own in pg_constraint.  55P03 where one is not to be had.
 */
static void
lock_referenced(Migration *m)
{
	static SPIPlanPtr plan = NULL;
	int timeout = settings_get_int(m, "lock_timeout_ms");
	TimestampTz began = GetCurrentTimestamp();
	ListCell *lc;

	foreach (lc, carry_texts(&plan,
							 "SELECT DISTINCT k.confrelid::text, k.confrelid"
							 " FROM pg_catalog.pg_constraint k"
							 " WHERE k.conrelid IN ($1, $2) AND k.contype = 'f'"
							 " AND k.confrelid NOT IN ($1, $2)"
							 " AND NOT EXISTS (SELECT FROM migrate_ext.partitions_of($2) p"
							 " WHERE p.relation = k.confrelid) ORDER BY k.confrelid",
							 m->source, m->target))
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
	static SPIPlanPtr plan = NULL;
	ListCell *lc;

	foreach (lc, carry_texts(&plan, "SELECT statement FROM migrate_ext.fk_out_flip($1, $2)",
							 front_of(m, direction), back_of(m, direction)))
		(void) sql_run("%s", (char *) lfirst(lc));
	CommandCounterIncrement();
}

/* ------------------------------------------------------------------------
 * The end
 * ------------------------------------------------------------------------
 */

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

	foreach (
		lc, carry_texts(NULL,
						"SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I',"
						" b.conrelid::pg_catalog.regclass, b.conname)"
						" FROM pg_catalog.pg_constraint b WHERE b.conrelid = $2 AND b.contype = 'f'"
						" AND b.conparentid = 0"
						" AND (EXISTS (SELECT FROM migrate_ext.fk_out_triggers(b.oid) t"
						" WHERE t.enabled = 'D')"
						" OR migrate_ext.is_carried($1, $2, 'foreign key', b.conname))"
						" AND (migrate_ext.is_carried($1, $2, 'foreign key', b.conname)"
						" OR EXISTS (SELECT FROM migrate_ext.migration m WHERE m.source = $2))",
						other, left))
	{
		carry_run(relinfo_owner(left), lfirst(lc));
		event_add(m, "foreign_key_dropped", NULL, "%s, which is not kept in step any more: %s",
				  sql_relation(left), (char *) lfirst(lc));
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

const Carrier carry_fk_out = {
	.name = "outgoing foreign keys",
	.prepare = prepare,
	.collect = collect,
	.move = move,
	.leave = leave,
};
