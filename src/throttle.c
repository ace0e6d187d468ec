/*-------------------------------------------------------------------------
 *
 * throttle.c
 *	  Why to slow down: pacing of those who work on a migration.
 *
 * Each asks before it takes its next piece of work, outside of any transaction.
 * Limits of two sorts hold it back:
 *
 * - rows and megabytes a second, shared by all processes of a migration.  What
 *   was done stands as a debt in migrate_ext.throttle, which the limit pays off
 *   as time passes; as long as there is a debt nobody goes on.  Nothing is saved
 *   up: a pause gives no right to a burst.
 * - how near the server is to something bad (throttle_probe.c), as a share of the
 *   limit, the worst counts.  From half of it on, a process rests after each
 *   piece, the longer the nearer it is; at the limit it stops until that falls.
 *
 * Who is held back tells why, once a second, in migrate_ext.throttle: that is
 * progress.waiting_for.  An event tells when a reason of some kind comes first, and
 * when nobody has been held back for some seconds; so a load that sways about a
 * limit doesn't fill the table of events.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "catalog_spi.h"
#include "run.h"
#include "settings.h"
#include "throttle.h"
#include "throttle_probe.h"

/* Readings are good for so long; what is told is told so often. */
#define LOOK_MS 1000
/* A sleep: after it, pause, cancel and settings are looked at again. */
#define SLICE_MS 250
/* From this share of a limit on, work slows down. */
#define LEVEL_SLOW 0.5
#define LEVEL_STOP 1.0
/* A rest goes by how long the piece before it took, within these. */
#define REST_MIN_MS 100
#define REST_MAX_MS 10000
/* Nobody was held back for so long: it is over. */
#define OVER_S "3"

/* WAL that others write beyond the limit holds us for so long at most. */
#define WAL_DEBT_LONGEST_S 30

/* Average width of a row of which no statistics tell. */
#define DEFAULT_WIDTH 100.0

/*
 * What this process knows; a worker has one migration at a time.  Lost without
 * harm, so it isn't part of the Run.
 */
static struct
{
	int64 migration_id;
	TimestampTz looked; /* at the probes */
	TimestampTz told;	/* the reason, or that there is none */
	TimestampTz began;	/* the last piece */
	TimestampTz asked;	/* for the next one, first; 0 if there was leave since */
	bool limited;		/* by rows or megabytes a second */
	bool held;			/* a reason has been told that may still stand there */
	double level;		/* of the worst probe */
	const char *kind;

	/* done, but not accounted for yet */
	double rows;
	double bytes;
	double rows_per_block; /* of the last piece; 0 if not known */
} pace;

static MemoryContext pace_context = NULL;

/* ------------------------------------------------------------------------
 * Limits of rows, megabytes and WAL a second
 * ------------------------------------------------------------------------
 */

static double
average_width(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	double width = DEFAULT_WIDTH;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (form->reltuples > 0 && form->relpages > 0)
			width = form->relpages * (double) BLCKSZ / form->reltuples;
		ReleaseSysCache(tuple);
	}
	return width;
}

void
throttle_note(const Migration *m, int64 rows, BlockNumber blocks)
{
	pace.rows += rows;
	if (blocks == InvalidBlockNumber)
		pace.bytes += rows * average_width(m->source);
	else
	{
		pace.bytes += blocks * (double) BLCKSZ;
		pace.rows_per_block = rows / Max((double) blocks, 1);
	}
}

BlockNumber
throttle_blocks(const Migration *m, BlockNumber blocks)
{
	int rows = settings_get_int(m, "throttle_rows_per_second");
	int mb = settings_get_int(m, "throttle_mb_per_second");
	int wal = settings_get_int(m, "throttle_wal_mb_per_second");
	double limit = blocks;
	double rows_per_block = pace.migration_id == m->id ? pace.rows_per_block : 0;

	if (mb > 0)
		limit = Min(limit, mb * (MB / BLCKSZ));
	if (wal > 0)
		limit = Min(limit, wal * (MB / BLCKSZ)); /* as much WAL as table, about */
	/* nothing is known yet but what statistics tell */
	if (rows > 0 && rows_per_block == 0)
		rows_per_block = BLCKSZ / average_width(m->source);
	if (rows > 0)
		limit = Min(limit, rows / rows_per_block);
	return (BlockNumber) Max(limit, 1);
}

int64
throttle_rows(const Migration *m, int64 rows)
{
	int limit = settings_get_int(m, "throttle_rows_per_second");
	int mb = settings_get_int(m, "throttle_mb_per_second");

	double most = rows;

	if (mb > 0)
		most = Min(most, mb * MB / average_width(m->source));
	if (limit > 0)
		most = Min(most, limit);
	/* a range of one row has no end */
	return Max((int64) most, Min(rows, 2));
}

/*
 * Account for what was done, in the current transaction; for how many seconds
 * that must be paid off.  The statement's rows serialize the processes.
 */
static double
seconds_due(const Migration *m, int rows, int mb)
{
	Oid types[] = {INT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID};
	Datum values[] = {Int64GetDatum(m->id), Float8GetDatum(pace.rows), Float8GetDatum(pace.bytes),
					  Float8GetDatum(rows), Float8GetDatum(mb * MB)};
	bool isnull;
	Datum due;

	due = catalog_scalar(
		"INSERT INTO migrate_ext.throttle AS t (migration, rows_due, bytes_due)"
		" VALUES ($1, $2, $3) ON CONFLICT (migration) DO UPDATE SET"
		" rows_due = CASE WHEN $4 > 0 THEN GREATEST(0, t.rows_due - $4"
		"  * EXTRACT(epoch FROM pg_catalog.clock_timestamp() - t.at)::float8) + $2 ELSE 0 END,"
		" bytes_due = CASE WHEN $5 > 0 THEN GREATEST(0, t.bytes_due - $5"
		"  * EXTRACT(epoch FROM pg_catalog.clock_timestamp() - t.at)::float8) + $3 ELSE 0 END,"
		" at = pg_catalog.clock_timestamp()"
		" RETURNING GREATEST(rows_due / NULLIF($4, 0), bytes_due / NULLIF($5, 0), 0)",
		5, types, values, &isnull);
	pace.rows = pace.bytes = 0;
	return isnull ? 0 : DatumGetFloat8(due);
}

/*
 * WAL is written by everybody.  What comes faster than the limit is a debt, too,
 * each process's own: so the average keeps to it, as far as it is us who write.
 */
static bool
wal_due(int limit)
{
	static TimestampTz last_at = 0;
	static XLogRecPtr last_lsn = 0;
	static double debt = 0; /* MB */
	TimestampTz now = GetCurrentTimestamp();
	XLogRecPtr lsn = GetXLogInsertRecPtr();
	double passed = (now - last_at) / (double) USECS_PER_SEC;

	/* after a long pause it begins anew */
	if (last_at != 0 && passed < 2 * WAL_DEBT_LONGEST_S)
		debt += (lsn - last_lsn) / MB - limit * passed;
	else
		debt = 0;
	debt = Min(Max(debt, 0), (double) limit * WAL_DEBT_LONGEST_S);
	last_at = now;
	last_lsn = lsn;
	return debt > 0;
}

/* Read the rate limits; a debt is a reading at its limit. */
static void
check_rates(Run *run, Reading *worst)
{
	Migration *m;
	int rows;
	int mb;
	int wal;

	run_begin(run);
	m = run->m;
	rows = m ? settings_get_int(m, "throttle_rows_per_second") : 0;
	mb = m ? settings_get_int(m, "throttle_mb_per_second") : 0;
	wal = m ? settings_get_int(m, "throttle_wal_mb_per_second") : 0;
	pace.limited = rows > 0 || mb > 0 || wal > 0;
	if (rows == 0 && mb == 0)
		pace.rows = pace.bytes = 0;
	else if (!m->paused && seconds_due(m, rows, mb) > 0)
	{
		worst->level = LEVEL_STOP;
		worst->kind = "rate";
		worst->text =
			psprintf("at most%s%s%s a second",
					 rows > 0 ? psprintf(" %d row%s", rows, rows == 1 ? "" : "s") : "",
					 rows > 0 && mb > 0 ? " and" : "", mb > 0 ? psprintf(" %d MB", mb) : "");
	}
	if (wal > 0 && wal_due(wal) && worst->level < LEVEL_STOP)
	{
		worst->level = LEVEL_STOP;
		worst->kind = "throttle_wal_mb_per_second";
		worst->text = psprintf("more than %d MB of WAL are written a second", wal);
	}
	run_commit(run);
}

/* ------------------------------------------------------------------------
 * Telling
 * ------------------------------------------------------------------------
 */

/* Write the reason down; an event if it is the first of its kind. */
static void
tell(Run *run, const Reading *reading)
{
	bool stopped = reading->level >= LEVEL_STOP;
	Oid types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum values[3];
	char *reason;
	bool isnull;

	run_begin(run);
	reason = psprintf("pacing, %s: %s",
					  strcmp(reading->kind, "rate") == 0 ? "limited"
					  : stopped							 ? "stopped"
														 : "slowed down",
					  reading->text);
	run_report(run, "%s", reason);
	if (run->m != NULL)
	{
		values[0] = Int64GetDatum(run->m->id);
		values[1] = CStringGetTextDatum(reading->kind);
		values[2] = CStringGetTextDatum(reason);
		/* the row, then its lock: two processes don't tell of the same thing */
		(void) catalog_exec("INSERT INTO migrate_ext.throttle (migration) VALUES ($1)"
							" ON CONFLICT DO NOTHING",
							1, types, values, NULL);
		if (!DatumGetBool(catalog_scalar("SELECT $2 = ANY (told) FROM migrate_ext.throttle"
										 " WHERE migration = $1 FOR UPDATE",
										 2, types, values, &isnull)))
			event_add(run->m, "throttled", NULL, "%s", reason);
		(void) catalog_exec(
			"UPDATE migrate_ext.throttle SET reason = $3, seen_at = pg_catalog.clock_timestamp(),"
			" told = CASE WHEN $2 = ANY (told) THEN told ELSE told || $2 END WHERE migration = $1",
			3, types, values, NULL);
	}
	run_commit(run);
	pace.held = true;
}

/* Nothing holds us back: what we told isn't true any more, unless others say so again. */
static void
untell(Run *run)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(run->migration_id)};

	run_begin(run);
	if (run->m != NULL)
		(void) catalog_exec("UPDATE migrate_ext.throttle SET reason = NULL WHERE migration = $1", 1,
							types, values, NULL);
	run_commit(run);
	pace.held = false;
}

/* See throttle.h.  Once a second, where leaders come by more often. */
void
throttle_settle(Migration *m)
{
	static TimestampTz settled = 0;
	TimestampTz now = GetCurrentTimestamp();
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(m->id)};

	if (!TimestampDifferenceExceeds(settled, now, LOOK_MS))
		return;
	settled = now;
	if (catalog_exec("UPDATE migrate_ext.throttle SET reason = NULL, told = '{}'"
					 " WHERE migration = $1 AND told <> '{}'"
					 " AND seen_at < pg_catalog.clock_timestamp() - INTERVAL '" OVER_S " s'",
					 1, types, values, NULL) > 0)
		event_add(m, "unthrottled", NULL, "nothing slows the migration down any more");
}

/* ------------------------------------------------------------------------
 * May I go on?
 * ------------------------------------------------------------------------
 */

/* How long to rest after a piece that took so long, at this level below the limit. */
static double
rest_ms(double level, double took_ms)
{
	double share = (level - LEVEL_SLOW) / (LEVEL_STOP - LEVEL_SLOW);

	if (share <= 0)
		return 0;
	return Min(Max(took_ms, REST_MIN_MS) * share / (1 - share), REST_MAX_MS);
}

/* The transactions of a question. */
static bool
ask(Run *run)
{
	static char text[250]; /* of the worst probe: outlives the look */
	TimestampTz now = GetCurrentTimestamp();
	Reading worst = {0};
	bool look = TimestampDifferenceExceeds(pace.looked, now, LOOK_MS);
	double took_ms;

	if (pace.asked == 0)
		pace.asked = now;
	took_ms = pace.began == 0 ? 0 : (pace.asked - pace.began) / 1000.0;
	if (look)
	{
		throttle_probe(run, &worst);
		pace.looked = now;
		pace.level = worst.level;
		pace.kind = worst.kind;
		strlcpy(text, worst.text ? worst.text : "", sizeof(text));
	}
	worst.level = pace.level;
	worst.kind = pace.kind;
	worst.text = text;
	if (look || pace.limited)
		check_rates(run, worst.level < LEVEL_STOP ? &worst : &(Reading){0});
	if (worst.level < LEVEL_STOP &&
		now >= TimestampTzPlusMilliseconds(pace.asked, rest_ms(worst.level, took_ms)))
	{
		if (pace.held && worst.level <= LEVEL_SLOW && !pace.limited)
			untell(run);
		return true;
	}
	if (TimestampDifferenceExceeds(pace.told, now, LOOK_MS))
	{
		tell(run, &worst);
		pace.told = now;
	}
	return false;
}

/*
 * The caller may be in the middle of something that keeps its things in the run's
 * scratch memory, and ask for hours.
 */
bool
throttle_may_go(Run *run)
{
	MemoryContext scratch = run->scratch;
	bool go;

	if (pace.migration_id != run->migration_id)
	{
		memset(&pace, 0, sizeof(pace));
		pace.migration_id = run->migration_id;
	}
	if (pace_context == NULL)
		pace_context =
			AllocSetContextCreate(TopMemoryContext, "migrate_ext throttle", ALLOCSET_DEFAULT_SIZES);
	run->scratch = pace_context;
	PG_TRY();
	{
		go = ask(run);
	}
	PG_FINALLY();
	{
		run->scratch = scratch;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(scratch);
	MemoryContextReset(pace_context);
	if (go)
	{
		pace.asked = 0;
		pace.began = GetCurrentTimestamp();
	}
	else
		run_sleep(run, SLICE_MS);
	return go;
}
