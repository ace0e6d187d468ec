/*-------------------------------------------------------------------------
 *
 * verify_records.c
 *	  Reads and writes the records of a verification; see verify_records.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "batch.h"
#include "catalog/pg_type.h"
#include "catalog_spi.h"
#include "range_sum.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/xid8.h"
#include "verify_records.h"

static const char *const stage_names[] = {"none", "preparing", "reading", "done"};

/* ------------------------------------------------------------------------
 * The pass
 * ------------------------------------------------------------------------
 */

static VerifyStage
stage_from_name(const char *name)
{
	int stage = VERIFY_DONE;

	while (stage > VERIFY_NONE && strcmp(stage_names[stage], name) != 0)
		stage--;
	return stage;
}

VerifyPass
verify_pass_load(int64 migration_id, bool for_update)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	CatalogCall call = {0};
	VerifyPass pass = {VERIFY_NONE};
	bool isnull;

	if (catalog_begin(&call,
					  psprintf("SELECT requester, background, basis, definition, cut, ended_at,"
							   " stage, state, place, lsn, next_xid FROM migrate_ext.verify_pass"
							   " WHERE migration = $1%s",
							   for_update ? " FOR UPDATE" : ""),
					  1, types, values, NULL) > 0)
	{
		Datum ended_at = catalog_value(&call, 0, 6, &isnull);

		pass.ended_at = isnull ? 0 : DatumGetTimestampTz(ended_at);
		pass.requester = DatumGetInt64(catalog_value(&call, 0, 1, &isnull));
		pass.background = DatumGetBool(catalog_value(&call, 0, 2, &isnull));
		pass.basis = DatumGetInt64(catalog_value(&call, 0, 3, &isnull));
		pass.definition = DatumGetInt64(catalog_value(&call, 0, 4, &isnull));
		pass.cut = DatumGetBool(catalog_value(&call, 0, 5, &isnull));
		pass.stage = stage_from_name(catalog_value_text(&call, 0, 7));
		pass.state = state_from_name(catalog_value_text(&call, 0, 8));
		pass.place = catalog_value_text(&call, 0, 9);
		pass.began.lsn = DatumGetLSN(catalog_value(&call, 0, 10, &isnull));
		pass.began.next = DatumGetFullTransactionId(catalog_value(&call, 0, 11, &isnull));
	}
	catalog_end(&call);
	return pass;
}

void
verify_pass_save(int64 migration_id, const VerifyPass *pass)
{
	Oid types[] = {INT8OID, TEXTOID, INT8OID, BOOLOID, TEXTOID, INT8OID,
				   INT8OID, BOOLOID, LSNOID,  XID8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(migration_id),
					  CStringGetTextDatum(stage_names[pass->stage]),
					  Int64GetDatum(pass->requester),
					  BoolGetDatum(pass->background),
					  CStringGetTextDatum(state_name(pass->state)),
					  Int64GetDatum(pass->basis),
					  Int64GetDatum(pass->definition),
					  BoolGetDatum(pass->cut),
					  LSNGetDatum(pass->began.lsn),
					  FullTransactionIdGetDatum(pass->began.next),
					  pass->place ? CStringGetTextDatum(pass->place) : (Datum) 0};

	(void) catalog_exec(
		"INSERT INTO migrate_ext.verify_pass AS p (migration, stage, requester, background, state,"
		" basis, definition, cut, lsn, next_xid, place)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
		" ON CONFLICT (migration) DO UPDATE SET stage = $2, requester = $3, background = $4,"
		" state = $5, basis = $6, definition = $7, cut = $8, lsn = $9, next_xid = $10, place = $11,"
		" began_at = CASE WHEN p.stage = 'done' THEN pg_catalog.clock_timestamp() ELSE p.began_at END,"
		" ended_at = CASE WHEN $2 = 'done' THEN pg_catalog.clock_timestamp() ELSE p.ended_at END",
		11, types, values, pass->place ? NULL : "          n");
}

bool
verify_pass_has_work(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	bool isnull;
	Datum requester;

	requester = catalog_scalar(
		"SELECT requester FROM migrate_ext.verify_pass WHERE migration = $1 AND stage = 'reading'"
		" AND (NOT cut OR EXISTS (SELECT FROM migrate_ext.verified_range"
		" WHERE migration = $1 AND NOT read))",
		1, types, values, &isnull);
	return !isnull && lease_alive(DatumGetInt64(requester));
}

/* ------------------------------------------------------------------------
 * Ranges
 * ------------------------------------------------------------------------
 */

void
verify_ranges_forget(int64 migration_id, int64 from)
{
	Oid types[] = {INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(migration_id), Int64GetDatum(from)};

	(void) catalog_exec(
		"DELETE FROM migrate_ext.verified_range WHERE migration = $1 AND range >= $2", 2, types,
		values, NULL);
}

void
verify_range_add(int64 migration_id, const char *low, const char *high)
{
	Oid types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum values[] = {Int64GetDatum(migration_id), low ? CStringGetTextDatum(low) : (Datum) 0,
					  high ? CStringGetTextDatum(high) : (Datum) 0};
	char nulls[] = {' ', low ? ' ' : 'n', high ? ' ' : 'n', '\0'};

	(void) catalog_exec("INSERT INTO migrate_ext.verified_range (migration, range, low, high)"
						" SELECT $1, COALESCE(pg_catalog.max(range), 0) + 1, $2, $3"
						" FROM migrate_ext.verified_range WHERE migration = $1",
						3, types, values, nulls);
}

/* Columns "range, low, high" of a result row. */
static void
read_bounds(CatalogCall *call, uint64 row, VerifyRange *range)
{
	bool isnull;

	range->range = DatumGetInt64(catalog_value(call, row, 1, &isnull));
	range->low = catalog_value_text(call, row, 2);
	range->high = catalog_value_text(call, row, 3);
}

bool
verify_range_claim(int64 migration_id, VerifyRange *range)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	CatalogCall call = {0};
	bool found;

	memset(range, 0, sizeof(VerifyRange));
	found = catalog_begin(&call,
						  "SELECT range, low, high FROM migrate_ext.verified_range"
						  " WHERE migration = $1 AND NOT read AND " BATCH_IS_DUE(
							  "tried_at") " ORDER BY range LIMIT 1"
										  " FOR UPDATE SKIP LOCKED",
						  1, types, values, NULL) > 0;
	if (found)
		read_bounds(&call, 0, range);
	catalog_end(&call);
	return found;
}

void
verify_range_postpone(int64 migration_id, int64 range)
{
	Oid types[] = {INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(migration_id), Int64GetDatum(range)};

	(void) catalog_exec("UPDATE migrate_ext.verified_range SET attempts = attempts + 1,"
						" tried_at = pg_catalog.clock_timestamp()"
						" WHERE migration = $1 AND range = $2 AND NOT read",
						2, types, values, NULL);
}

/* {file, first, last, file, ...} */
static Datum
places_array(List *places)
{
	Datum *values = palloc(list_length(places) * 3 * sizeof(Datum));
	int n = 0;
	ListCell *cell;

	foreach (cell, places)
	{
		RangePlace *place = lfirst(cell);

		values[n++] = Int64GetDatum(place->relfilenode);
		values[n++] = Int64GetDatum(place->first);
		values[n++] = Int64GetDatum(place->last);
	}
	return PointerGetDatum(
		construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static List *
places_of_array(Datum array)
{
	List *places = NIL;
	Datum *values;
	int n;

	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &values, NULL, &n);
	for (int i = 0; i + 2 < n; i += 3)
	{
		RangePlace *place = palloc(sizeof(RangePlace));

		place->relfilenode = (Oid) DatumGetInt64(values[i]);
		place->first = (BlockNumber) DatumGetInt64(values[i + 1]);
		place->last = (BlockNumber) DatumGetInt64(values[i + 2]);
		places = lappend(places, place);
	}
	return places;
}

void
verify_range_save(int64 migration_id, const VerifyRange *range)
{
	const VerifyCounts *c = &range->counts;
	bool traced = range->as_of != InvalidXLogRecPtr;
	Oid types[] = {INT8OID, INT8OID, INT8OID,	INT8OID, INT8OID,	  INT8OID,
				   INT8OID, INT8OID, FLOAT8OID, LSNOID,	 INT8ARRAYOID};
	Datum values[] = {
		Int64GetDatum(migration_id), Int64GetDatum(range->range), Int64GetDatum(c->checked),
		Int64GetDatum(c->missing),	 Int64GetDatum(c->extra),	  Int64GetDatum(c->different),
		Int64GetDatum(c->skipped),	 Int64GetDatum(c->stale_key), Float8GetDatum(range->took_ms),
		LSNGetDatum(range->as_of),	 places_array(range->places)};

	(void) catalog_exec(
		"UPDATE migrate_ext.verified_range SET read = true, attempts = 0, rows = $3, missing = $4,"
		" extra = $5, different = $6, skipped = $7, stale_key = $8, took_ms = $9,"
		" as_of = $10, places = $11, read_at = pg_catalog.clock_timestamp()"
		" WHERE migration = $1 AND range = $2",
		11, types, values, traced ? NULL : "         nn");
}

List *
verify_ranges(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	CatalogCall call = {0};
	List *ranges = NIL;
	uint64 n = catalog_begin(&call,
							 "SELECT range, low, high, as_of, places"
							 " FROM migrate_ext.verified_range WHERE migration = $1 ORDER BY range",
							 1, types, values, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		VerifyRange *range = MemoryContextAllocZero(call.outer, sizeof(VerifyRange));
		bool isnull;
		Datum as_of = catalog_value(&call, i, 4, &isnull);
		MemoryContext old;

		read_bounds(&call, i, range);
		range->as_of = isnull ? InvalidXLogRecPtr : DatumGetLSN(as_of);
		as_of = catalog_value(&call, i, 5, &isnull);
		old = MemoryContextSwitchTo(call.outer);
		range->places = isnull ? NIL : places_of_array(as_of);
		ranges = lappend(ranges, range);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return ranges;
}

void
verify_ranges_reopen(int64 migration_id, List *ranges)
{
	Datum *numbers = palloc(list_length(ranges) * sizeof(Datum));
	Oid types[] = {INT8OID, INT8ARRAYOID};
	Datum values[] = {Int64GetDatum(migration_id), (Datum) 0};
	ListCell *cell;

	foreach (cell, ranges)
		numbers[foreach_current_index (cell)] =
			Int64GetDatum(((VerifyRange *) lfirst(cell))->range);
	values[1] = PointerGetDatum(construct_array(numbers, list_length(ranges), INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	(void) catalog_exec("UPDATE migrate_ext.verified_range SET read = NOT range = ANY ($2)"
						" WHERE migration = $1 AND read = (range = ANY ($2))",
						2, types, values, NULL);
}

bool
verify_ranges_sum(int64 migration_id, VerifyCounts *counts)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	CatalogCall call = {0};
	int64 sums[6] = {0};
	bool complete;
	bool isnull;

	/* one snapshot: a range that is read, or cut, in between would be left out of the sum */
	(void) catalog_begin(
		&call,
		"SELECT COALESCE(pg_catalog.sum(rows), 0)::bigint,"
		" COALESCE(pg_catalog.sum(missing), 0)::bigint,"
		" COALESCE(pg_catalog.sum(extra), 0)::bigint,"
		" COALESCE(pg_catalog.sum(different), 0)::bigint,"
		" COALESCE(pg_catalog.sum(skipped), 0)::bigint,"
		" COALESCE(pg_catalog.sum(stale_key), 0)::bigint,"
		" COALESCE((SELECT cut FROM migrate_ext.verify_pass WHERE migration = $1), false)"
		" AND NOT EXISTS (SELECT FROM migrate_ext.verified_range"
		"  WHERE migration = $1 AND NOT read)"
		" FROM migrate_ext.verified_range WHERE migration = $1 AND read",
		1, types, values, NULL);
	for (int i = 0; i < lengthof(sums); i++)
		sums[i] = DatumGetInt64(catalog_value(&call, 0, i + 1, &isnull));
	complete = DatumGetBool(catalog_value(&call, 0, lengthof(sums) + 1, &isnull));
	catalog_end(&call);
	counts->checked = sums[0];
	counts->missing = sums[1];
	counts->extra = sums[2];
	counts->different = sums[3];
	counts->skipped = sums[4];
	counts->stale_key = sums[5];
	return complete;
}

bool
verify_ranges_unread(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};

	return catalog_exists("SELECT FROM migrate_ext.verified_range WHERE migration = $1 AND NOT read"
						  " LIMIT 1",
						  1, types, values);
}

int64
verify_ranges_count(int64 migration_id, int64 *read)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	CatalogCall call = {0};
	int64 count;
	bool isnull;

	(void) catalog_begin(&call,
						 "SELECT pg_catalog.count(*),"
						 " pg_catalog.count(*) FILTER (WHERE r.read_at >= p.began_at)"
						 " FROM migrate_ext.verified_range r JOIN migrate_ext.verify_pass p"
						 " USING (migration) WHERE migration = $1",
						 1, types, values, NULL);
	count = DatumGetInt64(catalog_value(&call, 0, 1, &isnull));
	*read = DatumGetInt64(catalog_value(&call, 0, 2, &isnull));
	catalog_end(&call);
	return count;
}
