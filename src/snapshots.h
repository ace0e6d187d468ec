/*-------------------------------------------------------------------------
 *
 * snapshots.h
 *	  Waiting until nobody can look at the target with a snapshot taken before
 *	  the target was complete.
 *
 * m->stable_xid is the last transaction of ours that wrote the target on behalf
 * of others: copied rows, drained rows.  A snapshot that does not see it reads
 * a target with rows missing.  Who holds one is captured ONCE, as a list of
 * virtual transaction ids, and each of them is waited for: everybody who comes
 * later sees the target whole.  A minimum of all xmins, polled until it is high
 * enough, would never be while long transactions overlap.
 *
 * The list is text, "3/1542 7/99", so that it can be kept in the request.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SNAPSHOTS_H
#define MIGRATE_EXT_SNAPSHOTS_H

#include "types.h"

/*
 * Transactions of this database that may hold a snapshot which does not see
 * stable; "" if there is none.  This process is never among them.
 */
extern char *snapshots_capture(FullTransactionId stable);

/* Those of a captured list that may still hold one; "" if none is left. */
extern char *snapshots_remaining(FullTransactionId stable, const char *captured);

/* For a message: "pid 4711 (user bob, idle in transaction, since ..)" */
extern char *snapshots_describe(const char *captured);

/*
 * WAL senders and replication slots through which a standby tells that it reads
 * with an older snapshot; for a message, or NULL.  Needs a transaction.
 */
extern char *snapshots_of_standbys(FullTransactionId stable);

#endif
