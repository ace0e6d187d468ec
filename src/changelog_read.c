/*-------------------------------------------------------------------------
 *
 * changelog_read.c
 *	  Reading what is to be drained from a change log.
 *
 * Entries become visible when their transaction commits, so not in the order
 * of their keys.  What has been drained is therefore told by a snapshot, the
 * place's "done": every entry of a transaction that it sees as ended is gone.
 * Candidates are those of the transactions that were running then (its xip)
 * and of those that began later (from its xmax on).  A pass, bounded by a
 * snapshot of its own, goes through the candidates in the order of the key;
 * once through, its snapshot becomes the new "done".
 *
 * Entries drained are deleted, but an old snapshot somewhere may keep them from
 * being removed, for days.  Since each read begins at the place and passes over
 * all below "done" but the few transactions of its xip, a dead entry is looked
 * at a bounded number of times.
 *
 * Example: done = 100:105:102.  102 is still running and appends; 103 has
 * committed before and is drained.  A pass with the snapshot 102:110:102 reads
 * 105 .. 109, and becomes done.  When 102 commits, it is in done's xip: the
 * next pass finds it, wherever its id stands.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "changelog.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#define LOG_FIXED_COLUMNS 2

/* A pg_snapshot, read from its text "xmin:xmax:xip,xip". */
typedef struct Candidates
{
	uint64 xmax;
	int nxip;
	uint64 *xip; /* ascending */
} Candidates;

/* A read under way. */
typedef struct Reader
{
	Relation rel;
	Relation index;
	Snapshot snapshot;
	TupleTableSlot *slot;
	int max;
	int count;
	LogEntry *entries; /* NULL: count only */
} Reader;

static void
parse_snapshot(const char *text, Candidates *result)
{
	char *end;

	(void) strtou64(text, &end, 10);
	Assert(*end == ':');
	result->xmax = strtou64(end + 1, &end, 10);
	result->nxip = 0;
	result->xip = palloc(strlen(text) * sizeof(uint64));
	while ((*end == ':' || *end == ',') && end[1] != '\0')
		result->xip[result->nxip++] = strtou64(end + 1, &end, 10);
}

/* pg_current_snapshot() reads the active one. */
char *
changelog_snapshot_text(void)
{
	Datum snapshot;
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	snapshot = pg_current_snapshot(fcinfo);
	return DatumGetCString(DirectFunctionCall1(pg_snapshot_out, snapshot));
}

uint64
changelog_snapshot_xmax(const char *snapshot)
{
	Candidates parsed;

	parse_snapshot(snapshot, &parsed);
	return parsed.xmax;
}

static void
add_entry(Reader *reader)
{
	TupleTableSlot *slot = reader->slot;
	LogEntry *entry;
	int natts;
	int i;

	if (reader->entries == NULL)
	{
		reader->count++;
		return;
	}
	entry = &reader->entries[reader->count++];
	natts = slot->tts_tupleDescriptor->natts - LOG_FIXED_COLUMNS;
	slot_getallattrs(slot);
	entry->tid = slot->tts_tid;
	entry->xid = U64FromFullTransactionId(DatumGetFullTransactionId(slot->tts_values[0]));
	entry->n = DatumGetInt64(slot->tts_values[1]);
	entry->values = palloc(natts * sizeof(Datum));
	entry->isnull = palloc(natts * sizeof(bool));
	for (i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(slot->tts_tupleDescriptor, i + LOG_FIXED_COLUMNS);
		Datum value = slot->tts_values[i + LOG_FIXED_COLUMNS];

		entry->isnull[i] = slot->tts_isnull[i + LOG_FIXED_COLUMNS];
		if (entry->isnull[i])
			entry->values[i] = (Datum) 0;
		else if (att->attlen == -1)
			entry->values[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
		else
			entry->values[i] = datumCopy(value, att->attbyval, att->attlen);
	}
}

/* Read the entries that the keys select, while there is room. */
static void
read_range(Reader *reader, ScanKey keys, int nkeys)
{
	IndexScanDesc scan;

	if (reader->count >= reader->max)
		return;
	scan = index_beginscan(reader->rel, reader->index, reader->snapshot, NULL, nkeys, 0);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (reader->count < reader->max &&
		   index_getnext_slot(scan, ForwardScanDirection, reader->slot))
		add_entry(reader);
	index_endscan(scan);
	CHECK_FOR_INTERRUPTS();
}

static void
xid_key(ScanKey key, StrategyNumber strategy, RegProcedure procedure, uint64 xid)
{
	ScanKeyInit(key, 1, strategy, procedure,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(xid)));
}

/* All entries of a transaction, those after n. */
static void
read_transaction(Reader *reader, uint64 xid, int64 after_n)
{
	ScanKeyData keys[2];

	xid_key(&keys[0], BTEqualStrategyNumber, F_XID8EQ, xid);
	ScanKeyInit(&keys[1], 2, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(after_n));
	read_range(reader, keys, 2);
}

/* All entries of transactions from first on, below end (0: no end). */
static void
read_transactions(Reader *reader, uint64 first, uint64 end)
{
	ScanKeyData keys[2];

	xid_key(&keys[0], BTGreaterEqualStrategyNumber, F_XID8GE, first);
	if (end > 0)
		xid_key(&keys[1], BTLessStrategyNumber, F_XID8LT, end);
	read_range(reader, keys, end > 0 ? 2 : 1);
}

/* Go through the candidates of place, in order. */
static void
read_candidates(Reader *reader, const DrainPlace *place)
{
	Candidates done = {0};
	uint64 position = 0;
	uint64 end = 0;
	uint64 first;
	int i;

	if (place->done)
		parse_snapshot(place->done, &done);
	if (place->pass)
	{
		position = place->xid;
		end = changelog_snapshot_xmax(place->pass);
	}

	for (i = 0; i < done.nxip; i++)
	{
		if (done.xip[i] == position)
			read_transaction(reader, position, place->n);
		else if (done.xip[i] > position)
			read_transaction(reader, done.xip[i], PG_INT64_MIN);
	}
	first = done.xmax;
	if (position >= first && position > 0)
	{
		read_transaction(reader, position, place->n);
		first = position + 1;
	}
	read_transactions(reader, first, end);
}

static void
reader_open(Reader *reader, Oid log, Snapshot snapshot)
{
	List *indexes;

	reader->rel = table_open(log, AccessShareLock);
	indexes = RelationGetIndexList(reader->rel);
	reader->index = index_open(linitial_oid(indexes), AccessShareLock);
	list_free(indexes);
	reader->snapshot = snapshot;
	reader->slot = table_slot_create(reader->rel, NULL);
}

static void
reader_close(Reader *reader)
{
	ExecDropSingleTupleTableSlot(reader->slot);
	index_close(reader->index, NoLock);
	table_close(reader->rel, NoLock);
}

/* See changelog.h. */
int
changelog_read(Oid log, const DrainPlace *place, Snapshot snapshot, int max, LogEntry **entries)
{
	Reader reader = {0};

	reader_open(&reader, log, snapshot);
	reader.max = max;
	reader.entries = *entries = palloc(max * sizeof(LogEntry));
	read_candidates(&reader, place);
	reader_close(&reader);
	return reader.count;
}

/* See changelog.h.  Takes a snapshot of its own. */
int64
changelog_pending(Migration *m, int64 limit)
{
	Reader reader = {0};
	DrainPlace place;

	drain_place_load(m->id, &place);
	place.pass = NULL; /* a pass hides what comes after it */

	/* locked before the snapshot is taken: or a TRUNCATE slips in between */
	LockRelationOid(m->log, AccessShareLock);
	PushActiveSnapshot(GetLatestSnapshot());
	reader_open(&reader, m->log, GetActiveSnapshot());
	reader.max = (int) Min(limit > 0 ? limit : PG_INT32_MAX, PG_INT32_MAX);
	read_candidates(&reader, &place);
	reader_close(&reader);
	PopActiveSnapshot();
	return reader.count;
}
