/*-------------------------------------------------------------------------
 *
 * throttle_probe.c
 *	  How near the server is to the limits that a migration is to respect.
 *
 * A probe reads one thing and returns it as a share of its limit.  It runs in a
 * transaction of its own, read only, under a time limit: what can't be read must
 * slow the work down, not let it run, and must not make it fail.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "catalog_spi.h"
#include "run.h"
#include "settings.h"
#include "throttle_probe.h"

/* A pause acts within a second, whatever a probe does. */
#define PROBE_TIMEOUT_MS 500

/* A probe fills in level and text; limit is its setting, above 0 where it is a number. */
typedef void (*ProbeFunction)(Run *run, int limit, Reading *reading);

/* ------------------------------------------------------------------------
 * Where the WAL ended, and when
 *
 * A standby's lag is told by what it has replayed.  One that had caught up, and then
 * stops, may tell of none, so we note down ourselves when the WAL was how far: what
 * was there a minute ago and isn't replayed is a lag of a minute at least.
 * ------------------------------------------------------------------------
 */

#define MAX_SAMPLES 128

typedef struct WalSample
{
	TimestampTz at;
	XLogRecPtr lsn;
} WalSample;

static WalSample samples[MAX_SAMPLES];
static int nsamples = 0;

static void
sample_wal(TimestampTz now, XLogRecPtr lsn)
{
	if (nsamples == MAX_SAMPLES)
	{
		/* every second one goes: what is left reaches twice as far back */
		for (int i = 0; i < MAX_SAMPLES / 2; i++)
			samples[i] = samples[2 * i];
		nsamples = MAX_SAMPLES / 2;
	}
	samples[nsamples].at = now;
	samples[nsamples].lsn = lsn;
	nsamples++;
}

/* For how long, at least, has there been WAL beyond this place? */
static double
seconds_behind(TimestampTz now, XLogRecPtr lsn)
{
	for (int i = 0; i < nsamples; i++)
		if (samples[i].lsn > lsn)
			return (now - samples[i].at) / (double) USECS_PER_SEC;
	return 0;
}

/* ------------------------------------------------------------------------
 * Replication, archive, WAL
 * ------------------------------------------------------------------------
 */

static uint64
read_rows(CatalogCall *call, const char *sql, const char *names)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(names)};

	return catalog_begin(call, sql, 1, types, values, NULL);
}

/* Of all there are, subscribers are no standbys; one that was named is taken as it is. */
#define STANDBYS_SQL                                                                \
	"WITH names AS (SELECT DISTINCT pg_catalog.btrim(n) AS name"                    \
	"  FROM pg_catalog.string_to_table($1, ',') n WHERE pg_catalog.btrim(n) <> '')" \
	" SELECT r.application_name, r.replay_lsn,"                                     \
	" COALESCE(EXTRACT(epoch FROM r.replay_lag), 0)::float8"                        \
	" FROM pg_catalog.pg_stat_replication r"                                        \
	" LEFT JOIN pg_catalog.pg_replication_slots s ON s.active_pid = r.pid"          \
	" WHERE NOT EXISTS (SELECT FROM names) AND r.replay_lsn IS NOT NULL"            \
	" AND r.state <> 'backup' AND s.slot_type IS DISTINCT FROM 'logical'"           \
	" UNION ALL SELECT n.name, r.replay_lsn,"                                       \
	" COALESCE(EXTRACT(epoch FROM r.replay_lag), 0)::float8"                        \
	" FROM names n LEFT JOIN pg_catalog.pg_stat_replication r ON r.application_name = n.name"

/* The standby that is farthest behind, in seconds or in megabytes. */
static void
probe_replay_lag(Run *run, int limit, Reading *reading, bool seconds)
{
	CatalogCall call = {0};
	XLogRecPtr end = GetFlushRecPtr(NULL);
	TimestampTz now = GetCurrentTimestamp();
	uint64 n = read_rows(&call, STANDBYS_SQL, settings_get_text(run->m, "throttle_standbys"));
	double worst = -1;
	char *name = NULL;

	for (uint64 i = 0; i < n; i++)
	{
		bool isnull;
		char *standby = TextDatumGetCString(catalog_value(&call, i, 1, &isnull));
		XLogRecPtr lsn = DatumGetLSN(catalog_value(&call, i, 2, &isnull));
		double lag = 0;

		if (isnull)
			ereport(ERROR, (errcode(ERRCODE_CONNECTION_DOES_NOT_EXIST),
							errmsg("standby \"%s\" is not connected", standby)));
		if (lsn < end && seconds)
			lag =
				Max(DatumGetFloat8(catalog_value(&call, i, 3, &isnull)), seconds_behind(now, lsn));
		else if (lsn < end)
			lag = (end - lsn) / MB;
		if (lag > worst)
		{
			worst = lag;
			name = MemoryContextStrdup(run->scratch, standby);
		}
	}
	catalog_end(&call);
	if (name == NULL)
		return;
	reading->level = worst / limit;
	reading->text = psprintf("replay lag of standby \"%s\" is %.1f %s, limit %d", name, worst,
							 seconds ? "s" : "MB", limit);
}

static void
probe_replay_lag_s(Run *run, int limit, Reading *reading)
{
	probe_replay_lag(run, limit, reading, true);
}

static void
probe_replay_lag_mb(Run *run, int limit, Reading *reading)
{
	probe_replay_lag(run, limit, reading, false);
}

#define SLOTS_SQL                                                                     \
	"WITH names AS (SELECT DISTINCT pg_catalog.btrim(n) AS name"                      \
	"  FROM pg_catalog.string_to_table($1, ',') n WHERE pg_catalog.btrim(n) <> '')"   \
	" SELECT s.slot_name::text, s.restart_lsn FROM pg_catalog.pg_replication_slots s" \
	" WHERE NOT EXISTS (SELECT FROM names) AND s.restart_lsn IS NOT NULL"             \
	" UNION ALL SELECT n.name, s.restart_lsn"                                         \
	" FROM names n LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = n.name"

static void
probe_slot_lag(Run *run, int limit, Reading *reading)
{
	CatalogCall call = {0};
	XLogRecPtr end = GetXLogInsertRecPtr();
	uint64 n = read_rows(&call, SLOTS_SQL, settings_get_text(run->m, "throttle_slots"));
	double worst = -1;
	char *name = NULL;

	for (uint64 i = 0; i < n; i++)
	{
		bool isnull;
		char *slot = TextDatumGetCString(catalog_value(&call, i, 1, &isnull));
		XLogRecPtr lsn = DatumGetLSN(catalog_value(&call, i, 2, &isnull));
		double lag;

		if (isnull)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("replication slot \"%s\" does not exist or keeps no WAL", slot)));
		lag = lsn < end ? (end - lsn) / MB : 0;
		if (lag > worst)
		{
			worst = lag;
			name = MemoryContextStrdup(run->scratch, slot);
		}
	}
	catalog_end(&call);
	if (name == NULL)
		return;
	reading->level = worst / limit;
	reading->text =
		psprintf("replication slot \"%s\" is %.1f MB behind, limit %d", name, worst, limit);
}

/* One number. */
static double
read_number(const char *sql, int nargs, Oid *types, Datum *values)
{
	bool isnull;
	Datum value = catalog_scalar(sql, nargs, types, values, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

static void
probe_archive(Run *run, int limit, Reading *reading)
{
	double files =
		read_number("SELECT pg_catalog.count(*)::float8"
					" FROM pg_catalog.pg_ls_archive_statusdir() WHERE name LIKE '%.ready'",
					0, NULL, NULL);

	reading->level = files / limit;
	reading->text = psprintf("WAL files waiting for the archiver: %.0f, limit %d", files, limit);
}

/* ------------------------------------------------------------------------
 * Vacuum, sessions, locks
 * ------------------------------------------------------------------------
 */

#define TABLES_SQL               \
	"(SELECT $1 UNION SELECT $2" \
	" UNION SELECT p.relid::oid FROM pg_catalog.pg_partition_tree($2) p)"

static void
set_tables(const Migration *m, Datum *values)
{
	values[0] = ObjectIdGetDatum(m->source);
	values[1] = ObjectIdGetDatum(m->target);
}

/*
 * A vacuum against wraparound doesn't yield to anybody, and is urgent.  Locks are
 * only looked through where there is one at all.
 */
static void
probe_wraparound(Run *run, int limit, Reading *reading)
{
	Oid types[] = {OIDOID, OIDOID};
	Datum values[2];
	Datum table;
	bool isnull;

	set_tables(run->m, values);
	if (read_number("SELECT 1::float8 FROM pg_catalog.pg_stat_activity a"
					" WHERE a.backend_type = 'autovacuum worker'"
					" AND a.query LIKE '%(to prevent wraparound)' LIMIT 1",
					0, NULL, NULL) == 0)
		return;
	table = catalog_scalar(
		"SELECT l.relation::pg_catalog.regclass::text FROM pg_catalog.pg_locks l"
		" JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
		" WHERE a.backend_type = 'autovacuum worker' AND a.query LIKE '%(to prevent wraparound)'"
		" AND l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted"
		" AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d"
		"  WHERE d.datname = pg_catalog.current_database())"
		" AND (l.relation IN " TABLES_SQL " OR EXISTS (SELECT FROM pg_catalog.pg_class c"
		"  WHERE c.reltoastrelid = l.relation AND c.oid IN " TABLES_SQL ")) LIMIT 1",
		2, types, values, &isnull);
	if (isnull)
		return;
	reading->level = 1;
	reading->text =
		psprintf("autovacuum against wraparound is at work on %s", TextDatumGetCString(table));
}

static void
probe_active_sessions(Run *run, int limit, Reading *reading)
{
	double active = read_number("SELECT pg_catalog.count(*)::float8"
								" FROM pg_catalog.pg_stat_activity a WHERE a.state = 'active'"
								" AND a.backend_type = 'client backend'"
								" AND a.pid <> pg_catalog.pg_backend_pid()",
								0, NULL, NULL);

	reading->level = active / limit;
	reading->text = psprintf("active sessions: %.0f, limit %d", active, limit);
}

/*
 * Who waits for a row waits for another transaction, and only the lock on the
 * table that he has says which table's row it is.
 */
static void
probe_lock_waiters(Run *run, int limit, Reading *reading)
{
	Oid types[] = {OIDOID, OIDOID};
	Datum values[2];
	double waiters;

	set_tables(run->m, values);
	waiters = read_number(
		"WITH l AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks)"
		" SELECT pg_catalog.count(DISTINCT w.pid)::float8 FROM l w"
		" JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid"
		" WHERE NOT w.granted AND a.backend_type = 'client backend'"
		" AND w.pid <> pg_catalog.pg_backend_pid()"
		" AND a.datname = pg_catalog.current_database()"
		" AND EXISTS (SELECT FROM l t WHERE t.pid = w.pid AND t.relation IN " TABLES_SQL ")",
		2, types, values);
	reading->level = waiters / limit;
	reading->text = psprintf("sessions waiting for locks: %.0f, limit %d", waiters, limit);
}

/* ------------------------------------------------------------------------
 * The user's query
 * ------------------------------------------------------------------------
 */

static bool
is_number(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID || type == FLOAT4OID ||
		   type == FLOAT8OID || type == NUMERICOID;
}

void
throttle_check_query(const Migration *m, const char *query)
{
	UserSwitch user;
	SPIPlanPtr plan;
	List *sources;
	CachedPlanSource *source;
	Oid type;

	if (query[0] == '\0' || !OidIsValid(m->owner))
		return;
	user_switch_owner(&user, m->owner);
	SPI_connect();
	plan = SPI_prepare(query, 0, NULL);
	sources = plan ? SPI_plan_get_plan_sources(plan) : NIL;
	source = list_length(sources) == 1 ? linitial(sources) : NULL;
	if (source == NULL || source->resultDesc == NULL ||
		linitial_node(Query, source->query_list)->commandType != CMD_SELECT ||
		linitial_node(Query, source->query_list)->hasModifyingCTE)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("throttle_query is not one SELECT"),
						errdetail("It is: %s", query)));
	type = getBaseType(TupleDescAttr(source->resultDesc, 0)->atttypid);
	if (source->resultDesc->natts != 1 || (type != BOOLOID && !is_number(type)))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("throttle_query does not return one boolean or number"),
				 errdetail("It returns %d column%s, the first of type %s.",
						   source->resultDesc->natts, source->resultDesc->natts == 1 ? "" : "s",
						   format_type_be(TupleDescAttr(source->resultDesc, 0)->atttypid)),
				 errhint("True, or 1 and more, stops the migration's work; from 0.5 on it slows "
						 "down.")));
	SPI_finish();
	user_switch_back(&user);
}

/* Its value as a level. */
static double
level_of_value(void)
{
	Oid type = getBaseType(SPI_gettypeid(SPI_tuptable->tupdesc, 1));
	char *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	double level;

	if (text == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("it returned NULL")));
	if (type == BOOLOID)
		return text[0] == 't' ? 1 : 0;
	if (!is_number(type))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("it returned neither a boolean nor a number")));
	level = strtod(text, NULL);
	if (isnan(level))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("it returned NaN")));
	return Max(level, 0);
}

static void
probe_query(Run *run, int limit, Reading *reading)
{
	const char *query = settings_get_text(run->m, "throttle_query");
	double level;

	PushActiveSnapshot(GetTransactionSnapshot());
	run_as_owner(run);
	SPI_connect();
	if (SPI_execute(query, true, 2) != SPI_OK_SELECT)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("it is not one SELECT")));
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("it returned %s", SPI_processed == 0 ? "no row" : "several rows")));
	level = level_of_value();
	SPI_finish();
	run_as_self(run);
	PopActiveSnapshot();
	reading->level = level;
	reading->text = psprintf("throttle_query says %g, where 1 stops", level);
}

/* ------------------------------------------------------------------------
 * All of them
 * ------------------------------------------------------------------------
 */

typedef struct Probe
{
	const char *setting;
	ProbeFunction read;
} Probe;

static const Probe probes[] = {
	{"throttle_wraparound", probe_wraparound},
	{"throttle_replay_lag_s", probe_replay_lag_s},
	{"throttle_replay_lag_mb", probe_replay_lag_mb},
	{"throttle_slot_lag_mb", probe_slot_lag},
	{"throttle_archive_files", probe_archive},
	{"throttle_active_sessions", probe_active_sessions},
	{"throttle_lock_waiters", probe_lock_waiters},
	{"throttle_query", probe_query},
};

static volatile sig_atomic_t timed_out = false;

/* As statement_timeout, which a session inside CALL may be using for itself. */
static void
on_timeout(void)
{
	timed_out = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
start_clock(TimeoutId *timer)
{
	static TimeoutId id = MAX_TIMEOUTS;

	if (id == MAX_TIMEOUTS)
		id = RegisterTimeout(USER_TIMEOUT, on_timeout);
	*timer = id;
	timed_out = false;
	enable_timeout_after(id, PROBE_TIMEOUT_MS);
}

/* What was to be cancelled may have ended by itself. */
static void
stop_clock(TimeoutId timer)
{
	disable_timeout(timer, false);
	if (timed_out)
		QueryCancelPending = false;
}

/* Its setting, above 0 if it is on; for a query, which needs an owner to run as, 1 is on. */
static int
limit_of(const Migration *m, const Probe *probe)
{
	if (probe->read == probe_query)
		return OidIsValid(m->owner) && settings_get_text(m, probe->setting)[0] != '\0';
	return settings_get_int(m, probe->setting);
}

/* The transaction of a probe: what is off, or can't be read for want of a migration, says nothing. */
static void
read_probe(Run *run, const Probe *probe, Reading *reading)
{
	int limit;

	run_begin(run);
	XactReadOnly = true;
	limit = run->m != NULL ? limit_of(run->m, probe) : 0;
	if (limit > 0)
		probe->read(run, limit, reading);
	run_commit(run);
}

static void
attempt(Run *run, const Probe *probe, Reading *reading)
{
	ErrorData *volatile error = NULL;
	TimeoutId timer;

	start_clock(&timer);
	PG_TRY();
	{
		read_probe(run, probe, reading);
		stop_clock(timer);
	}
	PG_CATCH();
	{
		stop_clock(timer);
		MemoryContextSwitchTo(run->scratch);
		error = CopyErrorData();
		FlushErrorState();
		run_abort(run);
	}
	PG_END_TRY();
	if (error == NULL)
		return;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !timed_out)
		ReThrowError(error);
	reading->level = LEVEL_FAILED;
	reading->text =
		error->sqlerrcode == ERRCODE_QUERY_CANCELED
			? psprintf("%s can't be read within %d ms", probe->setting, PROBE_TIMEOUT_MS)
			: psprintf("%s can't be read: %s", probe->setting, error->message);
}

/* Which probes are on; a bit each. */
static uint32
probes_wanted(Run *run)
{
	uint32 wanted = 0;

	run_begin(run);
	for (int i = 0; run->m != NULL && !run->m->paused && i < lengthof(probes); i++)
	{
		if (limit_of(run->m, &probes[i]) > 0)
			wanted |= (uint32) 1 << i;
	}
	run_commit(run);
	return wanted;
}

void
throttle_probe(Run *run, Reading *worst)
{
	uint32 wanted = probes_wanted(run);

	if (wanted != 0)
		sample_wal(GetCurrentTimestamp(), GetFlushRecPtr(NULL));
	for (int i = 0; i < lengthof(probes); i++)
	{
		Reading reading = {.kind = probes[i].setting};

		if ((wanted & ((uint32) 1 << i)) == 0)
			continue;
		attempt(run, &probes[i], &reading);
		if (reading.level > worst->level)
			*worst = reading;
	}
}
