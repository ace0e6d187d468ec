/*-------------------------------------------------------------------------
 *
 * catalog_spi.c
 *	  How statements on the extension's own tables are run; see catalog_spi.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"

#include "catalog_spi.h"

static void
fail(int code, const char *sql)
{
	ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
					errmsg("could not execute a statement of migrate_ext: %s",
						   SPI_result_code_string(code)),
					errdetail_internal("%s", sql)));
}

/*
 * A statement that is large, or asked with every piece of work, or while locks are
 * held that everybody waits for, is planned once a process.  What it reads hardly
 * ever makes the plan invalid, and if so it is planned again.
 */
static int
execute_kept(CatalogCall *call, const char *sql, int nargs, Oid *types, Datum *values,
			 const char *nulls)
{
	if (*call->plan == NULL)
	{
		SPIPlanPtr plan = SPI_prepare_cursor(sql, nargs, types, CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL)
			fail(SPI_result, sql);
		SPI_keepplan(plan);
		*call->plan = plan;
	}
	return SPI_execute_plan(*call->plan, values, nulls, call->read_only, 0);
}

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
	Assert(ActiveSnapshotSet());
	if (call->plan != NULL)
		forbid_compiling();
	if (SPI_connect() != SPI_OK_CONNECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not connect to the server programming interface")));
	rc = call->plan != NULL
			 ? execute_kept(call, sql, nargs, types, values, nulls)
			 : SPI_execute_with_args(sql, nargs, types, values, nulls, call->read_only, 0);
	if (rc < 0)
		fail(rc, sql);
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

/* A column of a result row as text, in the caller's memory; or NULL. */
char *
catalog_value_text(CatalogCall *call, uint64 row, int column)
{
	char *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return text != NULL ? MemoryContextStrdup(call->outer, text) : NULL;
}

/* Run a statement; how many rows it touched or returned. */
uint64
catalog_exec(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	CatalogCall call = {0};
	uint64 n = catalog_begin(&call, sql, nargs, types, values, nulls);

	catalog_end(&call);
	return n;
}

/* The same with a plan that is kept; see CatalogCall. */
uint64
catalog_exec_kept(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types, Datum *values)
{
	CatalogCall call = {.plan = plan};
	uint64 n = catalog_begin(&call, sql, nargs, types, values, NULL);

	catalog_end(&call);
	return n;
}

/* One value of at most one row; isnull if there is none. */
Datum
catalog_scalar(const char *sql, int nargs, Oid *types, Datum *values, bool *isnull)
{
	return catalog_scalar_kept(NULL, sql, nargs, types, values, isnull);
}

/* The same with a plan that is kept; see CatalogCall. */
Datum
catalog_scalar_kept(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types, Datum *values,
					bool *isnull)
{
	CatalogCall call = {.plan = plan};
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
	return catalog_exec(sql, nargs, types, values, NULL) > 0;
}

/* The first column of all rows, a text that isn't NULL; List of char *. */
List *
catalog_texts(const char *sql, int nargs, Oid *types, Datum *values)
{
	return catalog_texts_kept(NULL, sql, nargs, types, values);
}

/* The same with a plan that is kept; see CatalogCall. */
List *
catalog_texts_kept(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types, Datum *values)
{
	CatalogCall call = {.plan = plan};
	List *texts = NIL;
	uint64 n = catalog_begin(&call, sql, nargs, types, values, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		char *text = catalog_value_text(&call, i, 1);
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		texts = lappend(texts, text);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return texts;
}
