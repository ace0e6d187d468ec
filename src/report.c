/*-------------------------------------------------------------------------
 *
 * report.c
 *	  report(): a page about a migration.  What is on it, and how it looks, is in
 *	  sql/70_report.sql.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "arguments.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "debug_point.h"

PG_FUNCTION_INFO_V1(migrate_ext_report);

/*
 * report(migration): an HTML page, for who may see the migration in the views.
 * 42704 if there is none of that name, 42501 for others.
 */
Datum
migrate_ext_report(PG_FUNCTION_ARGS)
{
	Migration *m = catalog_find_visible(argument_text(fcinfo, 0, "migration"));
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};
	List *page;

	ME_DEBUG_POINT("report");
	page = catalog_texts("SELECT p FROM migrate_ext.report_page($1) p WHERE p IS NOT NULL", 1,
						 types, values);
	if (page == NIL) /* forgotten in between */
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(linitial(page)));
}
