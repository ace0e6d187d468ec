/*-------------------------------------------------------------------------
 *
 * carry_triggers.c
 *	  The user's triggers of the table that is swapped.
 *
 * The other table gets the same triggers before the swap, disabled: what is
 * written there was written to the front, whose own have fired.  Partitions get
 * theirs from the root, also those that come later.  Making them takes SHARE ROW
 * EXCLUSIVE on the back table and its partitions, for a moment.
 *
 * In the swap the front's are disabled and the back's get the states that they
 * had: for origin, replica or both.  One that was disabled stays so on both.
 * Names are kept, and with them the order of firing; ours go first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "parser/parser.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "carry.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"

/* One row of migrate_ext.trigger_steps(). */
typedef struct Step
{
	char *kind;
	char *name;
	char *statement;
} Step;

/* The first thing that is left to do, or NULL. */
static Step *
next_step(Oid front, Oid back)
{
	Oid types[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(front), ObjectIdGetDatum(back)};
	CatalogCall call = {0};
	Step *step = NULL;
	bool isnull;

	if (catalog_begin(&call,
					  "SELECT step, name, statement FROM migrate_ext.trigger_steps($1, $2) LIMIT 1",
					  2, types, values, NULL) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		step = palloc(sizeof(Step));
		step->kind = TextDatumGetCString(catalog_value(&call, 0, 1, &isnull));
		step->name = TextDatumGetCString(catalog_value(&call, 0, 2, &isnull));
		step->statement = TextDatumGetCString(catalog_value(&call, 0, 3, &isnull));
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return step;
}

/*
 * As the owner, in whose name a partition key's functions may run.  The statement
 * names the front table, and is made to name the back one after it is parsed.
 */
static void
make_trigger(Migration *m, Oid back, const Step *step)
{
	PlannedStmt *wrapper = makeNode(PlannedStmt);
	CreateTrigStmt *stmt;
	UserSwitch user;

	stmt = castNode(CreateTrigStmt,
					linitial_node(RawStmt, raw_parser(step->statement, RAW_PARSE_DEFAULT))->stmt);
	stmt->relation =
		makeRangeVar(get_namespace_name(get_rel_namespace(back)), get_rel_name(back), -1);
	wrapper->commandType = CMD_UTILITY;
	wrapper->utilityStmt = (Node *) stmt;
	wrapper->stmt_location = -1;

	user_switch_owner(&user, relinfo_owner(back));
	PushActiveSnapshot(GetTransactionSnapshot());
	ProcessUtility(wrapper, step->statement, false, PROCESS_UTILITY_QUERY, NULL, NULL,
				   None_Receiver, NULL);
	PopActiveSnapshot();
	CommandCounterIncrement();
	(void) sql_run("ALTER TABLE %s DISABLE TRIGGER %s", sql_relation(back),
				   quote_identifier(step->name));
	user_switch_back(&user);
	event_add(m, "carried",
			  psprintf("{\"kind\": \"trigger\", \"name\": %s}", json_quote(step->name)),
			  "trigger %s made on %s, disabled until the swap", quote_identifier(step->name),
			  sql_relation(back));
}

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	Step *step = next_step(front, back);
	UserSwitch user;

	if (step == NULL || look_only)
		return step == NULL;
	if (strcmp(step->kind, "add") == 0)
	{
		make_trigger(m, back, step);
		return false;
	}
	user_switch_owner(&user, relinfo_owner(back));
	(void) sql_run("%s", step->statement);
	user_switch_back(&user);
	return false;
}

/* Asked for before the renames, or after them, the same: tables are known by OID. */
static void
move(Migration *m, Direction direction, void *collected)
{
	ListCell *lc;

	foreach (lc, carry_texts("SELECT relation || ' ' || change"
							 " FROM migrate_ext.trigger_flip($1, $2)",
							 front_of(m, direction), back_of(m, direction)))
	{
		Oid relid = atooid(lfirst(lc));
		UserSwitch user;

		user_switch_owner(&user, relinfo_owner(relid));
		(void) sql_run("ALTER TABLE %s %s", sql_relation(relid), strchr(lfirst(lc), ' ') + 1);
		user_switch_back(&user);
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
	foreach (lc, carry_texts("SELECT b.name::text FROM migrate_ext.triggers_of($2) b"
							 " WHERE b.enabled = 'D'"
							 " AND migrate_ext.is_carried($1, $2, 'trigger', b.name)",
							 m->source, left))
	{
		UserSwitch user;

		user_switch_owner(&user, relinfo_owner(left));
		(void) sql_run("DROP TRIGGER %s ON %s", quote_identifier(lfirst(lc)), sql_relation(left));
		user_switch_back(&user);
	}
}

const Carrier carry_triggers = {
	.name = "triggers",
	.prepare = prepare,
	.move = move,
	.leave = leave,
};
