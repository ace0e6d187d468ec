/*-------------------------------------------------------------------------
 *
 * changelog.h
 *	  The change log: a table a migration owns, migrate_ext.log_<id>:
 *
 *		xid xid8, n bigint,			top-level transaction and a number in it
 *		c<attnum> type, ...			identity columns, then the columns the
 *									partition key depends on (a hint of place)
 *		PRIMARY KEY (xid, n)
 *
 *	  Identity columns are NOT NULL, the hint's are not: that tells them apart.
 *	  c<attnum> names the attribute number of the SOURCE.  In state swapped
 *	  the same table takes the identities that reverse sync could not write;
 *	  reverse entries carry values of the same source columns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CHANGELOG_H
#define MIGRATE_EXT_CHANGELOG_H

#include "catalog.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "types.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* Columns of an entry: identity first, then the hint's. */
typedef struct LogColumns
{
	int natts;
	int nidentity;
	AttrNumber attnums[MaxHeapAttributeNumber]; /* of the source */
} LogColumns;

/* Read back from an existing log's column names (no user code is run). */
extern void changelog_columns(Oid log, LogColumns *columns);

/* False if one was dropped, with its type: its attnum is 0. */
extern bool changelog_is_whole(const LogColumns *columns);

/*
 * Create the log of m (as superuser, autovacuum eager, dependent on the
 * extension) and set m->log; or empty the one that is there.
 */
extern void changelog_create(Migration *m);

/* The statements that make it; List of char *.  The caller holds a lock on both tables. */
extern List *changelog_create_sql(Migration *m);
extern void changelog_truncate(Migration *m);
extern void changelog_drop(Migration *m);

/* Are the log's columns still of the source's types?  If not, append nothing. */
extern bool changelog_types_fit(Oid log, Oid source);

/* An open log, to append to. */
typedef struct ChangeLog ChangeLog;
extern ChangeLog *changelog_open(Oid log); /* NULL if the table is gone */
extern void changelog_close(ChangeLog *log);

/*
 * Append one entry; values and isnull as LogColumns says, natts of them.
 * Never waits for anyone, runs no code of a user's.  True now and then, when the
 * log has grown so much that somebody should look whether it is drained.
 */
extern bool changelog_append(ChangeLog *log, Datum *values, bool *isnull);

/* An identity as the jsonb object of failed_rows: columns of relid by name. */
extern Jsonb *changelog_identity(Oid relid, int natts, const AttrNumber *attnums,
								 const Datum *values);

/* ---- reading, changelog_read.c ---- */

typedef struct LogEntry
{
	ItemPointerData tid;
	uint64 xid;
	int64 n;
	Datum *values; /* as LogColumns says */
	bool *isnull;
} LogEntry;

/*
 * Up to max entries that "snapshot" sees, of those that have not been drained
 * as of "place", in the order (xid, n), after the place's position and up to
 * the end of its pass.  Copied to CurrentMemoryContext.  The log is locked by
 * the caller.
 */
extern int changelog_read(Oid log, const DrainPlace *place, Snapshot snapshot, int max,
						  LogEntry **entries);

/*
 * Entries still to be drained, up to limit.  Doesn't look at entries drained
 * already, of which an old snapshot may keep millions from being removed.
 */
extern int64 changelog_pending(Migration *m, int64 limit);

/* The current active snapshot as the text of a pg_snapshot, and its xmax. */
extern char *changelog_snapshot_text(void);
extern uint64 changelog_snapshot_xmax(const char *snapshot);

#endif
