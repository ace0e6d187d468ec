/*-------------------------------------------------------------------------
 *
 * verify_changed.h
 *	  Which ranges may have changed since they were found equal.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_VERIFY_CHANGED_H
#define MIGRATE_EXT_VERIFY_CHANGED_H

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "nodes/pg_list.h"
#include "types.h"

/* A moment: a transaction whose id is "next" or later began after it. */
typedef struct VerifyTime
{
	XLogRecPtr lsn;
	FullTransactionId next;
} VerifyTime;

/*
 * Note the time, before a range's transaction has a transaction id.  verify_as_of()
 * then tells as of when the active snapshot's view can be traced: no block older than
 * that holds a change which it doesn't show.  One moment the caller knows of, besides
 * those that this process has noted.  InvalidXLogRecPtr if a transaction is running
 * that is older than all of them.
 */
extern VerifyTime verify_note_time(void);
extern XLogRecPtr verify_as_of(const VerifyTime *known);

/*
 * Look at the blocks of both tables; of the ranges, a List of VerifyRange *, returns
 * those that may have changed, in order.  A transaction a piece of a table, outside
 * of one; NIL is also the answer for a migration that is gone.  Locks: roots and the
 * table looked at, AccessShareLock.
 */
extern List *verify_changed(Run *run, List *ranges);

#endif
