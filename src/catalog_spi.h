/*-------------------------------------------------------------------------
 *
 * catalog_spi.h
 *	  How catalog*.c, batch.c, event.c and others run statements on the extension's
 *	  own tables: through SPI, as the superuser, in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CATALOG_SPI_H
#define MIGRATE_EXT_CATALOG_SPI_H

#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "run.h"
#include "types.h"

typedef struct CatalogCall
{
	/* set by the caller */
	bool read_only;	  /* use the active snapshot */
	SPIPlanPtr *plan; /* where the statement's plan is kept for the life of the process,
					   * a static variable; or NULL: it is planned anew */

	UserSwitch user;
	MemoryContext outer;
} CatalogCall;

extern uint64 catalog_begin(CatalogCall *call, const char *sql, int nargs, Oid *types,
							Datum *values, const char *nulls);
extern Datum catalog_value(CatalogCall *call, uint64 row, int column, bool *isnull);
/* of any type as text, or NULL */
extern char *catalog_value_text(CatalogCall *call, uint64 row, int column);
extern void catalog_end(CatalogCall *call);
extern uint64 catalog_exec(const char *sql, int nargs, Oid *types, Datum *values,
						   const char *nulls);
extern Datum catalog_scalar(const char *sql, int nargs, Oid *types, Datum *values, bool *isnull);
/* both with a plan that is kept; see CatalogCall */
extern uint64 catalog_exec_kept(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types,
								Datum *values);
extern Datum catalog_scalar_kept(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types,
								 Datum *values, bool *isnull);
extern bool catalog_exists(const char *sql, int nargs, Oid *types, Datum *values);
extern List *catalog_texts(const char *sql, int nargs, Oid *types, Datum *values);
extern List *catalog_texts_kept(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types,
								Datum *values);

/* A column of type text, which may be NULL. */
extern char *catalog_text(Datum value, bool isnull);

#endif
