/*-------------------------------------------------------------------------
 *
 * event.c
 *	  What happened: a row in migrate_ext.event, and the same as JSON on the
 *	  NOTIFY channel migrate_ext, both at the transaction's commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "catalog.h"
#include "catalog_spi.h"

#define EVENT_CHANNEL "migrate_ext"

/*
 * NOTIFY takes payloads of less than 8000 bytes; an event beyond goes without
 * time and detail, and with so much of its message that it fits although a
 * byte of that, or of the migration's name, may be six in JSON.
 */
#define EVENT_PAYLOAD_MAX 7999
#define EVENT_CUT_MESSAGE 1200

void
event_add(Migration *m, const char *kind, const char *detail, const char *fmt, ...)
{
	Oid types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum values[5];
	StringInfoData message;
	bool isnull;
	char *payload;

	initStringInfo(&message);
	for (;;)
	{
		va_list args;
		int needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&message, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}

	values[0] = Int64GetDatum(m->id);
	values[1] = CStringGetTextDatum(kind);
	values[2] = CStringGetTextDatum(message.data);
	values[3] = CStringGetTextDatum(detail ? detail : "{}");
	values[4] = CStringGetTextDatum(m->name);
	payload = TextDatumGetCString(
		catalog_scalar("INSERT INTO migrate_ext.event AS e (migration, kind, message, detail)"
					   " VALUES ($1, $2, $3, $4::jsonb) RETURNING"
					   " pg_catalog.jsonb_build_object('migration', $5, 'at', e.at, 'kind', e.kind,"
					   " 'message', e.message, 'detail', e.detail)::text",
					   5, types, values, &isnull));
	if (strlen(payload) > EVENT_PAYLOAD_MAX)
	{
		values[2] = CStringGetTextDatum(
			pnstrdup(message.data, pg_mbcliplen(message.data, message.len, EVENT_CUT_MESSAGE)));
		payload = TextDatumGetCString(catalog_scalar(
			"SELECT pg_catalog.jsonb_build_object('migration', $5, 'kind', $2, 'message', $3)::text"
			" WHERE $1 IS NOT NULL AND $4 IS NOT NULL",
			5, types, values, &isnull));
	}
	Async_Notify(EVENT_CHANNEL, payload);
}

/* See catalog.h. */
void
event_add_silently(Migration *m, const char *kind, const char *message)
{
	Oid types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum values[] = {Int64GetDatum(m->id), CStringGetTextDatum(kind),
					  CStringGetTextDatum(message)};

	(void) catalog_exec("INSERT INTO migrate_ext.event (migration, kind, message)"
						" VALUES ($1, $2, $3)",
						3, types, values, NULL);
}

List *
event_since(int64 migration_id, int64 after)
{
	Oid types[] = {INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(migration_id), Int64GetDatum(after)};
	CatalogCall call = {0};
	List *result = NIL;
	uint64 n;
	uint64 i;
	bool isnull;

	n = catalog_begin(&call,
					  "SELECT id, kind, message, detail::text FROM migrate_ext.event"
					  " WHERE migration = $1 AND id > $2 ORDER BY id",
					  2, types, values, NULL);
	for (i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);
		Event *event = palloc(sizeof(Event));

		event->id = DatumGetInt64(catalog_value(&call, i, 1, &isnull));
		event->kind = TextDatumGetCString(catalog_value(&call, i, 2, &isnull));
		event->message = TextDatumGetCString(catalog_value(&call, i, 3, &isnull));
		event->detail = TextDatumGetCString(catalog_value(&call, i, 4, &isnull));
		result = lappend(result, event);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return result;
}

/* Was no worker to be had for the last request, and has nothing been done since? */
bool
event_lacks_worker(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	bool isnull;

	return DatumGetBool(
		catalog_scalar("SELECT EXISTS (SELECT FROM migrate_ext.event e WHERE e.migration = $1"
					   " AND e.kind = 'no_worker' AND NOT EXISTS (SELECT FROM migrate_ext.event l"
					   " WHERE l.migration = $1 AND l.id > e.id AND l.kind NOT IN"
					   " ('no_worker', 'goal', 'configured', 'paused', 'resumed', 'undrained')))",
					   1, types, values, &isnull));
}

int64
event_last_id(int64 migration_id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(migration_id)};
	Datum id;
	bool isnull;

	id = catalog_scalar("SELECT max(id) FROM migrate_ext.event WHERE migration = $1", 1, types,
						values, &isnull);
	return isnull ? 0 : DatumGetInt64(id);
}

char *
event_last_detail(int64 migration_id, const char *kind)
{
	Oid types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(migration_id), CStringGetTextDatum(kind)};
	bool isnull;
	Datum detail = catalog_scalar("SELECT detail::text FROM migrate_ext.event"
								  " WHERE migration = $1 AND kind = $2 ORDER BY id DESC LIMIT 1",
								  2, types, values, &isnull);

	return catalog_text(detail, isnull);
}

bool
event_exists(int64 migration_id, const char *kind)
{
	Oid types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(migration_id), CStringGetTextDatum(kind)};

	return catalog_exists("SELECT id FROM migrate_ext.event WHERE migration = $1 AND kind = $2"
						  " LIMIT 1",
						  2, types, values);
}
