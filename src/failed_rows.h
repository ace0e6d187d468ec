/*-------------------------------------------------------------------------
 *
 * failed_rows.h
 *	  Rows that could not be carried over: which errors are theirs, and how they
 *	  are tried once more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_FAILED_ROWS_H
#define MIGRATE_EXT_FAILED_ROWS_H

#include "types.h"

/*
 * Put the identities of the failed rows that are due (catalog.h) back into the
 * change log, in the current transaction; the drain then tries them
 * again.  One that the source's types can't hold stays failed.  Returns how many.
 * Locks the log (RowExclusiveLock).  Caller: superuser.
 */
extern int64 failed_rows_relog(Migration *m);

/*
 * Is this the fault of a row's values?  Conversions, constraints, and what an
 * owner's function may raise.
 */
extern bool failed_rows_is_data_error(int sqlerrcode);

#endif
