/*-------------------------------------------------------------------------
 *
 * blockers.c
 *	  Who stands in the way of an exclusive lock on a migration's tables; see
 *	  blockers.h.
 *
 * An attempt that failed has let go of its place in the queue, so whoever holds
 * a lock when we look need not have been in the way: of a busy table's many
 * short transactions there is always one.  Those in the way are the ones that
 * began before the attempt did and are still there.
 *
 * What is told of other sessions goes to the migration's owner: who, since when
 * and in which state, but never the text of a query, which only pg_monitor may
 * read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "blockers.h"
#include "catalog_spi.h"

/* As many as a message or an event should name. */
#define MAX_NAMED "20"

/*
 * Holders of locks on the two tables ($1 source, $2 target) in transactions
 * that began before $3 (all of them where it is NULL), one row a transaction
 * with its strongest lock.  Every lock there is conflicts with a swap's; of the tables
 * that foreign keys point at, which a swap locks too, those of writers.  A prepared
 * transaction has no process; which one it is, its lock on its own id tells.
 */
#define HOLDERS                                                                                 \
	"SELECT DISTINCT ON (l.virtualtransaction)"                                                 \
	" l.pid, p.gid, l.mode, l.relation::pg_catalog.regclass AS relation,"                       \
	" COALESCE(a.usename, p.owner) AS usename, a.usesysid, a.application_name, a.backend_type," \
	" a.state, COALESCE(a.xact_start, p.prepared) AS xact_start, a.query_start, a.query"        \
	" FROM pg_catalog.pg_locks l"                                                               \
	" LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"                                 \
	" LEFT JOIN pg_catalog.pg_locks x ON l.pid IS NULL AND x.pid IS NULL"                       \
	"  AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction"        \
	" LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid"              \
	" WHERE l.locktype = 'relation' AND l.granted AND (l.relation IN ($1, $2)"                  \
	"  OR l.mode NOT IN ('AccessShareLock', 'RowShareLock') AND l.relation IN ("                \
	"   SELECT k.confrelid FROM pg_catalog.pg_constraint k"                                     \
	"   WHERE k.contype = 'f' AND k.conrelid IN ($1, $2)))"                                     \
	" AND l.database = (SELECT oid FROM pg_catalog.pg_database"                                 \
	"  WHERE datname = pg_catalog.current_database())"                                          \
	" AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()"                                   \
	" AND ($3 IS NULL OR COALESCE(a.xact_start, p.prepared) <= $3)"                             \
	" ORDER BY l.virtualtransaction, pg_catalog.array_position(ARRAY['AccessShareLock',"        \
	"  'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock',"            \
	"  'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'], l.mode) DESC"

#define TOLD                                                                                     \
	"SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object("    \
	"'pid', pid, 'prepared', gid, 'user', usename, 'application', application_name,"             \
	" 'backend', backend_type, 'state', state, 'transaction_start', xact_start,"                 \
	" 'query_start', query_start, 'lock', mode, 'table', relation::text)) ORDER BY xact_start)," \
	" pg_catalog.string_agg(COALESCE('pid ' || pid, 'prepared transaction ' || gid)"             \
	"  || pg_catalog.concat(' (', pg_catalog.concat_ws(', ', 'user ' || usename,"                \
	"   NULLIF(backend_type, 'client backend'), state, mode,"                                    \
	"   'since ' || pg_catalog.to_char(xact_start, 'YYYY-MM-DD HH24:MI:SS')), ')'),"             \
	"  ', ' ORDER BY xact_start)"

static Blockers *
find(const Migration *m, TimestampTz since, const char *condition)
{
	Oid types[] = {OIDOID, OIDOID, TIMESTAMPTZOID};
	Datum values[] = {ObjectIdGetDatum(m->source), ObjectIdGetDatum(m->target),
					  TimestampTzGetDatum(since)};
	CatalogCall call = {0};
	Blockers *blockers = NULL;
	Datum json;
	Datum names;
	bool isnull;

	(void) catalog_begin(&call,
						 psprintf(TOLD " FROM (SELECT * FROM (" HOLDERS
									   ") h WHERE %s LIMIT " MAX_NAMED ") b",
								  condition),
						 3, types, values, since == 0 ? "  n" : NULL);
	json = catalog_value(&call, 0, 1, &isnull);
	names = isnull ? (Datum) 0 : catalog_value(&call, 0, 2, &isnull);
	catalog_end(&call);
	if (names != (Datum) 0)
	{
		blockers = palloc(sizeof(Blockers));
		blockers->json =
			JsonbToCString(NULL, &DatumGetJsonbP(json)->root, VARSIZE(DatumGetPointer(json)));
		blockers->text = TextDatumGetCString(names);
	}
	return blockers;
}

Blockers *
blockers_find(const Migration *m, TimestampTz since)
{
	return find(m, since, "true");
}

Blockers *
blockers_of_writers(const Migration *m, TimestampTz since)
{
	return find(m, since, "h.mode NOT IN ('AccessShareLock', 'RowShareLock')");
}

Blockers *
blockers_of_table(Oid relid, TimestampTz since)
{
	Migration none = {.source = relid};

	return find(&none, since, "h.relation = $1");
}

Blockers *
blockers_prepared(const Migration *m)
{
	return find(m, 0, "h.pid IS NULL");
}

/*
 * Signalled are processes that the owner could signal himself by
 * pg_terminate_backend(): the request runs with our rights, not with more than
 * the owner's.
 */
int64
blockers_signal(const Migration *m, TimestampTz since, bool terminate)
{
	Oid types[] = {OIDOID, OIDOID, TIMESTAMPTZOID, OIDOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(m->source), ObjectIdGetDatum(m->target),
					  TimestampTzGetDatum(since), ObjectIdGetDatum(m->owner),
					  BoolGetDatum(terminate)};
	bool isnull;

	return DatumGetInt64(catalog_scalar(
		"SELECT pg_catalog.count(*) FROM (SELECT CASE WHEN $5"
		"  THEN pg_catalog.pg_terminate_backend(pid) ELSE pg_catalog.pg_cancel_backend(pid) END"
		" AS sent FROM (SELECT * FROM (" HOLDERS ") h OFFSET 0) h"
		" JOIN pg_catalog.pg_roles o ON o.oid = $4"
		" LEFT JOIN pg_catalog.pg_roles b ON b.oid = h.usesysid"
		" WHERE h.pid IS NOT NULL AND h.backend_type <> 'walsender'"
		" AND h.backend_type NOT LIKE 'migrate_ext%'"
		" AND NOT (h.backend_type = 'autovacuum worker'"
		"  AND h.query LIKE '%(to prevent wraparound)%')"
		" AND (o.rolsuper OR (b.oid IS NOT NULL AND NOT b.rolsuper"
		"  AND (pg_catalog.pg_has_role(o.oid, b.oid, 'USAGE')"
		"   OR pg_catalog.pg_has_role(o.oid, 'pg_signal_backend', 'USAGE'))))"
		" OFFSET 0) s WHERE s.sent",
		5, types, values, &isnull));
}

char *
blockers_merge(const char *a, const char *b)
{
	Oid types[] = {TEXTOID, TEXTOID};
	Datum values[] = {CStringGetTextDatum(a ? a : "[]"), CStringGetTextDatum(b)};
	bool isnull;
	Datum merged;

	merged = catalog_scalar(
		"SELECT pg_catalog.jsonb_agg(e ORDER BY n)::text FROM (SELECT DISTINCT ON"
		" (e->'pid', e->'prepared', e->'transaction_start') e, n"
		" FROM pg_catalog.jsonb_array_elements($1::pg_catalog.jsonb || $2::pg_catalog.jsonb)"
		" WITH ORDINALITY AS j (e, n)"
		" ORDER BY e->'pid', e->'prepared', e->'transaction_start', n LIMIT " MAX_NAMED ") d",
		2, types, values, &isnull);
	return isnull ? pstrdup("[]") : TextDatumGetCString(merged);
}
