/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  The migrations' rows; what else is recorded of them is in
 *	  catalog_records.c.
 *
 * Every function runs one statement or two through SPI as the superuser, in
 * the caller's transaction, and leaves user and settings as they were.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "catalog_spi.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "version.h"

static const char *const state_names[NUM_STATES] = {
	[STATE_CREATED] = "created",		 [STATE_LOGGING] = "logging",
	[STATE_COPYING] = "copying",		 [STATE_INDEXING] = "indexing",
	[STATE_CATCHING_UP] = "catching_up", [STATE_LIVE] = "live",
	[STATE_SWAPPED] = "swapped",		 [STATE_COMPLETED] = "completed",
	[STATE_CANCELLED] = "cancelled",
};

const char *
state_name(MigrationState state)
{
	return state_names[state];
}

MigrationState
state_from_name(const char *name)
{
	int i;

	for (i = 0; i < NUM_STATES; i++)
		if (strcmp(state_names[i], name) == 0)
			return (MigrationState) i;
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized state \"%s\"", name),
		 errhint(
			 "States are created, logging, copying, indexing, catching_up, live, swapped, completed and cancelled.")));
	return STATE_CREATED; /* keep compiler quiet */
}

#define MIGRATION_COLUMNS                                                                      \
	"id, name, kind, schema_name, table_name, source::oid, target::oid, log::oid, "            \
	"(SELECT relowner FROM pg_catalog.pg_class WHERE oid = m.source), state, goal, paused, "   \
	"pause_reason, last_error, options, settings, request, definition, made_target, epoch, "   \
	"horizon, end_block, relfilenode, trigger_oid, trigger_xmin, source_shape, target_shape, " \
	"stable_xid, live_at, swapped_at, analyzed_at, verified_at, tainted, needs_mending"

/* Turn a result row of MIGRATION_COLUMNS into a Migration. */
static Migration *
migration_from_row(CatalogCall *call, uint64 row)
{
	Migration *m = MemoryContextAllocZero(call->outer, sizeof(Migration));
	MemoryContext old = MemoryContextSwitchTo(call->outer);
	Datum v[34];
	bool nul[34];
	int i;

	for (i = 0; i < lengthof(v); i++)
		v[i] = catalog_value(call, row, i + 1, &nul[i]);

#define OR_ZERO(n, convert) (nul[n] ? 0 : convert(v[n]))
	m->id = DatumGetInt64(v[0]);
	m->name = TextDatumGetCString(v[1]);
	m->kind = TextDatumGetCString(v[2]);
	m->schema_name = TextDatumGetCString(v[3]);
	m->table_name = TextDatumGetCString(v[4]);
	m->source = DatumGetObjectId(v[5]);
	m->target = OR_ZERO(6, DatumGetObjectId);
	m->log = OR_ZERO(7, DatumGetObjectId);
	m->owner = OR_ZERO(8, DatumGetObjectId);
	m->state = state_from_name(TextDatumGetCString(v[9]));
	m->goal = state_from_name(TextDatumGetCString(v[10]));
	m->paused = DatumGetBool(v[11]);
	m->pause_reason = catalog_text(v[12], nul[12]);
	m->last_error = catalog_text(v[13], nul[13]);
	m->options = DatumGetJsonbP(v[14]);
	m->settings = DatumGetJsonbP(v[15]);
	m->request = nul[16] ? NULL : DatumGetJsonbP(v[16]);
	m->definition = DatumGetJsonbP(v[17]);
	m->made_target = DatumGetBool(v[18]);
	m->epoch = DatumGetInt32(v[19]);
	m->horizon = nul[20] ? InvalidFullTransactionId : DatumGetFullTransactionId(v[20]);
	m->end_block = (BlockNumber) OR_ZERO(21, DatumGetInt64);
	m->relfilenode = OR_ZERO(22, DatumGetObjectId);
	m->trigger_oid = OR_ZERO(23, DatumGetObjectId);
	m->trigger_xmin = OR_ZERO(24, DatumGetTransactionId);
	m->source_shape = catalog_text(v[25], nul[25]);
	m->target_shape = catalog_text(v[26], nul[26]);
	m->stable_xid = nul[27] ? InvalidFullTransactionId : DatumGetFullTransactionId(v[27]);
	m->live_at = OR_ZERO(28, DatumGetTimestampTz);
	m->swapped_at = OR_ZERO(29, DatumGetTimestampTz);
	m->analyzed_at = OR_ZERO(30, DatumGetTimestampTz);
	m->verified_at = OR_ZERO(31, DatumGetTimestampTz);
	m->tainted = DatumGetBool(v[32]);
	m->needs_mending = DatumGetBool(v[33]);
#undef OR_ZERO
	MemoryContextSwitchTo(old);
	return m;
}

/*
 * NO KEY UPDATE: the foreign keys of batches and the like take KEY SHARE on the
 * row until their transaction ends, and nobody who steers waits for that.
 */
static Migration *
load(SPIPlanPtr *plan, const char *condition, Oid type, Datum key, bool for_update, bool read_only)
{
	CatalogCall call = {.plan = plan, .read_only = read_only};
	Migration *m = NULL;
	char *sql = psprintf("SELECT " MIGRATION_COLUMNS " FROM migrate_ext.migration m WHERE %s%s",
						 condition, for_update ? " FOR NO KEY UPDATE OF m" : "");

	if (catalog_begin(&call, sql, 1, &type, &key, NULL) > 0)
		m = migration_from_row(&call, 0);
	catalog_end(&call);
	return m;
}

Migration *
catalog_load(int64 id, bool for_update)
{
	static SPIPlanPtr plan = NULL; /* each step of a worker begins with it */

	return load(for_update ? NULL : &plan, "m.id = $1", INT8OID, Int64GetDatum(id), for_update,
				false);
}

/*
 * For triggers: the writer's own snapshot may be older than the migration, so
 * look with a new one.
 */
Migration *
catalog_load_latest(int64 id)
{
	Migration *m;

	PushActiveSnapshot(GetLatestSnapshot());
	m = load(NULL, "m.id = $1", INT8OID, Int64GetDatum(id), false, true);
	PopActiveSnapshot();
	return m;
}

Migration *
catalog_of_table(Oid relid)
{
	return load(NULL,
				"(m.source = $1 OR m.target = $1) AND m.kind = 'partition'"
				" AND m.state NOT IN ('completed', 'cancelled')",
				OIDOID, ObjectIdGetDatum(relid), false, false);
}

List *
catalog_key_migrations(Oid source)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(source)};
	CatalogCall call = {0};
	List *result = NIL;
	uint64 n;

	n = catalog_begin(&call,
					  "SELECT " MIGRATION_COLUMNS " FROM migrate_ext.migration m"
					  " WHERE m.source = $1 AND m.kind = 'key'"
					  " AND m.state NOT IN ('completed', 'cancelled') ORDER BY id",
					  1, types, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Migration *m = migration_from_row(&call, i);
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		result = lappend(result, m);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return result;
}

bool
migration_is_key(const Migration *m)
{
	return strcmp(m->kind, "key") == 0;
}

void
migration_require_target(const Migration *m, const char *call)
{
	if (!migration_is_key(m))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s needs a migration to a partitioned table", call),
			 errdetail("Migration \"%s\" fills a column in place: it has no target.", m->name),
			 errhint("It is begun by migrate_ext.start, and ended by CALL migrate_ext.finalize or "
					 "CALL migrate_ext.cancel.")));
}

void
migration_require_unfinished(const Migration *m)
{
	if (m->state >= STATE_COMPLETED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration \"%s\" is %s", m->name, state_name(m->state)),
				 errhint("Make a new migration, or remove this record with migrate_ext.forget.")));
	if (m->goal == STATE_CANCELLED)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is being cancelled", m->name)));
}

bool
migration_is_idle(const Migration *m)
{
	if (m->state >= STATE_COMPLETED)
		return true;
	return m->state == m->goal &&
		   (m->state == STATE_CREATED || (migration_is_key(m) && m->state == STATE_LIVE));
}

Oid
migration_owner(const Migration *m)
{
	char *first;

	if (OidIsValid(m->owner))
		return m->owner;
	first = migration_is_key(m) ? json_field(m->options, "owner") : NULL;
	return first != NULL ? (Oid) strtoul(first, NULL, 10) : relinfo_owner(m->target);
}

static bool
is_callers(Migration *m)
{
	Oid owner = migration_owner(m);

	return OidIsValid(owner) ? has_privs_of_role(GetUserId(), owner) : superuser();
}

/* The same condition as the views'. */
bool
catalog_is_visible(const Migration *m)
{
	Oid owner = migration_owner(m);

	return is_member_of_role(GetUserId(), ROLE_PG_MONITOR) ||
		   (OidIsValid(owner) && is_member_of_role(GetUserId(), owner));
}

static Migration *
find(const char *name, bool for_update)
{
	Migration *m = load(NULL, "m.name = $1", TEXTOID, CStringGetTextDatum(name), for_update, false);

	if (m == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("migration \"%s\" does not exist", name),
				 errhint("The view migrate_ext.migrations lists those there are.")));
	return m;
}

static void
deny(const Migration *m, const char *others)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		 errmsg("permission denied for migration \"%s\"", m->name),
		 errdetail("Only the owner of the table %s.%s, or a member of that role%s, may do this.",
				   quote_identifier(m->schema_name), quote_identifier(m->table_name), others)));
}

/* A migration for a caller: it must exist and be the caller's. */
Migration *
catalog_find(const char *name, bool for_update)
{
	Migration *m = find(name, for_update);

	if (!is_callers(m))
		deny(m, "");
	version_require();
	return m;
}

Migration *
catalog_find_visible(const char *name)
{
	Migration *m = find(name, false);

	if (!catalog_is_visible(m))
		deny(m, " or of pg_monitor");
	return m;
}

/* The unfinished migration of this name, or NULL; asks nothing of the caller. */
Migration *
catalog_unfinished_named(const char *name)
{
	return load(NULL, "m.name = $1 AND m.state NOT IN ('completed', 'cancelled')", TEXTOID,
				CStringGetTextDatum(name), false, false);
}

List *
catalog_unfinished(void)
{
	CatalogCall call = {0};
	List *result = NIL;
	uint64 n;
	uint64 i;
	bool isnull;

	n = catalog_begin(&call,
					  "SELECT id FROM migrate_ext.migration "
					  "WHERE state NOT IN ('completed', 'cancelled')"
					  " AND NOT (state = 'created' AND goal = 'created')"
					  " AND NOT (kind = 'key' AND state = 'live' AND goal = 'live') ORDER BY id",
					  0, NULL, NULL, NULL);
	for (i = 0; i < n; i++)
	{
		MemoryContext old;
		int64 *id;

		old = MemoryContextSwitchTo(call.outer);
		id = palloc(sizeof(int64));
		*id = DatumGetInt64(catalog_value(&call, i, 1, &isnull));
		result = lappend(result, id);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return result;
}

static void
insert_rows(Migration *m)
{
	Oid types[] = {TEXTOID, TEXTOID, TEXTOID,  TEXTOID,	 OIDOID,
				   OIDOID,	TEXTOID, JSONBOID, JSONBOID, BOOLOID};
	Datum values[10];
	bool isnull;

	values[0] = CStringGetTextDatum(m->name);
	values[1] = CStringGetTextDatum(m->kind);
	values[2] = CStringGetTextDatum(m->schema_name);
	values[3] = CStringGetTextDatum(m->table_name);
	values[4] = ObjectIdGetDatum(m->source);
	values[5] = ObjectIdGetDatum(m->target);
	values[6] = CStringGetTextDatum(state_name(m->state));
	values[7] = JsonbPGetDatum(m->options ? m->options : json_parse("{}"));
	values[8] = JsonbPGetDatum(m->definition ? m->definition : json_parse("{}"));
	values[9] = BoolGetDatum(m->made_target);
	m->id = DatumGetInt64(catalog_scalar(
		"WITH new AS (INSERT INTO migrate_ext.migration (name, kind, schema_name, table_name, source, target,"
		" state, goal, options, definition, made_target)"
		" VALUES ($1, $2, $3, $4, $5, NULLIF($6, 0::oid), $7, $7, $8, $9, $10) RETURNING id),"
		" work AS (INSERT INTO migrate_ext.work (migration) SELECT id FROM new),"
		" drain AS (INSERT INTO migrate_ext.drain (migration) SELECT id FROM new)"
		" SELECT id FROM new",
		10, types, values, &isnull));
}

/*
 * A finished migration gives its name up to a new one, which keeps the record
 * readable: it gets a number behind its name.
 */
static void
rename_finished(const char *name)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(name)};

	(void) catalog_exec("UPDATE migrate_ext.migration SET name = name || ' #' || id"
						" WHERE name = $1 AND state IN ('completed', 'cancelled')",
						1, types, values, NULL);
}

void
catalog_insert(Migration *m)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(m->name)};

	rename_finished(m->name);
	if (catalog_exists("SELECT 1 FROM migrate_ext.migration WHERE name = $1", 1, types, values))
		ereport(
			ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("migration \"%s\" already exists", m->name),
			 errhint(
				 "Give another name in the parameter \"migration\", or end that one with migrate_ext.cancel or migrate_ext.complete.")));
	insert_rows(m);
}

void
catalog_forget(int64 id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(id)};

	(void) catalog_exec("DELETE FROM migrate_ext.event WHERE migration = $1", 1, types, values,
						NULL);
	(void) catalog_exec("DELETE FROM migrate_ext.migration WHERE id = $1", 1, types, values, NULL);
}

/* ---- updates ---- */

/* UPDATE migration SET <set> WHERE id = $1, further arguments from $2 on */
static void
save(Migration *m, const char *set, int nargs, const Oid *types, const Datum *values,
	 const bool *isnull)
{
	Oid t[8] = {INT8OID};
	Datum v[8] = {Int64GetDatum(m->id)};
	char nulls[9] = "        ";
	int i;

	Assert(nargs < lengthof(t));
	for (i = 0; i < nargs; i++)
	{
		t[i + 1] = types[i];
		v[i + 1] = values[i];
		if (isnull && isnull[i])
			nulls[i + 1] = 'n';
	}
	if (catalog_exec(psprintf("UPDATE migrate_ext.migration SET %s WHERE id = $1", set), nargs + 1,
					 t, v, nulls) == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("migration \"%s\" does not exist any more", m->name)));
}

void
catalog_save_state(Migration *m, MigrationState state)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(state_name(state))};
	const char *set = "state = $2, last_error = NULL";

	if (state == STATE_LIVE && m->state != STATE_SWAPPED)
		set =
			"state = $2, last_error = NULL, live_at = pg_catalog.clock_timestamp(), verified_at = NULL, analyzed_at = NULL";
	else if (state == STATE_LIVE)
		set = "state = $2, last_error = NULL, swapped_at = NULL, request = NULL, goal = $2";
	else if (state == STATE_SWAPPED)
		set =
			"state = $2, last_error = NULL, swapped_at = pg_catalog.clock_timestamp(), request = NULL, goal = $2";
	else if (state == STATE_COMPLETED || state == STATE_CANCELLED)
		set =
			"state = $2, last_error = NULL, completed_at = pg_catalog.clock_timestamp(), request = NULL, goal = $2, paused = false, pause_reason = NULL";
	save(m, set, 1, types, values, NULL);
	m->state = state;
}

void
catalog_save_goal(Migration *m, MigrationState goal, Jsonb *request)
{
	Oid types[] = {TEXTOID, JSONBOID};
	Datum values[] = {CStringGetTextDatum(state_name(goal)), PointerGetDatum(request)};
	bool isnull[] = {false, request == NULL};

	save(m, "goal = $2, request = $3", 2, types, values, isnull);
	m->goal = goal;
	m->request = request;
}

void
catalog_save_pause(Migration *m, bool paused, const char *reason)
{
	Oid types[] = {BOOLOID, TEXTOID};
	Datum values[] = {BoolGetDatum(paused), reason ? CStringGetTextDatum(reason) : (Datum) 0};
	bool isnull[] = {false, reason == NULL};

	save(m, "paused = $2, pause_reason = $3", 2, types, values, isnull);
	m->paused = paused;
	m->pause_reason = reason ? pstrdup(reason) : NULL;
}

void
catalog_save_error(Migration *m, const char *message)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {message ? CStringGetTextDatum(message) : (Datum) 0};
	bool isnull[] = {message == NULL};

	save(m, "last_error = $2", 1, types, values, isnull);
	m->last_error = message ? pstrdup(message) : NULL;
}

void
catalog_save_setting(Migration *m, const char *setting, const char *value)
{
	Oid types[] = {TEXTOID, TEXTOID};
	Datum values[] = {CStringGetTextDatum(setting), CStringGetTextDatum(value)};

	save(m, "settings = settings || pg_catalog.jsonb_build_object($2, $3)", 2, types, values, NULL);
}

void
catalog_save_shapes(Migration *m)
{
	Oid types[] = {TEXTOID, TEXTOID};
	Datum values[2];
	bool isnull[2];

	isnull[0] = m->source_shape == NULL;
	isnull[1] = m->target_shape == NULL;
	values[0] = isnull[0] ? (Datum) 0 : CStringGetTextDatum(m->source_shape);
	values[1] = isnull[1] ? (Datum) 0 : CStringGetTextDatum(m->target_shape);
	save(m, "source_shape = $2, target_shape = $3", 2, types, values, isnull);
}

void
catalog_save_horizon(Migration *m)
{
	Oid types[] = {XID8OID, INT8OID, OIDOID, INT4OID, OIDOID};
	Datum values[5];

	values[0] = FullTransactionIdGetDatum(m->horizon);
	values[1] = Int64GetDatum((int64) m->end_block);
	values[2] = ObjectIdGetDatum(m->relfilenode);
	values[3] = Int32GetDatum(m->epoch);
	values[4] = ObjectIdGetDatum(m->log);
	save(m,
		 "horizon = NULLIF($2, '0'::pg_catalog.xid8), end_block = $3, relfilenode = $4, epoch = $5,"
		 " log = NULLIF($6, 0::pg_catalog.oid)",
		 5, types, values, NULL);
	catalog_save_shapes(m);
}

void
catalog_save_trigger(Migration *m)
{
	Oid types[] = {OIDOID, XIDOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(m->trigger_oid), TransactionIdGetDatum(m->trigger_xmin),
					  BoolGetDatum(m->tainted)};

	save(m, "trigger_oid = $2, trigger_xmin = $3, tainted = $4, needs_mending = false", 3, types,
		 values, NULL);
}

void
catalog_save_tainted(Migration *m)
{
	save(m, "tainted = true, needs_mending = true, verified_at = NULL", 0, NULL, NULL, NULL);
	m->tainted = m->needs_mending = true;
	m->verified_at = 0;
}

void
catalog_save_stable(Migration *m)
{
	Oid types[] = {XID8OID};
	Datum values[1];

	m->stable_xid = GetTopFullTransactionId();
	m->verified_at = 0;
	values[0] = FullTransactionIdGetDatum(m->stable_xid);
	save(m, "stable_xid = $2, verified_at = NULL", 1, types, values, NULL);
}

void
catalog_save_analyzed(Migration *m)
{
	save(m, "analyzed_at = pg_catalog.clock_timestamp()", 0, NULL, NULL, NULL);
	m->analyzed_at = GetCurrentTimestamp();
}

void
catalog_forget_analyzed(Migration *m)
{
	save(m, "analyzed_at = NULL", 0, NULL, NULL, NULL);
	m->analyzed_at = 0;
}

void
catalog_save_verified(Migration *m, bool clean)
{
	Oid types[] = {BOOLOID};
	Datum values[] = {BoolGetDatum(clean)};

	save(m,
		 "verified_at = CASE WHEN $2 THEN pg_catalog.clock_timestamp() END,"
		 " tainted = tainted AND NOT $2",
		 1, types, values, NULL);
	m->verified_at = clean ? GetCurrentTimestamp() : 0;
}
