/*-------------------------------------------------------------------------
 *
 * failed_rows.c
 *	  Rows that could not be carried over; see failed_rows.h.
 *
 * A failed row is remembered by its identity alone, as JSON.  It becomes an
 * entry of the change log again, whose hint of place is NULL: no partition key
 * is, so the drain knows that it must look for the row everywhere.  Nothing is
 * lost if that fails again: the drain writes it back into failed_rows.  Only
 * those of the present direction are, see catalog.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "changelog.h"
#include "errors.h"
#include "failed_rows.h"
#include "run.h"
#include "settings.h"
#include "sqlgen.h"
#include "state.h"

/* "a pg_catalog.int8, b app.kind": the identity's columns with their types */
static char *
column_definitions(Oid source, const LogColumns *columns)
{
	StringInfoData list;
	int i;

	initStringInfo(&list);
	for (i = 0; i < columns->nidentity; i++)
	{
		Oid type;
		int32 typmod;
		Oid collation;

		get_atttypetypmodcoll(source, columns->attnums[i], &type, &typmod, &collation);
		appendStringInfo(&list, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(get_attname(source, columns->attnums[i], false)),
						 format_type_extended(
							 type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	return list.data;
}

/* Does the value not fit the type?  Anything else is not for us to swallow. */
static bool
is_misfit(int sqlerrcode)
{
	return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) ||
		   ERRCODE_TO_CATEGORY(sqlerrcode) ==
			   ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION);
}

/*
 * Execute the plan for one identity.  False if its values don't fit the source's
 * types: after a swap the target may have got a key that the source can't hold.
 */
static bool
execute_for(SPIPlanPtr plan, Datum identity)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool fits = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		(void) SPI_execute_plan(plan, &identity, NULL, false, 1);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error = error_end_subtransaction(context, owner);

		if (!is_misfit(error->sqlerrcode))
			ReThrowError(error);
		FreeErrorData(error);
		fits = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return fits;
}

/*
 * The values that the statement has returned, as an entry of the log, in outer;
 * NULL if one is missing.
 */
static Datum *
read_values(const LogColumns *columns, MemoryContext outer)
{
	Datum *values = MemoryContextAllocZero(outer, sizeof(Datum) * columns->natts);
	int i;

	for (i = 0; i < columns->nidentity; i++)
	{
		Form_pg_attribute att = TupleDescAttr(SPI_tuptable->tupdesc, i);
		bool isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull);
		MemoryContext old;

		if (isnull)
			return NULL;
		old = MemoryContextSwitchTo(outer);
		values[i] = datumCopy(value, att->attbyval, att->attlen);
		MemoryContextSwitchTo(old);
	}
	return values;
}

/*
 * SELECT s.* FROM pg_catalog.jsonb_to_record($1) s (a pg_catalog.int8, b app.kind)
 *
 * The types' input functions and the checks of domains are the user's code, so
 * this is run as the owner.  List of Datum *, in outer; without those that no
 * entry of the log can name.
 */
static List *
parse_identities(Migration *m, List *identities, const LogColumns *columns, MemoryContext outer)
{
	Oid types[] = {JSONBOID};
	List *rows = NIL;
	SPIPlanPtr plan;
	UserSwitch user;
	ListCell *cell;
	char *sql;

	sql = psprintf("SELECT s.* FROM pg_catalog.jsonb_to_record($1) s (%s)",
				   column_definitions(m->source, columns));
	PushActiveSnapshot(GetTransactionSnapshot());
	user_switch_owner(&user, m->owner);
	if (SPI_connect() != SPI_OK_CONNECT || (plan = SPI_prepare(sql, 1, types)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not prepare a statement: %s", SPI_result_code_string(SPI_result)),
				 errdetail("The statement is: %s", sql)));
	foreach (cell, identities)
	{
		Datum *values;
		MemoryContext old;

		if (!execute_for(plan, JsonbPGetDatum((Jsonb *) lfirst(cell))))
			continue;
		values = read_values(columns, outer);
		SPI_freetuptable(SPI_tuptable);
		if (values == NULL)
			continue;
		old = MemoryContextSwitchTo(outer);
		rows = lappend(rows, values);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	user_switch_back(&user);
	PopActiveSnapshot();
	return rows;
}

int64
failed_rows_relog(Migration *m)
{
	List *identities = failed_row_identities(m, true);
	LogColumns *columns = palloc0(sizeof(LogColumns));
	ChangeLog *log;
	List *rows;
	ListCell *cell;
	bool *isnull;
	int i;

	if (identities == NIL)
		return 0;
	changelog_columns(m->log, columns);
	rows = parse_identities(m, identities, columns, CurrentMemoryContext);
	isnull = palloc0(sizeof(bool) * columns->natts);
	for (i = columns->nidentity; i < columns->natts; i++)
		isnull[i] = true;

	log = changelog_open(m->log);
	if (log == NULL)
		return 0;
	foreach (cell, rows)
		(void) changelog_append(log, lfirst(cell), isnull);
	changelog_close(log);
	return list_length(rows);
}

/*
 * See failed_rows.h.  Where a definition is wrong all rows fail: better to say so after some
 * than to go through a table of billions.  Who resumes goes on for as long as no other fails.
 */
void
failed_rows_limit(Migration *m)
{
	int limit = settings_get_int(m, "max_failed_rows");
	int64 count = limit == 0 || m->state >= STATE_LIVE ? 0 : failed_row_count(m->id);

	if (limit > 0 && count >= limit)
		(void) migration_pause(m, psprintf(INT64_FORMAT " rows could not be carried over, and "
														"max_failed_rows is %d: see "
														"migrate_ext.failed_rows",
										   count, limit));
}
