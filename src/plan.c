/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  plan(migration): every statement to come, in order, with its lock.
 *
 * The texts come from the functions that make those which are run.  What is run
 * through PostgreSQL's own functions instead, because the swap's locks are held
 * (renames) or because no statement could do it (the copy), is told as the
 * statement that would do the same, and the note says so.
 *
 * Nothing is changed and nothing waited for: both tables are locked as lightly
 * as can be, or not at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "arguments.h"
#include "carry.h"
#include "carry_fk_in.h"
#include "carry_named.h"
#include "catalog.h"
#include "changelog.h"
#include "columns.h"
#include "index_def.h"
#include "other_triggers.h"
#include "plan.h"
#include "preflight_key.h"
#include "reconcile.h"
#include "relinfo.h"
#include "reverse.h"
#include "run.h"
#include "sqlgen.h"
#include "straggler.h"
#include "swap_catalog.h"
#include "sync_trigger.h"

PG_FUNCTION_INFO_V1(migrate_ext_plan);

/* ------------------------------------------------------------------------
 * Up to live
 * ------------------------------------------------------------------------
 */

static void
plan_install(MigrationPlan *plan)
{
	Migration *m = plan->m;
	char *lock = psprintf("SHARE ROW EXCLUSIVE on %s", sql_relation(m->source));

	plan_add_all(plan, changelog_create_sql(m), lock,
				 "the change log; one transaction up to copying");
	plan_add_all(plan, sync_trigger_set_sql(m, SYNC_LOG), lock,
				 "changes are logged from here on; a lock that is not to be had is tried again");
}

static void
plan_copy(MigrationPlan *plan)
{
	Migration *m = plan->m;
	char *source = sql_relation(m->source);
	char *lock = psprintf("ACCESS SHARE on %s, ROW EXCLUSIVE on %s and its partitions", source,
						  sql_relation(m->target));

	if (reconcile_adopted(m))
		return;
	plan_add(plan,
			 psprintf("INSERT INTO %s SELECT %s FROM ONLY %s s%s"
					  " WHERE s.ctid >= $1 AND s.ctid < $2",
					  sql_relation(m->target), columns_select_list(m, DIRECTION_FORWARD, false),
					  source, columns_joins(columns_build(m, DIRECTION_FORWARD))),
			 lock,
			 "equivalent: the rows of a range of blocks are written past the executor, a range a "
			 "transaction, several at a time");
}

static void
plan_catch_up(MigrationPlan *plan)
{
	Migration *m = plan->m;
	char *source = sql_relation(m->source);

	plan_add(plan,
			 reconcile_adopted(m)
				 ? psprintf("-- compare %s with %s, a range of rows a transaction", source,
							sql_relation(m->target))
				 : psprintf("-- empty the change log into %s, a batch a transaction",
							sql_relation(m->target)),
			 psprintf("ACCESS SHARE on %s, ROW EXCLUSIVE on %s and its partitions", source,
					  sql_relation(m->target)),
			 "no statement does this: rows are put right one by one, past the executor");
	plan_add_all(plan, sync_trigger_set_sql(m, SYNC_WRITE_THROUGH),
				 psprintf("SHARE ROW EXCLUSIVE on %s", source),
				 "writers wait while the rest of the log is drained; live from here on");
}

static void
plan_reverse(MigrationPlan *plan)
{
	Migration *m = plan->m;
	char *target = sql_relation(m->target);
	ListCell *lc;

	if (reverse_is_possible(m) && !reverse_is_prepared(m))
	{
		plan_add_all(plan, sync_trigger_reverse_sql(m),
					 psprintf("SHARE ROW EXCLUSIVE on %s and its partitions", target),
					 "for the way back; asleep until the swap");
		foreach (lc, lcons_oid(m->target, relinfo_leaves(m->target)))
			plan_add_all(plan, sync_trigger_reverse_truncate_sql(m, lfirst_oid(lc)),
						 psprintf("SHARE ROW EXCLUSIVE on %s", sql_relation(lfirst_oid(lc))), NULL);
	}
}

/* ------------------------------------------------------------------------
 * Live
 * ------------------------------------------------------------------------
 */

static void
plan_replaced(MigrationPlan *plan)
{
	char *source = sql_relation(plan->m->source);
	ListCell *lc;

	foreach (lc, other_triggers_to_drop(plan->m))
		plan_add_ddl(plan, psprintf("DROP TRIGGER %s ON %s", quote_identifier(lfirst(lc)), source),
					 "it was replaced, and is disabled");
}

/* Which ones is told by the rows that will come. */
static void
plan_headroom(MigrationPlan *plan)
{
	Migration *m = plan->m;
	char *headroom = json_field(m->definition, "headroom");
	char *target = plan_relation(plan, m->target);

	if (!m->made_target || headroom == NULL)
		return;
	plan_add(
		plan, psprintf("-- partitions of %s, so that %s of them stay empty", target, headroom),
		psprintf("SHARE UPDATE EXCLUSIVE on %s, ACCESS EXCLUSIVE on its default partition", target),
		"as rows come, until complete: CREATE TABLE, ATTACH PARTITION, and triggers as above");
}

static void
plan_statistics(MigrationPlan *plan)
{
	char *target = sql_relation(plan->m->target);

	if (plan->m->analyzed_at == 0)
		plan_add(plan, psprintf("ANALYZE %s", target),
				 psprintf("SHARE UPDATE EXCLUSIVE on %s and its partitions", target), NULL);
}

/* A table or index gets another name. */
static void
plan_rename(MigrationPlan *plan, const char *kind, Oid relid, char *from, const char *to,
			char *lock)
{
	plan_add(plan,
			 psprintf("ALTER %s %s RENAME TO %s", kind,
					  sql_qualified(get_namespace_name(get_rel_namespace(relid)), from),
					  quote_identifier(to)),
			 lock, PLAN_EQUIVALENT);
}

static void
plan_index_names(MigrationPlan *plan, char *lock)
{
	Migration *m = plan->m;
	Oid schema = get_rel_namespace(m->source);
	ListCell *lc;

	foreach (lc, index_def_pairs(m))
	{
		IndexPair *pair = lfirst(lc);
		char *name = pair->def->name;

		plan_rename(plan, "INDEX", m->source, name, swap_catalog_original_name(name, schema), lock);
		plan_rename(plan, "INDEX", m->target,
					OidIsValid(pair->target) ? get_rel_name(pair->target)
											 : index_def_new_name(pair->def, schema),
					name, lock);
	}
}

static void
plan_sequences(MigrationPlan *plan, char *table, char *lock)
{
	Migration *m = plan->m;
	ListCell *lc;

	foreach (lc, swap_catalog_sequences(m))
	{
		CatalogChange *move = lfirst(lc);

		plan_add(plan,
				 psprintf("ALTER SEQUENCE %s OWNED BY %s.%s", sql_relation(move->oid), table,
						  quote_identifier(get_attname(m->target, move->target_attnum, false))),
				 psprintf("%s; SHARE UPDATE EXCLUSIVE on the sequence", lock),
				 move->identity != '\0'
					 ? "equivalent, but it becomes the column's identity; in the swap's transaction"
					 : PLAN_EQUIVALENT);
	}
}

/* As in swap_transaction.c: who uses a view locks the view first. */
static void
plan_swap_locks(MigrationPlan *plan)
{
	Migration *m = plan->m;
	List *locks = carry_locks(m, DIRECTION_FORWARD, true);
	CarryLock tables[] = {{m->source, AccessExclusiveLock}, {m->target, AccessExclusiveLock}};
	ListCell *lc;

	locks = lappend(lappend(locks, &tables[0]), &tables[1]);
	foreach (lc, locks)
		plan_add_lock(plan, ((CarryLock *) lfirst(lc))->relid, ((CarryLock *) lfirst(lc))->mode);
}

static void
plan_swap(MigrationPlan *plan, char *original)
{
	Migration *m = plan->m;
	char *name = get_rel_name(m->source);
	char *table = sql_relation(m->source);
	char *lock = plan_swap_lock(plan);

	plan_swap_locks(plan);
	carry_plan(plan, CARRY_COLLECT);

	plan_rename(plan, "TABLE", m->source, name, original, lock);
	plan_rename(plan, "TABLE", m->target, get_rel_name(m->target), name, lock);
	plan_index_names(plan, lock);
	plan_sequences(plan, table, lock);
	plan->swapped = true;
	plan_add(plan, sync_trigger_flip_sql(plan->original, DIRECTION_REVERSE), lock,
			 "the way of the rows is turned; in the swap's transaction");
	carry_plan(plan, CARRY_MOVE);
}

/* ------------------------------------------------------------------------
 * Completed
 * ------------------------------------------------------------------------
 */

static void
plan_drop_trigger(MigrationPlan *plan, const char *name, char *table)
{
	plan_add(plan, psprintf("DROP TRIGGER %s ON %s", quote_identifier(name), table),
			 psprintf("ACCESS EXCLUSIVE on %s", table), "by complete, in one transaction");
}

static void
plan_complete(MigrationPlan *plan)
{
	Migration *m = plan->m;
	char *original = plan_relation(plan, m->source);
	char *table = plan_relation(plan, m->target);
	ListCell *lc;

	fk_in_plan_settle(plan);
	plan_drop_trigger(plan, SYNC_TRIGGER_NAME, original);
	plan_drop_trigger(plan, TRUNCATE_TRIGGER_NAME, original);
	if (carry_named_has_straggler(m))
	{
		plan_drop_trigger(plan, STRAGGLER_TRIGGER_NAME, original);
		plan_drop_trigger(plan, STRAGGLER_TRIGGER_NAME, table);
	}
	if (reverse_is_possible(m))
	{
		plan_drop_trigger(plan, REVERSE_TRIGGER_NAME, table);
		plan_drop_trigger(plan, REVERSE_TRUNCATE_TRIGGER_NAME, table);
		foreach (lc, relinfo_leaves(m->target))
			plan_drop_trigger(plan, REVERSE_TRUNCATE_TRIGGER_NAME, sql_relation(lfirst_oid(lc)));
	}
	plan_add(plan, psprintf("DROP TABLE migrate_ext.log_" INT64_FORMAT, m->id),
			 "ACCESS EXCLUSIVE on it", "by complete: the change log");
	carry_plan(plan, CARRY_LEAVE);
	plan_add(plan, psprintf("DROP TABLE %s", original), plan_lock(AccessExclusiveLock, original),
			 "only if complete is told drop_original");
}

/* ------------------------------------------------------------------------
 * The function
 * ------------------------------------------------------------------------
 */

static void
plan_all(MigrationPlan *plan)
{
	Migration *m = plan->m;

	if (m->state < STATE_SWAPPED)
	{
		Oid schema = get_rel_namespace(m->source);
		char *original = swap_catalog_original_name(get_rel_name(m->source), schema);

		plan->original = sql_qualified(get_namespace_name(schema), original);
		if (m->state < STATE_LOGGING)
			plan_install(plan);
		if (m->state < STATE_INDEXING)
			plan_copy(plan);
		if (m->state < STATE_CATCHING_UP)
			plan_indexes(plan);
		plan_reverse(plan);
		if (m->state < STATE_LIVE)
			plan_catch_up(plan);
		carry_plan(plan, CARRY_PREPARE);
		plan_statistics(plan);
		plan_replaced(plan);
		plan_swap(plan, original);
	}
	plan_headroom(plan);
	plan_complete(plan);
}

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

/*
 * plan(migration): nothing for one that is finished; 55000 for one of kind "key",
 * 55P03 where a table is locked.
 */
Datum
migrate_ext_plan(PG_FUNCTION_ARGS)
{
	Migration *m = catalog_find(argument_text(fcinfo, 0, "migration"), false);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MigrationPlan plan = {.m = m};
	UserSwitch user;
	ListCell *lc;

	migration_require_target(m, "migrate_ext.plan()");
	InitMaterializedSRF(fcinfo, 0);
	if (m->state > STATE_SWAPPED)
		return (Datum) 0;
	if (!preflight_begin_looking(m, &user))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("the tables of migration \"%s\" can't be looked at", m->name),
						errdetail("Somebody holds a lock on one of them, or has dropped it."),
						errhint("Try again, or see migrate_ext.preflight.")));
	plan_all(&plan);
	preflight_end_looking(m, &user);
	foreach (lc, plan.steps)
	{
		PlanStep *step = lfirst(lc);
		Datum values[4];
		bool isnull[4] = {false};

		values[0] = Int32GetDatum(foreach_current_index (lc) + 1);
		values[1] = CStringGetTextDatum(step->statement);
		values[2] = text_or_null(step->lock, &isnull[2]);
		values[3] = text_or_null(step->note, &isnull[3]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	}
	return (Datum) 0;
}
