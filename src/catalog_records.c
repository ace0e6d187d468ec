/*-------------------------------------------------------------------------
 *
 * catalog_records.c
 *	  What is recorded of migrations beside their rows: truncation marks, the
 *	  drain's place, failed rows, verifications, swaps; see catalog.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "catalog_spi.h"

/* ---- truncation marks ---- */

void
truncation_mark(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};

	(void) catalog_exec("INSERT INTO migrate_ext.truncation (migration) VALUES ($1)", 1, types,
						values, NULL);
}

bool
truncation_pending(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};

	return catalog_exists("SELECT id FROM migrate_ext.truncation WHERE migration = $1 LIMIT 1", 1,
						  types, values);
}

void
truncation_clear(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};

	(void) catalog_exec("DELETE FROM migrate_ext.truncation WHERE migration = $1", 1, types, values,
						NULL);
}

/* ---- the drain's place ---- */

void
drain_place_load(int64 migration_id, DrainPlace *place)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	CatalogCall call = {0};
	Datum v;
	bool isnull;

	memset(place, 0, sizeof(DrainPlace));
	if (catalog_begin(&call,
					  "SELECT done::text, pass::text, pass_xid, pass_n"
					  " FROM migrate_ext.drain WHERE migration = $1",
					  1, types, values, NULL) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		v = catalog_value(&call, 0, 1, &isnull);
		place->done = catalog_text(v, isnull);
		v = catalog_value(&call, 0, 2, &isnull);
		place->pass = catalog_text(v, isnull);
		v = catalog_value(&call, 0, 3, &isnull);
		place->xid = isnull ? 0 : U64FromFullTransactionId(DatumGetFullTransactionId(v));
		v = catalog_value(&call, 0, 4, &isnull);
		place->n = isnull ? 0 : DatumGetInt64(v);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
}

void
drain_place_save(int64 migration_id, const DrainPlace *place)
{
	Oid types[] = {INT8OID, TEXTOID, TEXTOID, XID8OID, INT8OID};
	Datum values[5];
	char nulls[6] = "     ";

	values[0] = Int64GetDatum(migration_id);
	values[1] = place->done ? CStringGetTextDatum(place->done) : (Datum) 0;
	values[2] = place->pass ? CStringGetTextDatum(place->pass) : (Datum) 0;
	values[3] = FullTransactionIdGetDatum(FullTransactionIdFromU64(place->xid));
	values[4] = Int64GetDatum(place->n);
	nulls[1] = place->done ? ' ' : 'n';
	nulls[2] = place->pass ? ' ' : 'n';
	(void) catalog_exec("UPDATE migrate_ext.drain SET done = $2::pg_catalog.pg_snapshot,"
						" pass = $3::pg_catalog.pg_snapshot, pass_xid = $4, pass_n = $5"
						" WHERE migration = $1",
						5, types, values, nulls);
}

void
drain_place_reset(int64 migration_id)
{
	DrainPlace place = {0};

	drain_place_save(migration_id, &place);
}

/* ---- failed rows ---- */

void
failed_row_add(int64 migration_id, Direction direction, Jsonb *identity, int sqlerrcode,
			   const char *message)
{
	Oid types[] = {INT8OID, JSONBOID, BOOLOID, TEXTOID, TEXTOID};
	Datum values[] = {Int64GetDatum(migration_id), JsonbPGetDatum(identity),
					  BoolGetDatum(direction == DIRECTION_REVERSE),
					  CStringGetTextDatum(unpack_sql_state(sqlerrcode)),
					  CStringGetTextDatum(message)};

	(void) catalog_exec(
		"INSERT INTO migrate_ext.failed_row AS f (migration, identity, reverse, sqlstate, message)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (migration, identity) DO UPDATE"
		" SET reverse = excluded.reverse, sqlstate = excluded.sqlstate,"
		" message = excluded.message, attempts = f.attempts + 1,"
		" failed_at = excluded.failed_at",
		5, types, values, NULL);
}

void
failed_row_remove(int64 migration_id, Jsonb *identity)
{
	Oid types[] = {INT8OID, JSONBOID};
	Datum values[] = {Int64GetDatum(migration_id), JsonbPGetDatum(identity)};

	(void) catalog_exec("DELETE FROM migrate_ext.failed_row WHERE migration = $1 AND identity = $2",
						2, types, values, NULL);
}

void
failed_rows_add(int64 migration_id, Jsonb *identities, int sqlerrcode, const char *message)
{
	Oid types[] = {INT8OID, JSONBOID, TEXTOID, TEXTOID};
	Datum values[] = {Int64GetDatum(migration_id), JsonbPGetDatum(identities),
					  CStringGetTextDatum(unpack_sql_state(sqlerrcode)),
					  CStringGetTextDatum(message)};

	(void) catalog_exec(
		"INSERT INTO migrate_ext.failed_row AS f (migration, identity, reverse, sqlstate, message)"
		" SELECT DISTINCT $1, e, false, $3, $4 FROM pg_catalog.jsonb_array_elements($2) e"
		" ON CONFLICT (migration, identity) DO UPDATE SET sqlstate = excluded.sqlstate,"
		" message = excluded.message, attempts = f.attempts + 1, failed_at = excluded.failed_at",
		4, types, values, NULL);
}

int64
failed_rows_among(int64 migration_id, Jsonb *identities)
{
	Oid types[] = {INT8OID, JSONBOID};
	Datum values[] = {Int64GetDatum(migration_id), JsonbPGetDatum(identities)};
	bool isnull;

	return DatumGetInt64(
		catalog_scalar("SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_array_elements($2) e"
					   " JOIN migrate_ext.failed_row f ON f.migration = $1 AND f.identity = e",
					   2, types, values, &isnull));
}

void
failed_rows_forget(int64 migration_id, TimestampTz since)
{
	Oid types[] = {INT8OID, TIMESTAMPTZOID};
	Datum values[] = {Int64GetDatum(migration_id), TimestampTzGetDatum(since)};

	(void) catalog_exec("DELETE FROM migrate_ext.failed_row WHERE migration = $1"
						" AND failed_at < $2",
						2, types, values, NULL);
}

int64
failed_row_count(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	bool isnull;

	return DatumGetInt64(
		catalog_scalar("SELECT count(*) FROM migrate_ext.failed_row WHERE migration = $1", 1, types,
					   values, &isnull));
}

int64
failed_row_due(const Migration *m)
{
	Oid types[] = {INT8OID, BOOLOID};
	Datum values[] = {Int64GetDatum(m->id), BoolGetDatum(m->state == STATE_SWAPPED)};
	bool isnull;

	return DatumGetInt64(catalog_scalar("SELECT count(*) FROM migrate_ext.failed_row"
										" WHERE migration = $1 AND reverse = $2",
										2, types, values, &isnull));
}

List *
failed_row_identities(const Migration *m, bool due)
{
	Oid types[] = {INT8OID, BOOLOID, BOOLOID};
	Datum values[] = {Int64GetDatum(m->id), BoolGetDatum(m->state == STATE_SWAPPED),
					  BoolGetDatum(due)};
	CatalogCall call = {0};
	List *result = NIL;
	uint64 n;
	uint64 i;
	bool isnull;

	n = catalog_begin(&call,
					  "SELECT identity FROM migrate_ext.failed_row WHERE migration = $1"
					  " AND (reverse = $2 OR NOT $3) ORDER BY identity",
					  3, types, values, NULL);
	for (i = 0; i < n; i++)
	{
		Datum v = catalog_value(&call, i, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		result = lappend(result, DatumGetJsonbP(v));
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return result;
}

/* ---- results ---- */

void
verification_add(int64 migration_id, const VerifyCounts *c, bool complete, const int64 *mark)
{
	Oid types[] = {INT8OID, BOOLOID, INT8OID, INT8OID, INT8OID,
				   INT8OID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(migration_id), BoolGetDatum(complete),
					  Int64GetDatum(c->checked),   Int64GetDatum(c->missing),
					  Int64GetDatum(c->extra),	   Int64GetDatum(c->different),
					  Int64GetDatum(c->skipped),   Int64GetDatum(c->failed),
					  Int64GetDatum(c->stale_key), mark ? Int64GetDatum(*mark) : (Datum) 0};

	(void) catalog_exec("INSERT INTO migrate_ext.verification (migration, complete, checked_rows,"
						" missing, extra, different, skipped, failed, stale_key, mark)"
						" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
						10, types, values, mark ? NULL : "         n");
}

bool
verification_has_mark(int64 migration_id, int64 mark)
{
	Oid types[] = {INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(migration_id), Int64GetDatum(mark)};
	bool isnull;
	Datum same;

	same = catalog_scalar("SELECT mark = $2 FROM migrate_ext.verification"
						  " WHERE migration = $1 AND mark IS NOT NULL ORDER BY id DESC LIMIT 1",
						  2, types, values, &isnull);
	return !isnull && DatumGetBool(same);
}

int64
swap_add(int64 migration_id, const char *direction, int attempts, double wait_ms,
		 const char *blockers_json)
{
	Oid types[] = {INT8OID, TEXTOID, INT4OID, FLOAT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(migration_id), CStringGetTextDatum(direction),
					  Int32GetDatum(attempts), Float8GetDatum(wait_ms),
					  CStringGetTextDatum(blockers_json ? blockers_json : "[]")};
	bool isnull;

	return DatumGetInt64(catalog_scalar(
		"INSERT INTO migrate_ext.swap_log (migration, direction, attempts, wait_ms, blockers)"
		" VALUES ($1, $2, $3, $4, $5::jsonb) RETURNING id",
		5, types, values, &isnull));
}

void
swap_save_hold(int64 swap_id, double hold_ms)
{
	Oid types[] = {INT8OID, FLOAT8OID};
	Datum values[] = {Int64GetDatum(swap_id), Float8GetDatum(hold_ms)};

	(void) catalog_exec("UPDATE migrate_ext.swap_log SET hold_ms = $2 WHERE id = $1", 2, types,
						values, NULL);
}
