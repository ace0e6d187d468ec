/*-------------------------------------------------------------------------
 *
 * carry_fk_in.c
 *	  Foreign keys of other tables (children) that point at the table that is
 *	  swapped.
 *
 * In state live each child gets the same key once more, pointing at the target:
 * made under short locks and without a look at the rows, then VALIDATEd.  Until
 * the swap it does nothing: its triggers on the child are disabled.  What it would
 * check the front's key has checked, as the rows are the same; and a row that could
 * not be written through at once, or one that an old snapshot doesn't see in the
 * target, must not make a child's write fail.
 *
 * The swap locks the children against writers (SHARE ROW EXCLUSIVE), for who had
 * checked a row by the old key only must have ended.  It wakes the triggers of one
 * key, lets those of the other sleep, and exchanges their names: an error message
 * and a later migration find the name that they know.  So the way back is the same.
 *
 * What can't point at the partitioned table, its key being wider, stays on the
 * original.  Reverse sync keeps the original complete and fires the key's triggers
 * there (mirror_write.c), so it goes on being enforced until the migration is
 * completed.  The other way round nothing fires them: at an undo a key that was made
 * while swapped and can't point at the original stands in the way.
 *
 * Option incoming_fks: "move" is that, "keep" leaves all where they are, and "drop"
 * drops what would stay.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "commands/comment.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "carry_fk.h"
#include "carry_fk_in.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "debug_point.h"
#include "lock_queue.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "swap_request.h"

/* What is left to do; List of FkStep *.  ahead: see the SQL function. */
static List *
find_steps(Oid front, Oid back, bool ahead)
{
	static SPIPlanPtr plan = NULL;

	return fk_find_steps(&plan, "fk_in_steps", front, back, ahead);
}

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------
 */

/* A name for a key that sleeps, which tells where it points. */
static char *
name_asleep(Migration *m, Oid child, const char *name, Oid referenced)
{
	const char *suffix = referenced == m->source ? ORIGINAL_SUFFIX : TARGET_SUFFIX;

	/* PostgreSQL puts the underscore in itself */
	return ChooseConstraintName(name, NULL, suffix + 1, get_rel_namespace(child), NIL);
}

/* The statement with the name of a key that is to be made in its place. */
static char *
named(const FkStep *step, const char *name)
{
	char *place = strstr(step->statement, " CONSTRAINT @");

	if (place == NULL)
		return step->statement;
	place += strlen(" CONSTRAINT ");
	return psprintf("%.*s%s%s", (int) (place - step->statement), step->statement,
					quote_identifier(name), place + 1);
}

/*
 * By the superuser, since the child's owner may have no privilege on the other
 * table yet; nobody's expression is evaluated.  That the migration's owner may
 * change the child has been looked at (fk_in_problems).
 */
static void
make_key(Migration *m, Oid front, Oid back, const FkStep *step)
{
	char *name = name_asleep(m, step->relation, step->name, back);

	lock_queue_lock(step->relation, ShareRowExclusiveLock);
	lock_queue_lock(back, ShareRowExclusiveLock);
	fk_add(BOOTSTRAP_SUPERUSERID, step->relation, name, named(step, name));
	fk_disable(find_steps(front, back, false), name);
	event_add(m, EVENT_CARRIED,
			  psprintf("{\"kind\": \"incoming foreign key\", \"name\": %s}", json_quote(name)),
			  "foreign key %s of %s made once more, for %s: %s", quote_identifier(step->name),
			  sql_relation(step->relation), sql_relation(back), quote_identifier(name));
	ME_DEBUG_POINT("fk_in_before_commit");
}

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	List *steps = find_steps(front, back, false);
	FkStep *step;

	if (steps == NIL || look_only)
		return steps == NIL;
	step = linitial(steps);
	if (fk_is_add(step))
		make_key(m, front, back, step);
	else if (strcmp(step->kind, "disable") == 0)
		fk_disable(steps, step->name);
	else
		carry_run(relinfo_owner(step->relation), step->statement);
	return false;
}

/* ------------------------------------------------------------------------
 * The swap
 * ------------------------------------------------------------------------
 */

static List *
locks(Migration *m, Direction direction)
{
	static SPIPlanPtr flip_plan = NULL;
	static SPIPlanPtr stay_plan = NULL;
	IncomingFksOption option = swap_request_read(m)->incoming_fks;
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	List *locks = NIL;
	ListCell *lc;

	if (option == INCOMING_FKS_KEEP)
		return NIL;
	foreach (lc, carry_texts(&flip_plan,
							 "SELECT relation::text FROM migrate_ext.fk_in_flip($1, $2, false)"
							 " WHERE relation NOT IN ($1, $2)",
							 front, back))
		locks = carry_add_lock(locks, atooid(lfirst(lc)), ShareRowExclusiveLock);
	if (option == INCOMING_FKS_DROP)
		foreach (lc, carry_texts(&stay_plan,
								 "SELECT relation::text FROM migrate_ext.fk_in_stay($1, $2)", front,
								 back))
			locks = carry_add_lock(locks, atooid(lfirst(lc)), AccessExclusiveLock);
	return locks;
}

/* The key that falls asleep gives its name, and its comment, to the one that wakes. */
static void
exchange_names(Migration *m, Oid front_key, Oid back_key)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(front_key));
	char *comment = GetComment(front_key, ConstraintRelationId, 0);
	Form_pg_constraint form;
	char *name;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("a foreign key was dropped meanwhile")));
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	name = pstrdup(NameStr(form->conname));
	RenameConstraintById(front_key, name_asleep(m, form->conrelid, name, form->confrelid));
	ReleaseSysCache(tuple);
	CommandCounterIncrement();
	RenameConstraintById(back_key, name);
	CreateComments(back_key, ConstraintRelationId, 0, comment);
	CommandCounterIncrement();
}

/* Foreign keys that would stay, with the rights of the table's owner. */
static void
drop_staying(Migration *m, Oid front, Oid back)
{
	ListCell *lc;

	foreach (lc,
			 carry_texts(NULL, "SELECT statement FROM migrate_ext.fk_in_stay($1, $2)", front, back))
	{
		carry_run(relinfo_owner(front), lfirst(lc));
		event_add(m, "foreign_key_dropped", NULL, "%s", (char *) lfirst(lc));
	}
}

/* The request is gone when the state has changed. */
static void *
collect(Migration *m, Direction direction)
{
	return swap_request_read(m);
}

/* What is to be done is asked for before anything of it is done. */
static void
move(Migration *m, Direction direction, void *collected)
{
	static SPIPlanPtr flip_plan = NULL;
	static SPIPlanPtr names_plan = NULL;
	IncomingFksOption option = ((SwapRequest *) collected)->incoming_fks;
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	List *changes;
	List *names;
	ListCell *lc;

	if (option == INCOMING_FKS_KEEP)
		return;
	if (option == INCOMING_FKS_DROP)
		drop_staying(m, front, back);
	changes = carry_changes(&flip_plan, "fk_in_flip", front, back, false);
	names = carry_texts(&names_plan,
						"SELECT front_fk || ' ' || back_fk FROM migrate_ext.fk_in_names($1, $2)",
						front, back);
	foreach (lc, changes)
	{
		CarryChange *change = lfirst(lc);

		(void) sql_run("ALTER TABLE ONLY %s %s", sql_relation(change->relid), change->change);
	}
	CommandCounterIncrement();
	foreach (lc, names)
		exchange_names(m, atooid(lfirst(lc)), atooid(strchr(lfirst(lc), ' ') + 1));
}

/* ------------------------------------------------------------------------
 * The end
 * ------------------------------------------------------------------------
 */

/* A column of the keys of others that point at this table. */
static List *
keys_of(Migration *m, Oid left, const char *column, const char *condition)
{
	return carry_texts(NULL,
					   psprintf("SELECT %s FROM migrate_ext.fk_in_keys($1, $2) f"
								" JOIN pg_catalog.pg_constraint k ON k.oid = f.fk"
								" WHERE %s ORDER BY k.conrelid, k.conname",
								column, condition),
					   left, left == m->source ? m->target : m->source);
}

#define DROP_KEY                                             \
	"pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I'," \
	" k.conrelid::pg_catalog.regclass, k.conname)"

#define WAKE_KEY                                                                               \
	"(SELECT pg_catalog.string_agg(pg_catalog.format('ALTER TABLE ONLY %s ENABLE TRIGGER %I'," \
	" t.relation::pg_catalog.regclass, t.name), '; ') FROM migrate_ext.fk_in_triggers(f.fk) t)"

/* A key that sleeps and was not made by us: the user's, on a target of his own. */
#define USERS_OWN                                                                            \
	"EXISTS (SELECT FROM migrate_ext.migration m WHERE m.target = $1 AND NOT m.made_target)" \
	" AND NOT migrate_ext.is_carried($1, $2, 'incoming foreign key', k.conname)"

void
fk_in_lock(Migration *m, Oid left, bool drop)
{
	ListCell *lc;

	foreach (lc, keys_of(m, left, "k.conrelid::text", drop ? "true" : "f.asleep"))
		lock_queue_lock(atooid(lfirst(lc)), AccessExclusiveLock);
}

static void
refuse_awake(Migration *m, Oid left)
{
	List *names = keys_of(
		m, left, "pg_catalog.format('%I of table %s', k.conname, k.conrelid::pg_catalog.regclass)",
		"NOT f.asleep");
	StringInfoData list;
	ListCell *lc;

	if (names == NIL)
		return;
	initStringInfo(&list);
	foreach (lc, names)
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", (char *) lfirst(lc));
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("foreign keys still point at table \"%s\"", get_rel_name(left)),
			 errdetail("They are %s.", list.data),
			 errhint("Drop them, or call migrate_ext.complete with options incoming_fks drop.")));
}

/* As the owner of the child, whom fk_in_problems has looked at. */
static void
run_for_child(const char *statement)
{
	Oid child = atooid(statement);

	carry_run(relinfo_owner(child), strchr(statement, ' ') + 1);
	CommandCounterIncrement();
}

void
fk_in_settle(Migration *m, Oid left, bool drop, bool refuse)
{
	ListCell *lc;

	if (refuse && !drop)
		refuse_awake(m, left);
	foreach (lc, keys_of(m, left, WAKE_KEY, "f.asleep AND " USERS_OWN))
		(void) sql_run("%s", (char *) lfirst(lc));
	foreach (lc,
			 keys_of(m, left, "k.conrelid || ' ' || " DROP_KEY, "f.asleep AND NOT (" USERS_OWN ")"))
		run_for_child(lfirst(lc));
	if (drop)
	{
		foreach (lc, keys_of(m, left, DROP_KEY, "NOT f.asleep"))
		{
			carry_run(relinfo_owner(left), lfirst(lc));
			event_add(m, "foreign_key_dropped", NULL, "%s", (char *) lfirst(lc));
		}
	}
}

/* ------------------------------------------------------------------------
 * For plan()
 * ------------------------------------------------------------------------
 */

static char *
note_of(const FkStep *step)
{
	if (fk_is_add(step))
		return "the rows are not looked at: the key is marked NOT VALID";
	if (strchr(step->statement, '?') != NULL)
		return "triggers of the key that has been made, in its transaction; '?': their numbers are "
			   "not known yet";
	return NULL;
}

static void
plan_steps(MigrationPlan *plan)
{
	Migration *m = plan->m;
	ListCell *lc;

	foreach (lc, find_steps(m->source, m->target, true))
	{
		FkStep *step = lfirst(lc);
		char *statement = named(step, name_asleep(m, step->relation, step->name, m->target));

		if (fk_is_add(step))
			plan_add(plan, statement,
					 psprintf("%s and then SHARE ROW EXCLUSIVE on %s and its partitions",
							  plan_lock(ShareRowExclusiveLock, sql_relation(step->relation)),
							  sql_relation(m->target)),
					 note_of(step));
		else
			plan_add_ddl(plan, statement, note_of(step));
	}
}

/* A name that comes in the place of another: of those that move, and of those that will. */
static void
plan_names(MigrationPlan *plan)
{
	Migration *m = plan->m;
	ListCell *lc;

	foreach (lc, carry_texts(
					 NULL,
					 "SELECT k.conrelid || ' ' || k.conname FROM migrate_ext.fk_in_keys($1, $2) f"
					 " JOIN pg_catalog.pg_constraint k ON k.oid = f.fk"
					 " WHERE NOT f.asleep"
					 " AND NOT EXISTS (SELECT FROM migrate_ext.fk_in_problems(f.fk, $1, $2))"
					 " ORDER BY k.conrelid, k.conname",
					 m->source, m->target))
	{
		Oid child = atooid(lfirst(lc));
		char *name = strchr(lfirst(lc), ' ') + 1;

		plan_add(plan,
				 psprintf("ALTER TABLE %s RENAME CONSTRAINT %s TO %s", sql_relation(child),
						  quote_identifier(name),
						  quote_identifier(name_asleep(m, child, name, m->source))),
				 plan_swap_lock(plan),
				 PLAN_EQUIVALENT "; the key for the other table gets the name");
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
		foreach (lc, carry_changes(NULL, "fk_in_flip", m->source, m->target, true))
		{
			Oid relid = ((CarryChange *) lfirst(lc))->relid;

			if (relid != m->source && relid != m->target)
				plan_add_lock(plan, relid, ShareRowExclusiveLock);
		}
	}
	else if (part == CARRY_MOVE)
	{
		carry_plan_changes(plan, "fk_in_flip", "ALTER TABLE ONLY");
		plan_names(plan);
	}
}

const Carrier carry_fk_in = {
	.name = "incoming foreign keys",
	.prepare = prepare,
	.locks = locks,
	.collect = collect,
	.move = move,
	.plan = plan_part,
};
