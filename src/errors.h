/*-------------------------------------------------------------------------
 *
 * errors.h
 *	  SQLSTATEs of our own, for what the standard ones have no word for.
 *	  Class MX is unused by PostgreSQL and by the SQL standard.  And whose fault
 *	  an error is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_ERRORS_H
#define MIGRATE_EXT_ERRORS_H

#include "utils/elog.h"
#include "utils/palloc.h"
#include "utils/resowner.h"

/* verification found rows that differ */
#define ERRCODE_MIGRATION_NOT_VERIFIED MAKE_SQLSTATE('M', 'X', '0', '0', '1')
/* a deadline passed; nothing has changed */
#define ERRCODE_MIGRATION_TIMEOUT MAKE_SQLSTATE('M', 'X', '0', '0', '2')
/* preflight has errors: something hangs on the table that can't be carried */
#define ERRCODE_MIGRATION_PREFLIGHT MAKE_SQLSTATE('M', 'X', '0', '0', '3')
/* the sync trigger, the columns or the partitions were changed by others */
#define ERRCODE_MIGRATION_TAMPERED MAKE_SQLSTATE('M', 'X', '0', '0', '4')
/* rows stand in failed_rows */
#define ERRCODE_MIGRATION_FAILED_ROWS MAKE_SQLSTATE('M', 'X', '0', '0', '5')
/* internal: the source was rewritten or truncated, the copy must start over */
#define ERRCODE_MIGRATION_RESTART MAKE_SQLSTATE('M', 'X', '0', '0', '6')

typedef enum ErrorKind
{
	ERROR_AGAIN,  /* somebody was in the way: tried again in a moment, and never a row's fault */
	ERROR_SERVER, /* not enough of something, a cancel, a file: the same, but to be told */
	ERROR_OURS,	  /* class MX */
	ERROR_DEFINITION, /* what an expression names is gone or forbidden: all rows', as a rule */
	ERROR_ROW		  /* of the row at hand */
} ErrorKind;

extern ErrorKind error_kind(int sqlerrcode);

/*
 * In PG_CATCH, in a subtransaction that was begun for what failed: roll it back, and
 * go on in this context and with this owner, those of before.  The error, copied there.
 */
extern ErrorData *error_end_subtransaction(MemoryContext context, ResourceOwner owner);

/* Why a row could not be carried over. */
typedef struct RowError
{
	int sqlerrcode;
	char *message;
} RowError;

#endif
