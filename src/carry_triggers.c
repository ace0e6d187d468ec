/*-------------------------------------------------------------------------
 *
 * carry_triggers.c
 *	  The user's triggers of the table that is swapped.
 *
 * The other table gets the same triggers before the swap, disabled.  Partitions get
 * theirs from the root, also those that come later.  Making them takes SHARE ROW
 * EXCLUSIVE on the back table and its partitions, for a moment.
 *
 * In the swap the front's are disabled and the back's get the states that they
 * had: for origin, replica or both.  That is, of a partitioned table, the root's
 * own: to change those of 1,000 partitions would take a third of a second under the
 * swap's locks, and send their relations out of everybody's cache.  They have the
 * front's states from before the swap on.  Nothing fires them then: sync writes
 * past a table's triggers (mirror_write.c), and TRUNCATE fires only the root's.
 *  One that was disabled stays so on both.
 * Names are kept, and with them the order of firing; ours go first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "parser/parser.h"
#include "utils/builtins.h"

#include "carry.h"
#include "carry_kinds.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "lock_queue.h"
#include "relinfo.h"
#include "sqlgen.h"

PG_FUNCTION_INFO_V1(migrate_ext_trigger_definition);

/* One row of migrate_ext.trigger_steps(). */
typedef struct Step
{
	char *kind;
	char *name;
	char *statement; /* one that is added is told as of the front table; or NULL */
	char *state;	 /* the clause that gives the partitions' triggers theirs; or NULL */
} Step;

/* What is left to do; List of Step *.  ahead: see the SQL function. */
static List *
find_steps(Oid front, Oid back, bool ahead)
{
	Oid types[] = {OIDOID, OIDOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(front), ObjectIdGetDatum(back), BoolGetDatum(ahead)};
	static SPIPlanPtr plan = NULL;
	CatalogCall call = {.plan = &plan};
	List *steps = NIL;
	uint64 count = catalog_begin(
		&call, "SELECT step, name, statement, state FROM migrate_ext.trigger_steps($1, $2, $3)",
		lengthof(types), types, values, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);
		Step *step = palloc(sizeof(Step));

		step->kind = catalog_value_text(&call, i, 1);
		step->name = catalog_value_text(&call, i, 2);
		step->statement = catalog_value_text(&call, i, 3);
		step->state = catalog_value_text(&call, i, 4);
		steps = lappend(steps, step);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return steps;
}

/* The table in a statement that makes a trigger. */
static RangeVar *
table_of(const char *statement)
{
	RawStmt *raw = linitial_node(RawStmt, raw_parser(statement, RAW_PARSE_DEFAULT));

	return castNode(CreateTrigStmt, raw->stmt)->relation;
}

/*
 * trigger_definition(trigger): told by the place of the table's name, which an
 * argument of the trigger may contain as well.
 */
Datum
migrate_ext_trigger_definition(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(call, 1);
	char *statement;
	Datum definition;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
	call->args[0].value = PG_GETARG_DATUM(0);
	call->args[0].isnull = false;
	definition = pg_get_triggerdef(call);
	if (call->isnull) /* gone */
		PG_RETURN_NULL();
	statement = TextDatumGetCString(definition);
	PG_RETURN_TEXT_P(cstring_to_text(carry_renamed(statement, table_of(statement), "@")));
}

static bool
is_add(const Step *step)
{
	return strcmp(step->kind, "add") == 0;
}

/* List of char *. */
static List *
statements_of(const Step *step, Oid back)
{
	char *table = sql_relation(back);
	const char *name = quote_identifier(step->name);
	List *statements = NIL;

	if (!is_add(step) && step->state == NULL)
		return list_make1(step->statement);
	if (is_add(step))
		statements =
			lappend(statements, carry_renamed(step->statement, table_of(step->statement), table));
	if (step->state != NULL)
		statements =
			lappend(statements, psprintf("ALTER TABLE %s %s TRIGGER %s", table, step->state, name));
	return lappend(statements, psprintf("ALTER TABLE ONLY %s DISABLE TRIGGER %s", table, name));
}

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	Oid back = back_of(m, direction);
	List *steps = find_steps(front_of(m, direction), back, false);
	Step *step;
	ListCell *lc;

	if (steps == NIL || look_only)
		return steps == NIL;
	step = linitial(steps);
	if (is_add(step))
		lock_queue_lock(back, ShareRowExclusiveLock);
	lock_queue_watch(true);
	foreach (lc, statements_of(step, back))
		carry_run(relinfo_owner(back), lfirst(lc));
	lock_queue_watch(false);
	if (is_add(step))
		event_add(m, EVENT_CARRIED,
				  psprintf("{\"kind\": \"trigger\", \"name\": %s}", json_quote(step->name)),
				  "trigger %s made on %s, disabled until the swap", quote_identifier(step->name),
				  sql_relation(back));
	return false;
}

static void
move(Migration *m, Direction direction, void *collected)
{
	static SPIPlanPtr plan = NULL;
	ListCell *lc;

	foreach (lc, carry_changes(&plan, "trigger_flip", front_of(m, direction), back_of(m, direction),
							   false))
	{
		CarryChange *change = lfirst(lc);

		carry_run(relinfo_owner(change->relid),
				  psprintf("ALTER TABLE ONLY %s %s", sql_relation(change->relid), change->change));
	}
	CommandCounterIncrement();
}

/* An original that is kept has them, disabled; a target that was given to us not. */
static void
leave(Migration *m, Oid left)
{
	ListCell *lc;

	if (left == m->source)
		return;
	foreach (lc, carry_texts(NULL,
							 "SELECT b.name::text FROM migrate_ext.triggers_of($2) b"
							 " WHERE b.enabled = 'D'"
							 " AND migrate_ext.is_carried($1, $2, 'trigger', b.name)",
							 m->source, left))
		carry_run(relinfo_owner(left), psprintf("DROP TRIGGER %s ON %s",
												quote_identifier(lfirst(lc)), sql_relation(left)));
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	Migration *m = plan->m;
	ListCell *lc;

	if (part == CARRY_PREPARE)
	{
		foreach (lc, find_steps(m->source, m->target, true))
			plan_add_all_ddl(plan, statements_of(lfirst(lc), m->target),
							 "triggers sleep on the other table until the swap");
	}
	if (part == CARRY_MOVE)
		carry_plan_changes(plan, "trigger_flip", "ALTER TABLE ONLY");
}

const Carrier carry_triggers = {
	.name = "triggers",
	.prepare = prepare,
	.move = move,
	.leave = leave,
	.plan = plan_part,
};
