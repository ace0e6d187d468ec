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
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "carry.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "lock_queue.h"
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
	static SPIPlanPtr plan = NULL;
	CatalogCall call = {.plan = &plan};
	Step *step = NULL;

	if (catalog_begin(&call,
					  "SELECT step, name, statement FROM migrate_ext.trigger_steps($1, $2) LIMIT 1",
					  2, types, values, NULL) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		step = palloc(sizeof(Step));
		step->kind = catalog_value_text(&call, 0, 1);
		step->name = catalog_value_text(&call, 0, 2);
		step->statement = catalog_value_text(&call, 0, 3);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return step;
}

/* The statement names the front table, and is made to name the back one after it is parsed. */
static void
make_trigger(Migration *m, Oid back, const Step *step)
{
	RawStmt *raw = linitial_node(RawStmt, raw_parser(step->statement, RAW_PARSE_DEFAULT));
	CreateTrigStmt *stmt = castNode(CreateTrigStmt, raw->stmt);
	Oid owner = relinfo_owner(back);

	stmt->relation = carry_range(back);
	lock_queue_lock(back, ShareRowExclusiveLock);
	lock_queue_watch(true);
	carry_utility(owner, (Node *) stmt, step->statement);
	lock_queue_watch(false);
	carry_run(owner, psprintf("ALTER TABLE %s DISABLE TRIGGER %s", sql_relation(back),
							  quote_identifier(step->name)));
	event_add(m, EVENT_CARRIED,
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

	if (step == NULL || look_only)
		return step == NULL;
	if (strcmp(step->kind, "add") == 0)
		make_trigger(m, back, step);
	else
		carry_run(relinfo_owner(back), step->statement);
	return false;
}

/* Asked for before the renames, or after them, the same: tables are known by OID. */
static void
move(Migration *m, Direction direction, void *collected)
{
	static SPIPlanPtr plan = NULL;
	ListCell *lc;

	foreach (lc, carry_texts(&plan,
							 "SELECT relation || ' ' || change"
							 " FROM migrate_ext.trigger_flip($1, $2)",
							 front_of(m, direction), back_of(m, direction)))
	{
		Oid relid = atooid(lfirst(lc));

		carry_run(relinfo_owner(relid),
				  psprintf("ALTER TABLE %s %s", sql_relation(relid), strchr(lfirst(lc), ' ') + 1));
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

const Carrier carry_triggers = {
	.name = "triggers",
	.prepare = prepare,
	.move = move,
	.leave = leave,
};
