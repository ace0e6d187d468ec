/*-------------------------------------------------------------------------
 *
 * catalog_spi.c
 *	  How statements on the extension's own tables are run; see catalog_spi.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "catalog_spi.h"

/*
 * Run one statement as superuser with arguments; leaves SPI connected, so that
 * the caller can read the result.  catalog_end() closes.
 */
uint64
catalog_begin(CatalogCall *call, const char *sql, int nargs, Oid *types, Datum *values,
			  const char *nulls)
{
	int rc;

	call->outer = CurrentMemoryContext;
	user_switch_superuser(&call->user);
	if (SPI_connect() != SPI_OK_CONNECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not connect to the server programming interface")));
	rc = SPI_execute_with_args(sql, nargs, types, values, nulls, call->read_only, 0);
	if (rc < 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not execute a statement of migrate_ext: %s",
							   SPI_result_code_string(rc)),
						errdetail_internal("%s", sql)));
	return SPI_processed;
}

void
catalog_end(CatalogCall *call)
{
	SPI_finish();
	user_switch_back(&call->user);
	MemoryContextSwitchTo(call->outer);
}

/* A column of a result row; copied to the caller's context where by reference. */
Datum
catalog_value(CatalogCall *call, uint64 row, int column, bool *isnull)
{
	Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
	Form_pg_attribute attr = TupleDescAttr(SPI_tuptable->tupdesc, column - 1);

	if (!*isnull && !attr->attbyval)
	{
		MemoryContext old = MemoryContextSwitchTo(call->outer);

		if (attr->attlen == -1)
			value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
		else
			value = datumCopy(value, false, attr->attlen);
		MemoryContextSwitchTo(old);
	}
	return value;
}

/* A statement that returns nothing; how many rows it touched. */
uint64
catalog_exec(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	CatalogCall call = {0};
	uint64 n = catalog_begin(&call, sql, nargs, types, values, nulls);

	catalog_end(&call);
	return n;
}

/* One value of at most one row; isnull if there is none. */
Datum
catalog_scalar(const char *sql, int nargs, Oid *types, Datum *values, bool *isnull)
{
	CatalogCall call = {0};
	uint64 n = catalog_begin(&call, sql, nargs, types, values, NULL);
	Datum result = (Datum) 0;

	*isnull = true;
	if (n > 0)
		result = catalog_value(&call, 0, 1, isnull);
	catalog_end(&call);
	return result;
}

char *
catalog_text(Datum value, bool isnull)
{
	return isnull ? NULL : TextDatumGetCString(value);
}

/* Does the statement return a row? */
bool
catalog_exists(const char *sql, int nargs, Oid *types, Datum *values)
{
	bool isnull;

	(void) catalog_scalar(sql, nargs, types, values, &isnull);
	return !isnull;
}

/* The first column of all rows, a text that isn't NULL; List of char *. */
List *
catalog_texts(const char *sql, int nargs, Oid *types, Datum *values)
{
	CatalogCall call = {0};
	List *texts = NIL;
	uint64 n = catalog_begin(&call, sql, nargs, types, values, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		bool isnull;
		Datum value = catalog_value(&call, i, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		texts = lappend(texts, TextDatumGetCString(value));
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return texts;
}
