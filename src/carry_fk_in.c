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

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_constraint.h"
#include "commands/comment.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "carry_fk.h"
#include "carry_fk_in.h"
#include "catalog.h"
#include "debug_point.h"
#include "lock_queue.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "swap_request.h"

static void make_key(Migration *m, Oid front, Oid back, const FkStep *step);

static FkKind incoming = {.steps = "fk_in_steps", .flip = "fk_in_flip", .make = make_key};

/* ------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------
 */

/* A name for a key that sleeps, which tells where it points; not one of others, char *. */
static char *
name_asleep(Migration *m, Oid child, const char *name, Oid referenced, List *others)
{
	const char *suffix = referenced == m->source ? ORIGINAL_SUFFIX : TARGET_SUFFIX;

	/* PostgreSQL puts the underscore in itself */
	return ChooseConstraintName(name, NULL, suffix + 1, get_rel_namespace(child), others);
}

static char *
add_statement(const FkStep *step, const char *name)
{
	return psprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", sql_relation(step->relation),
					quote_identifier(name), step->statement);
}

/*
 * By the superuser, since the child's owner may have no privilege on the other
 * table yet; nobody's expression is evaluated.  That the migration's owner may
 * change the child has been looked at (fk_in_problems).
 */
static void
make_key(Migration *m, Oid front, Oid back, const FkStep *step)
{
	char *name = name_asleep(m, step->relation, step->name, back, NIL);

	lock_queue_lock(step->relation, ShareRowExclusiveLock);
	lock_queue_lock(back, ShareRowExclusiveLock);
	lock_queue_watch(true);
	fk_add(BOOTSTRAP_SUPERUSERID, step->relation, name, add_statement(step, name));
	lock_queue_watch(false);
	fk_disable(&incoming, front, back, name);
	event_add(m, EVENT_CARRIED,
			  psprintf("{\"kind\": \"incoming foreign key\", \"name\": %s}", json_quote(name)),
			  "foreign key %s of %s made once more, for %s: %s", quote_identifier(step->name),
			  sql_relation(step->relation), sql_relation(back), quote_identifier(name));
	ME_DEBUG_POINT("fk_in_before_commit");
}

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	return fk_prepare(&incoming, m, direction, look_only);
}

/* ------------------------------------------------------------------------
 * The swap
 * ------------------------------------------------------------------------
 */

static List *
locks(Migration *m, Direction direction, bool ahead)
{
	static SPIPlanPtr stay_plan = NULL;
	IncomingFksOption option = swap_request_read(m)->incoming_fks;
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	List *locks = NIL;
	ListCell *lc;

	if (option == INCOMING_FKS_KEEP)
		return NIL;
	foreach (lc,
			 carry_changes(ahead ? NULL : &incoming.flip_plan, incoming.flip, front, back, ahead))
	{
		CarryChange *change = lfirst(lc);

		if (change->relid != front && change->relid != back)
			locks = carry_add_lock(locks, change->relid, ShareRowExclusiveLock);
	}
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
	char *name = get_constraint_name(front_key);
	char *comment = GetComment(front_key, ConstraintRelationId, 0);
	Oid child;
	Oid referenced;

	if (name == NULL || !fk_ends(front_key, &child, &referenced))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("a foreign key was dropped meanwhile")));
	RenameConstraintById(front_key, name_asleep(m, child, name, referenced, NIL));
	CommandCounterIncrement();
	RenameConstraintById(back_key, name);
	CreateComments(back_key, ConstraintRelationId, 0, comment);
	CommandCounterIncrement();
}

/* These statements, with the rights of a table's owner. */
static void
drop_keys(Migration *m, List *statements, Oid owner)
{
	ListCell *lc;

	foreach (lc, statements)
	{
		carry_run(owner, lfirst(lc));
		event_add(m, "foreign_key_dropped", NULL, "%s", (char *) lfirst(lc));
	}
}

/* The request is gone when the state has changed. */
static void *
collect(Migration *m, Direction direction)
{
	return swap_request_read(m);
}

/* Names are asked for first: who has woken can't be told from who slept. */
static void
move(Migration *m, Direction direction, void *collected)
{
	static SPIPlanPtr names_plan = NULL;
	IncomingFksOption option = ((SwapRequest *) collected)->incoming_fks;
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	List *names;
	ListCell *lc;

	if (option == INCOMING_FKS_KEEP)
		return;
	if (option == INCOMING_FKS_DROP)
		drop_keys(
			m,
			carry_texts(NULL, "SELECT statement FROM migrate_ext.fk_in_stay($1, $2)", front, back),
			relinfo_owner(front));
	names = carry_texts(&names_plan,
						"SELECT front_fk || ' ' || back_fk FROM migrate_ext.fk_in_names($1, $2)",
						front, back);
	fk_flip(&incoming, front, back);
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
		drop_keys(m, keys_of(m, left, DROP_KEY, "NOT f.asleep"), relinfo_owner(left));
}

/* ------------------------------------------------------------------------
 * For plan(): as finalize and complete do without options
 * ------------------------------------------------------------------------
 */

/* A key that is still to be made, and the name that it will have. */
typedef struct ComingKey
{
	const FkStep *step;
	char *name;
} ComingKey;

static List *
find_coming(Migration *m, List *steps)
{
	List *coming = NIL;
	List *names = NIL;
	ListCell *lc;

	foreach (lc, steps)
	{
		ComingKey *key;

		if (!fk_is_add(lfirst(lc)))
			continue;
		key = palloc(sizeof(ComingKey));
		key->step = lfirst(lc);
		key->name = name_asleep(m, key->step->relation, key->step->name, m->target, names);
		names = lappend(names, key->name);
		coming = lappend(coming, key);
	}
	return coming;
}

/* Of this child the key that is named so on the front. */
static char *
coming_name(List *coming, Oid child, const char *name)
{
	ListCell *lc;

	foreach (lc, coming)
	{
		ComingKey *key = lfirst(lc);

		if (key->step->relation == child && strcmp(key->step->name, name) == 0)
			return key->name;
	}
	return NULL;
}

static void
plan_steps(MigrationPlan *plan)
{
	Migration *m = plan->m;
	List *steps = fk_steps(NULL, "fk_in_steps", m->source, m->target, true);
	List *coming = find_coming(m, steps);
	ListCell *lc;

	foreach (lc, steps)
	{
		FkStep *step = lfirst(lc);
		bool validate = strcmp(step->kind, "validate") == 0;
		char *name = coming_name(coming, validate ? step->referenced : step->relation, step->name);

		if (fk_is_add(step))
			plan_add(plan, add_statement(step, name),
					 psprintf("SHARE ROW EXCLUSIVE on %s and %s, and their partitions",
							  sql_relation(step->relation), sql_relation(m->target)),
					 FK_NOTE_ADD);
		else
			plan_add_ddl(plan,
						 validate && name != NULL
							 ? psprintf("%s%s", step->statement, quote_identifier(name))
							 : step->statement,
						 strchr(step->statement, '?') != NULL ? FK_NOTE_DISABLE : NULL);
	}
}

/* "ALTER TABLE child RENAME CONSTRAINT a TO a_orig", and the other one gets its name and comment. */
static void
plan_exchange(MigrationPlan *plan, Oid key, char *back_name)
{
	Migration *m = plan->m;
	char *name = get_constraint_name(key);
	char *comment = GetComment(key, ConstraintRelationId, 0);
	char *table;
	char *lock;
	Oid child;
	Oid referenced;

	if (!fk_ends(key, &child, &referenced))
		return;
	table = sql_relation(child);
	lock = plan_lock(ShareRowExclusiveLock, table);
	plan_add(plan,
			 psprintf("ALTER TABLE %s RENAME CONSTRAINT %s TO %s", table, quote_identifier(name),
					  quote_identifier(name_asleep(m, child, name, m->source, NIL))),
			 lock, PLAN_EQUIVALENT);
	plan_add(plan,
			 psprintf("ALTER TABLE %s RENAME CONSTRAINT %s TO %s", table,
					  quote_identifier(back_name), quote_identifier(name)),
			 lock, PLAN_EQUIVALENT);
	if (comment != NULL)
		plan_add(plan,
				 psprintf("COMMENT ON CONSTRAINT %s ON %s IS %s", quote_identifier(name), table,
						  quote_literal_cstr(comment)),
				 lock, PLAN_EQUIVALENT);
}

static void
plan_names(MigrationPlan *plan)
{
	Migration *m = plan->m;
	ListCell *lc;
	ListCell *lc2;

	foreach (lc, carry_texts(
					 NULL,
					 "SELECT n.front_fk || ' ' || b.conname FROM migrate_ext.fk_in_names($1, $2) n"
					 " JOIN pg_catalog.pg_constraint b ON b.oid = n.back_fk",
					 m->source, m->target))
		plan_exchange(plan, atooid(lfirst(lc)), strchr(lfirst(lc), ' ') + 1);
	foreach (lc, find_coming(m, fk_steps(NULL, "fk_in_steps", m->source, m->target, true)))
	{
		ComingKey *key = lfirst(lc);
		Oid fk = get_relation_constraint_oid(key->step->relation, key->step->name, false);

		foreach (lc2, carry_texts(NULL,
								  "SELECT t.oid::text FROM migrate_ext.fk_tree($1) t"
								  " WHERE t.confrelid = $2",
								  fk, m->source))
			plan_exchange(plan, atooid(lfirst(lc2)), key->name);
	}
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	if (part == CARRY_PREPARE)
		plan_steps(plan);
	if (part != CARRY_MOVE)
		return;
	carry_plan_changes(plan, "fk_in_flip", "ALTER TABLE ONLY");
	plan_names(plan);
}

/* A key that will fall asleep in the swap has another name by then. */
void
fk_in_plan_settle(MigrationPlan *plan)
{
	Migration *m = plan->m;
	ListCell *lc;

	if (!plan->swapped)
	{
		foreach (lc, keys_of(m, m->source, DROP_KEY, "f.asleep AND NOT (" USERS_OWN ")"))
			plan_add_ddl(plan, lfirst(lc), "by complete");
		return;
	}
	foreach (
		lc,
		keys_of(
			m, m->source, "k.conrelid || ' ' || k.conname",
			"NOT f.asleep AND NOT EXISTS (SELECT FROM migrate_ext.fk_in_problems(f.fk, $1, $2))"))
	{
		Oid child = atooid(lfirst(lc));
		char *name = name_asleep(m, child, strchr(lfirst(lc), ' ') + 1, m->source, NIL);

		plan_add_ddl(plan,
					 psprintf("ALTER TABLE %s DROP CONSTRAINT %s", sql_relation(child),
							  quote_identifier(name)),
					 "by complete");
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
