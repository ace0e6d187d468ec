/*-------------------------------------------------------------------------
 *
 * failed_rows.h
 *	  Rows that could not be carried over: how they are tried once more, and how
 *	  many may be.
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
 * At the end of a transaction that has set rows aside before the migration is live: pause
 * it, with the reason, where there are as many as max_failed_rows.  Locks m's row.
 */
extern void failed_rows_limit(Migration *m);

#endif
