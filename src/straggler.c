/*-------------------------------------------------------------------------
 *
 * straggler.c
 *	  Keeps statements that waited for a swap from writing to the table that was
 *	  swapped out.
 *
 * A function with a body of SQL (BEGIN ATOMIC) names its tables by OID.  A call
 * that has read the body and then waits for the swap's lock goes on with the
 * OID of the table that the application used until now: its write would be lost
 * to the application.  Nothing that a swap could lock stands between the two, so
 * that table gets a trigger that refuses: 40001, for the statement did collide
 * with another transaction and can simply be repeated.  Reverse sync writes
 * beneath triggers and isn't affected; what the action of a foreign key writes
 * is let through, as that key is the table's own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "relinfo.h"
#include "sqlgen.h"
#include "straggler.h"

PG_FUNCTION_INFO_V1(migrate_ext_refuse_straggler);

/* '\0' if there is none. */
static char
read_state(Oid relid)
{
	return relinfo_trigger_state(relid, STRAGGLER_TRIGGER_NAME);
}

bool
straggler_is_in_place(Oid relid, bool enabled)
{
	return read_state(relid) == (enabled ? TRIGGER_FIRES_ALWAYS : TRIGGER_DISABLED);
}

char *
straggler_switch_sql(const char *table, bool enabled)
{
	return psprintf("ALTER TABLE ONLY %s %s TRIGGER \"" STRAGGLER_TRIGGER_NAME "\"", table,
					enabled ? "ENABLE ALWAYS" : "DISABLE");
}

void
straggler_switch(Oid relid, bool enabled)
{
	if (read_state(relid) != '\0' && !straggler_is_in_place(relid, enabled))
		(void) sql_run("%s", straggler_switch_sql(sql_relation(relid), enabled));
}

List *
straggler_put_sql(Oid relid, bool enabled)
{
	char *table = sql_relation(relid);
	List *statements = NIL;

	if (straggler_is_in_place(relid, enabled))
		return NIL;
	if (read_state(relid) == '\0')
		statements = list_make1(psprintf("CREATE TRIGGER \"" STRAGGLER_TRIGGER_NAME "\""
										 " BEFORE INSERT OR UPDATE OR DELETE ON %s"
										 " EXECUTE FUNCTION migrate_ext.refuse_straggler()",
										 table));
	return lappend(statements, straggler_switch_sql(table, enabled));
}

void
straggler_put(Oid relid, bool enabled)
{
	ListCell *lc;

	foreach (lc, straggler_put_sql(relid, enabled))
		(void) sql_run("%s", (char *) lfirst(lc));
	CommandCounterIncrement();
}

/* The trigger's function. */
Datum
migrate_ext_refuse_straggler(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("migrate_ext.refuse_straggler() is called by a trigger only")));
	if (InNoForceRLSOperation()) /* ON DELETE CASCADE and the like */
		return PointerGetDatum(NULL);
	ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					errmsg("table \"%s\" is not the one that is in use",
						   RelationGetRelationName(((TriggerData *) fcinfo->context)->tg_relation)),
					errdetail("It was exchanged with another one while the statement waited, or "
							  "it is written to by its present name."),
					errhint("Repeat the transaction.")));
	return PointerGetDatum(NULL);
}
