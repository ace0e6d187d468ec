/*-------------------------------------------------------------------------
 *
 * carry_statements.c
 *	  Carrying what can be told as statements; see carry_statements.h.
 *
 * What is to be done is asked of a SQL function a kind (sql/60_carry.sql ...)
 * that compares both tables' catalogs.  It is asked under the swap's locks as
 * well, so its plan is kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "nodes/readfuncs.h"
#include "utils/builtins.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"

#include "carry_statements.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "lock_queue.h"
#include "relinfo.h"
#include "sqlgen.h"

PG_FUNCTION_INFO_V1(migrate_ext_deparse);

bool
carry_is_exact(const Migration *m, Direction direction)
{
	return m->made_target || direction == DIRECTION_REVERSE || event_exists(m->id, EVENT_RENAMED);
}

/* ------------------------------------------------------------------------
 * Asking
 * ------------------------------------------------------------------------
 */

typedef struct Statement
{
	char *text;
	char *made; /* what it makes, to know it again; or NULL */
	Oid run_as; /* whose it is; InvalidOid: the back table's owner's */
} Statement;

/* What is to be done; List of Statement *. */
static List *
ask(Migration *m, Direction direction, const char *function, SPIPlanPtr *plan, bool ahead)
{
	Oid front = front_of(m, direction);
	Oid types[] = {INT8OID, OIDOID, OIDOID, BOOLOID, BOOLOID, BOOLOID};
	Datum values[] = {Int64GetDatum(m->id),
					  ObjectIdGetDatum(front),
					  ObjectIdGetDatum(back_of(m, direction)),
					  BoolGetDatum(carry_is_exact(m, direction)),
					  BoolGetDatum(!lock_queue_holds(front, AccessExclusiveLock)),
					  BoolGetDatum(ahead)};
	CatalogCall call = {.plan = plan};
	List *statements = NIL;
	uint64 count = catalog_begin(
		&call,
		psprintf("SELECT statement, made, run_as FROM migrate_ext.%s($1, $2, $3, $4, $5, $6)",
				 function),
		lengthof(types), types, values, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(call.outer);
		Statement *statement = palloc(sizeof(Statement));
		bool isnull;
		Datum run_as = catalog_value(&call, i, 3, &isnull);

		statement->text = catalog_value_text(&call, i, 1);
		statement->made = catalog_value_text(&call, i, 2);
		statement->run_as = isnull ? InvalidOid : DatumGetObjectId(run_as);
		statements = lappend(statements, statement);
		MemoryContextSwitchTo(old_context);
	}
	catalog_end(&call);
	return statements;
}

/* ------------------------------------------------------------------------
 * Doing
 * ------------------------------------------------------------------------
 */

/*
 * The event tells a person what was done, and the next look what we have made:
 * that may be dropped again.
 */
static void
record(Migration *m, const char *function, int count, const char *statements, const char *made)
{
	event_add(m, EVENT_CARRIED,
			  psprintf("{\"by\": %s, \"statements\": [%s], \"made\": [%s]}", json_quote(function),
					   statements, made),
			  "%d statement%s so that %s follows %s", count, count == 1 ? "" : "s",
			  sql_relation(back_of(m, direction_of(m))),
			  sql_relation(front_of(m, direction_of(m))));
}

bool
carry_by_statements(Migration *m, Direction direction, const char *function, SPIPlanPtr *plan,
					bool look_only)
{
	List *statements = ask(m, direction, function, plan, false);
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CARRY_PIECE_MS);
	Oid owner;
	StringInfoData texts;
	StringInfoData made;
	int count = 0;
	ListCell *lc;

	if (statements == NIL || look_only)
		return statements == NIL;
	owner = relinfo_owner(back_of(m, direction));
	if (!OidIsValid(owner))
		return true;
	initStringInfo(&texts);
	initStringInfo(&made);
	foreach (lc, statements)
	{
		Statement *statement = lfirst(lc);

		if (count > 0 && GetCurrentTimestamp() >= end)
			break;
		carry_run(OidIsValid(statement->run_as) ? statement->run_as : owner, statement->text);
		json_append(&texts, statement->text);
		if (statement->made != NULL)
			json_append(&made, statement->made);
		count++;
	}
	record(m, function, count, texts.data, made.data);
	return false;
}

void
carry_plan_statements(MigrationPlan *plan, const char *function)
{
	ListCell *lc;

	foreach (lc, ask(plan->m, DIRECTION_FORWARD, function, NULL, true))
		plan_add_ddl(plan, ((Statement *) lfirst(lc))->text, NULL);
}

/*
 * deparse(tree, relation, alias): an expression over the relation as text, its
 * own columns qualified by this alias where they need to be, so that the text
 * of one table can be used, or compared, for another one.  NULL for NULL.
 */
Datum
migrate_ext_deparse(PG_FUNCTION_ARGS)
{
	Node *node;
	List *context;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	node = stringToNode(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	context = deparse_context_for(text_to_cstring(PG_GETARG_TEXT_PP(2)), PG_GETARG_OID(1));
	PG_RETURN_TEXT_P(cstring_to_text(deparse_expression(node, context, false, false)));
}
