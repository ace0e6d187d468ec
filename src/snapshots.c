/*-------------------------------------------------------------------------
 *
 * snapshots.c
 *	  Waiting for older snapshots; see snapshots.h.
 *
 * Why a capture is complete.  Stable committed before it, and a commit takes
 * ProcArrayLock exclusively.  Who takes a snapshot after that sees stable.  Who
 * took one before shows an xmin no later than stable in the process array by
 * the time we look: xmin is set under ProcArrayLock, which we hold too.  So
 * every older snapshot belongs to a transaction whose xmin is set and does not
 * follow stable.  The reverse isn't true: a snapshot's xmin is the oldest
 * transaction that ran then, and one that has been running since before stable
 * holds down the xmin of everybody who comes after.  Such transactions are
 * waited for without need, but each only once, since the list never grows.
 *
 * One way around it remains, as for CREATE INDEX CONCURRENTLY: a transaction on
 * the list exports its snapshot, and another one, which isn't, imports it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"

#include "catalog_spi.h"
#include "compat.h"
#include "snapshots.h"

/*
 * Vacuum reads no rows for anybody.  (A manual ANALYZE may stand in a
 * transaction that reads on afterwards.)
 */
#define HARMLESS (PROC_IS_AUTOVACUUM | PROC_IN_VACUUM | PROC_IN_SAFE_IC)

/*
 * 32-bit transaction ids can be compared within 2^31 of each other.  Half of
 * that after stable nobody's snapshot can be that old any more: PostgreSQL
 * itself stops a long time before.
 */
#define COMPARABLE_XIDS (UINT64CONST(1) << 30)

static bool
long_ago(FullTransactionId stable)
{
	uint64 next = U64FromFullTransactionId(ReadNextFullTransactionId());

	return !FullTransactionIdIsValid(stable) ||
		   next - U64FromFullTransactionId(stable) > COMPARABLE_XIDS;
}

/* Virtual transactions that hold a snapshot whose xmin does not follow stable. */
static VirtualTransactionId *
holders(FullTransactionId stable, int *n)
{
	*n = 0;
	if (long_ago(stable))
		return NULL;
	return GetCurrentVirtualXIDs(XidFromFullTransactionId(stable), true, false, HARMLESS, n);
}

static void
append_vxid(StringInfo list, VirtualTransactionId vxid)
{
	appendStringInfo(list, "%s%d/%u", list->len > 0 ? " " : "", vxid.procNumber,
					 vxid.localTransactionId);
}

char *
snapshots_capture(FullTransactionId stable)
{
	StringInfoData list;
	int n;
	VirtualTransactionId *vxids = holders(stable, &n);
	int i;

	initStringInfo(&list);
	for (i = 0; i < n; i++)
		append_vxid(&list, vxids[i]);
	return list.data;
}

/*
 * A transaction is gone from the holders when it has ended, and also when it
 * goes on without a snapshot or with a new one: READ COMMITTED between two
 * statements.
 */
char *
snapshots_remaining(FullTransactionId stable, const char *captured)
{
	StringInfoData list;
	int n;
	VirtualTransactionId *vxids = holders(stable, &n);
	const char *place = captured;
	VirtualTransactionId vxid;
	int length;
	int i;

	initStringInfo(&list);
	while (sscanf(place, " %d/%u%n", &vxid.procNumber, &vxid.localTransactionId, &length) == 2)
	{
		place += length;
		for (i = 0; i < n; i++)
			if (VirtualTransactionIdEquals(vxids[i], vxid))
				append_vxid(&list, vxid);
	}
	return list.data;
}

char *
snapshots_describe(const char *captured)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(captured)};
	bool isnull;
	Datum names;

	names = catalog_scalar(
		"SELECT pg_catalog.string_agg('pid ' || l.pid || pg_catalog.concat(' (',"
		" pg_catalog.concat_ws(', ', 'user ' || a.usename, a.state,"
		" 'since ' || pg_catalog.to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS')), ')'), ', '"
		" ORDER BY a.xact_start) FROM pg_catalog.pg_locks l"
		" LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
		" WHERE l.locktype = 'virtualxid' AND l.granted AND l.virtualxid = l.virtualtransaction"
		" AND l.virtualxid = ANY (pg_catalog.string_to_array($1, ' '))",
		1, types, values, &isnull);
	return isnull ? pstrdup("transactions that have just ended") : TextDatumGetCString(names);
}

/*
 * A standby reports only the minimum of its snapshots, so here nothing is left
 * but to wait until that is high enough.
 */
char *
snapshots_of_standbys(FullTransactionId stable)
{
	Oid types[] = {XIDOID};
	Datum values[] = {TransactionIdGetDatum(XidFromFullTransactionId(stable))};
	bool isnull;
	Datum names;

	if (long_ago(stable))
		return NULL;
	names = catalog_scalar("SELECT pg_catalog.string_agg(what, ', ') FROM ("
						   "SELECT 'WAL sender with pid ' || pid AS what, backend_xmin AS xmin"
						   " FROM pg_catalog.pg_stat_replication WHERE backend_xmin IS NOT NULL"
						   " UNION ALL SELECT 'replication slot ' || slot_name, xmin"
						   " FROM pg_catalog.pg_replication_slots WHERE xmin IS NOT NULL) x"
						   " WHERE pg_catalog.age(x.xmin) >= pg_catalog.age($1)",
						   1, types, values, &isnull);
	return isnull ? NULL : TextDatumGetCString(names);
}
