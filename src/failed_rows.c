/*-------------------------------------------------------------------------
 *
 * failed_rows.c
 *	  Rows that could not be carried over, tried once more.
 *
 * A failed row is remembered by its identity alone, as JSON.  It becomes an
 * entry of the change log again, whose hint of place is NULL: no partition key
 * is, so the drain knows that it must look for the row everywhere.  Nothing is
 * lost if that fails again: the drain writes it back into failed_rows.
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
#include "sqlgen.h"

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
		appendStringInfo(
			&list, "%s%s %s", i > 0 ? ", " : "",
			quote_identifier(get_attname(source, columns->attnums[i], false)),
			format_type_extended(type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	return list.data;
}

/*
 * SELECT s.* FROM pg_catalog.jsonb_to_record($1) s (a pg_catalog.int8, b app.kind)
 *
 * The types' input functions and the checks of domains are the user's code, so
 * this is run as the owner.  One row of values an identity, in outer.
 */
static Datum **
parse_identities(Run *run, List *identities, const LogColumns *columns, MemoryContext outer)
{
	Migration *m = run->m;
	Oid types[] = {JSONBOID};
	Datum **rows = MemoryContextAlloc(outer, sizeof(Datum *) * list_length(identities));
	SPIPlanPtr plan;
	char *sql;
	int i;
	int j;

	sql = psprintf("SELECT s.* FROM pg_catalog.jsonb_to_record($1) s (%s)",
				   column_definitions(m->source, columns));
	PushActiveSnapshot(GetTransactionSnapshot());
	run_as_owner(run);
	if (SPI_connect() != SPI_OK_CONNECT || (plan = SPI_prepare(sql, 1, types)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not prepare a statement: %s", SPI_result_code_string(SPI_result)),
				 errdetail("The statement is: %s", sql)));
	for (i = 0; i < list_length(identities); i++)
	{
		Datum identity = JsonbPGetDatum((Jsonb *) list_nth(identities, i));

		(void) SPI_execute_plan(plan, &identity, NULL, false, 1);
		rows[i] = MemoryContextAllocZero(outer, sizeof(Datum) * columns->natts);
		for (j = 0; j < columns->nidentity; j++)
		{
			Form_pg_attribute att = TupleDescAttr(SPI_tuptable->tupdesc, j);
			bool isnull;
			Datum value =
				SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, j + 1, &isnull);
			MemoryContext old;

			if (isnull)
				ereport(ERROR, (errcode(ERRCODE_MIGRATION_FAILED_ROWS),
								errmsg("a failed row has no value for column \"%s\"",
									   NameStr(att->attname)),
								errdetail("Its identity is %s.",
										  json_text((Jsonb *) list_nth(identities, i)))));
			old = MemoryContextSwitchTo(outer);
			rows[i][j] = datumCopy(value, att->attbyval, att->attlen);
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_finish();
	run_as_self(run);
	PopActiveSnapshot();
	return rows;
}

int64
failed_rows_relog(Run *run)
{
	List *identities = failed_row_identities(run->m->id);
	LogColumns *columns = palloc0(sizeof(LogColumns));
	ChangeLog *log;
	Datum **rows;
	bool *isnull;
	int i;

	if (identities == NIL)
		return 0;
	changelog_columns(run->m->log, columns);
	rows = parse_identities(run, identities, columns, CurrentMemoryContext);
	isnull = palloc0(sizeof(bool) * columns->natts);
	for (i = columns->nidentity; i < columns->natts; i++)
		isnull[i] = true;

	log = changelog_open(run->m->log);
	for (i = 0; log != NULL && i < list_length(identities); i++)
		changelog_append(log, rows[i], isnull);
	if (log != NULL)
		changelog_close(log);
	return list_length(identities);
}
