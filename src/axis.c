/*-------------------------------------------------------------------------
 *
 * axis.c
 *	  The line that a range key's values stand on, cut at multiples of a step.
 *
 * Integers and numeric are cut at multiples of the step.  Times are cut by
 * calendar: months at multiples counted from year 0, so that quarters, years
 * and decades come out right; whole weeks on Mondays; other days, hours and so
 * on at multiples counted from 2000-01-01.  This is done on the wall clock of
 * the time zone, so a day has 23 or 25 hours where the zone says so.  A cut that
 * falls into the hour that the clock skips moves to the end of that hour; of a
 * cut that the clock shows twice only the later one is made.
 *
 * A uuid of version 7 begins with the milliseconds since 1970, so it is cut by
 * time as well.  Other versions are random and can't be cut by anything
 * meaningful.
 *
 * Every alignment is a function of step and position alone: partitions added
 * years later need no memory of where the first one began.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "axis.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* 2000-01-03, a Monday, as microseconds of the wall clock */
#define DAYS_PER_WEEK 7
#define FIRST_MONDAY (2 * USECS_PER_DAY)

#define UUID_TIME_BYTES 6
#define UUID_TIME_MAX ((INT64CONST(1) << (8 * UUID_TIME_BYTES)) - 1)

/* 1970-01-01 and the end of version 7's time, as microseconds since 2000 */
#define UNIX_EPOCH (-(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)
#define UUID_TIME_END (UNIX_EPOCH + UUID_TIME_MAX * 1000)

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID || type == NUMERICOID;
}

/* Is the type's value an instant, which a time zone turns into a wall clock? */
static bool
is_instant(const Axis *axis)
{
	return axis->type == TIMESTAMPTZOID || axis->type == UUIDOID;
}

bool
axis_supports(Oid type)
{
	return is_integer(type) || type == DATEOID || type == TIMESTAMPOID || type == TIMESTAMPTZOID ||
		   type == UUIDOID;
}

/* ------------------------------------------------------------------------
 * Wall clock and instants
 * ------------------------------------------------------------------------
 */

static int64
wall_clock(const Axis *axis, TimestampTz instant)
{
	return DatumGetTimestamp(DirectFunctionCall2(
		timestamptz_zone, CStringGetTextDatum(axis->timezone), TimestampTzGetDatum(instant)));
}

static TimestampTz
instant_of(const Axis *axis, int64 position)
{
	return DatumGetTimestampTz(DirectFunctionCall2(
		timestamp_zone, CStringGetTextDatum(axis->timezone), TimestampGetDatum(position)));
}

static void
split_time(int64 position, struct pg_tm *tm)
{
	fsec_t fsec;

	if (timestamp2tm(position, NULL, tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
}

/* Months since the year 0, and back. */
static int64
month_index(int64 position)
{
	struct pg_tm tm;

	split_time(position, &tm);
	return (int64) tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon - 1;
}

static int64
position_of_month(int64 index)
{
	struct pg_tm tm = {0};
	Timestamp position;

	tm.tm_year = index >= 0 ? index / MONTHS_PER_YEAR : -((-index + 11) / MONTHS_PER_YEAR);
	tm.tm_mon = index - (int64) tm.tm_year * MONTHS_PER_YEAR + 1;
	tm.tm_mday = 1;
	if (!IS_VALID_JULIAN(tm.tm_year, tm.tm_mon, tm.tm_mday) ||
		tm2timestamp(&tm, 0, NULL, &position) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return position;
}

/* ------------------------------------------------------------------------
 * Making an axis
 * ------------------------------------------------------------------------
 */

/* Strictly an integer, blanks around it allowed; int8in would raise 22P02. */
static bool
parse_integer(const char *words, int64 *number)
{
	char *end;

	errno = 0;
	*number = strtoll(words, &end, 10);
	while (isspace((unsigned char) *end))
		end++;
	return end != words && *end == '\0' && errno == 0;
}

static void
wrong_kind_of_step(const char *key, Oid type, const char *step)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("step %s does not fit the key \"%s\" of type %s", step, key,
						   format_type_be(type)),
					is_integer(type) ? errhint("Give an integer, such as 1000000.")
									 : errhint("Give an interval, such as '1 month' or '1 day'.")));
}

static void
step_too_small(const char *step)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("step must be positive"),
					errdetail("The step is %s.", step)));
}

static char *
show_interval(Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

static void
set_integer_step(Axis *axis, ArgKind kind, Datum step)
{
	char *words = NULL;

	if (kind == ARG_BIGINT)
		axis->step = DatumGetInt64(step);
	else if (kind == ARG_INTERVAL)
		wrong_kind_of_step(axis->key, axis->type, show_interval(DatumGetIntervalP(step)));
	else
	{
		words = TextDatumGetCString(step);
		if (!parse_integer(words, &axis->step))
			wrong_kind_of_step(axis->key, axis->type, quote_literal_cstr(words));
	}
	if (axis->step <= 0)
		step_too_small(psprintf(INT64_FORMAT, axis->step));

	axis->lowest = axis->type == INT2OID   ? PG_INT16_MIN
				   : axis->type == INT4OID ? PG_INT32_MIN
										   : PG_INT64_MIN;
	axis->highest = axis->type == INT2OID	? PG_INT16_MAX
					: axis->type == INT4OID ? PG_INT32_MAX
											: PG_INT64_MAX;
}

/* A bare number would be taken for seconds by interval_in: surely a mistake. */
static Interval *
interval_argument(Axis *axis, ArgKind kind, Datum step)
{
	char *words;
	int64 number;

	if (kind == ARG_INTERVAL)
		return DatumGetIntervalP(step);
	if (kind == ARG_BIGINT)
		wrong_kind_of_step(axis->key, axis->type, psprintf(INT64_FORMAT, DatumGetInt64(step)));
	words = TextDatumGetCString(step);
	if (parse_integer(words, &number))
		wrong_kind_of_step(axis->key, axis->type, quote_literal_cstr(words));
	return DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(words),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static void
set_time_step(Axis *axis, ArgKind kind, Datum arg)
{
	Interval *step = interval_argument(axis, kind, arg);
	char *words = show_interval(step);
	int64 unit = axis->type == DATEOID ? USECS_PER_DAY : USECS_PER_SEC;

	if ((step->month != 0) + (step->day != 0 || step->time != 0) > 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("step mixes months with days or hours"),
						errdetail("The step is %s.", words),
						errhint("Give whole months or years, or days, hours and so on.")));
	axis->months = step->month != 0;
	if (axis->months)
		axis->step = step->month;
	else if (pg_mul_s64_overflow(step->day, USECS_PER_DAY, &axis->step) ||
			 pg_add_s64_overflow(axis->step, step->time, &axis->step))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("interval out of range")));
	if (axis->step <= 0)
		step_too_small(words);
	if (!axis->months && axis->step % unit != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("step is too fine for the key \"%s\" of type %s", axis->key,
							   format_type_be(axis->type)),
						errdetail("The step is %s.", words),
						errhint("Give a whole number of %s.",
								unit == USECS_PER_DAY ? "days" : "seconds")));

	axis->lowest = axis->type == UUIDOID ? UNIX_EPOCH : PG_INT64_MIN;
	axis->highest = axis->type == UUIDOID ? UUID_TIME_END : PG_INT64_MAX;
}

Axis *
axis_create(const char *key, Oid type, ArgKind kind, Datum step, const char *timezone)
{
	Axis *axis = palloc0(sizeof(Axis));

	if (!axis_supports(type))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("key \"%s\" of type %s can't be cut into ranges by a step", key,
						format_type_be(type)),
				 errdetail("Ranges are made of integers, numeric, dates, timestamps and uuids of "
						   "version 7."),
				 errhint("Use migrate_ext.partition_by_list or partition_by_hash, or make the "
						 "partitioned table yourself and call migrate_ext.create_migration.")));
	axis->key = key;
	axis->type = type;
	axis->timezone = is_instant(axis) ? timezone : "UTC";
	if (pg_tzset(axis->timezone) == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("time zone \"%s\" not recognized", axis->timezone),
						errhint("The view pg_timezone_names lists the names.")));
	if (is_integer(type))
		set_integer_step(axis, kind, step);
	else
		set_time_step(axis, kind, step);
	return axis;
}

char *
axis_step(const Axis *axis)
{
	if (is_integer(axis->type))
		return psprintf(INT64_FORMAT, axis->step);
	if (axis->months)
		return psprintf(INT64_FORMAT " months", axis->step);
	if (axis->step % USECS_PER_DAY == 0)
		return psprintf(INT64_FORMAT " days", axis->step / USECS_PER_DAY);
	return psprintf(INT64_FORMAT " seconds", axis->step / USECS_PER_SEC);
}

/* ------------------------------------------------------------------------
 * Positions
 * ------------------------------------------------------------------------
 */

/* A text without an offset is of the axis's time zone, not of the session's. */
static TimestampTz
parse_instant(const Axis *axis, const char *words)
{
	int nestlevel = NewGUCNestLevel();
	Datum instant;

	(void) set_config_option("timezone", axis->timezone, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	instant = DirectFunctionCall3(timestamptz_in, CStringGetDatum(words),
								  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	AtEOXact_GUC(true, nestlevel);
	return DatumGetTimestampTz(instant);
}

/*
 * A timestamptz for a key without time zone is what the session's clock shows:
 * that is how the caller wrote it.
 */
static int64
time_argument(const Axis *axis, ArgKind kind, Datum value)
{
	Datum position;

	if (kind == ARG_INTERVAL && is_instant(axis))
		position = TimestampGetDatum(wall_clock(axis, DatumGetTimestampTz(value)));
	else if (kind == ARG_INTERVAL)
		position = DirectFunctionCall1(timestamptz_timestamp, value);
	else if (is_instant(axis))
		position =
			TimestampGetDatum(wall_clock(axis, parse_instant(axis, TextDatumGetCString(value))));
	else
		position = DirectFunctionCall3(timestamp_in, CStringGetDatum(TextDatumGetCString(value)),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	return DatumGetTimestamp(position);
}

int64
axis_argument(const Axis *axis, ArgKind kind, Datum value)
{
	int64 position;

	/* that the kind fits the type was found when the step was read */
	if (is_integer(axis->type))
	{
		if (kind == ARG_BIGINT)
			position = DatumGetInt64(value);
		else if (!parse_integer(TextDatumGetCString(value), &position))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("bound %s does not fit the key \"%s\" of type %s",
								   quote_literal_cstr(TextDatumGetCString(value)), axis->key,
								   format_type_be(axis->type))));
	}
	else
		position = time_argument(axis, kind, value);

	if (!is_integer(axis->type) && TIMESTAMP_NOT_FINITE(position))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("start and stop must be finite")));
	if (position < axis->lowest || position > axis->highest)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("bound %s is out of the range of the key \"%s\" of type %s",
							   axis_show(axis, position), axis->key, format_type_be(axis->type))));
	return position;
}

/* The time in a uuid of version 7. */
static int64
uuid_position(const Axis *axis, pg_uuid_t *uuid)
{
	int64 ms = 0;
	int i;

	if (uuid->data[6] >> 4 != 7)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key \"%s\" holds uuids that are not of version 7", axis->key),
				 errdetail("One of them is %s. Only version 7 begins with a time.",
						   DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)))),
				 errhint("Use migrate_ext.partition_by_hash for random keys.")));
	for (i = 0; i < UUID_TIME_BYTES; i++)
		ms = ms << 8 | uuid->data[i];
	return wall_clock(axis, UNIX_EPOCH + ms * 1000);
}

bool
axis_position(const Axis *axis, Datum value, int64 *position)
{
	switch (axis->type)
	{
		case INT2OID:
			*position = DatumGetInt16(value);
			return true;
		case INT4OID:
			*position = DatumGetInt32(value);
			return true;
		case INT8OID:
			*position = DatumGetInt64(value);
			return true;
		case NUMERICOID:
			if (numeric_is_nan(DatumGetNumeric(value)) || numeric_is_inf(DatumGetNumeric(value)))
				return false;
			*position = DatumGetInt64(
				DirectFunctionCall1(numeric_int8, DirectFunctionCall1(numeric_floor, value)));
			return true;
		case DATEOID:
			if (DATE_NOT_FINITE(DatumGetDateADT(value)))
				return false;
			*position = DatumGetTimestamp(DirectFunctionCall1(date_timestamp, value));
			return true;
		case TIMESTAMPOID:
			*position = DatumGetTimestamp(value);
			return !TIMESTAMP_NOT_FINITE(*position);
		case TIMESTAMPTZOID:
			if (TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(value)))
				return false;
			*position = wall_clock(axis, DatumGetTimestampTz(value));
			return true;
		default:
			Assert(axis->type == UUIDOID);
			*position = uuid_position(axis, DatumGetUUIDP(value));
			return true;
	}
}

int64
axis_origin(const Axis *axis)
{
	return is_integer(axis->type) ? 0 : wall_clock(axis, GetCurrentTimestamp());
}

/* ------------------------------------------------------------------------
 * Cuts
 * ------------------------------------------------------------------------
 */

/* How far a position is above the cut below it; not for months. */
static int64
remainder_of(const Axis *axis, int64 position)
{
	int64 origin = 0;
	int64 rest;

	if (!is_integer(axis->type) && axis->step % (DAYS_PER_WEEK * USECS_PER_DAY) == 0)
		origin = FIRST_MONDAY;
	/* each term is below the step, so the sum can't overflow */
	rest = position % axis->step - origin % axis->step;
	rest %= axis->step;
	return rest < 0 ? rest + axis->step : rest;
}

/*
 * What the wall clock shows at a cut, which may be none of its times.  Whatever
 * is above the cut is above that too.
 */
static int64
existing(const Axis *axis, int64 cut)
{
	return is_instant(axis) ? wall_clock(axis, instant_of(axis, cut)) : cut;
}

int64
axis_floor(const Axis *axis, int64 position)
{
	int64 cut;

	if (axis->months)
	{
		int64 index = month_index(position);
		int64 rest = index % axis->step;

		cut = position_of_month(index - (rest < 0 ? rest + axis->step : rest));
	}
	/* below the lowest integer: MINVALUE, see axis_bound */
	else if (pg_sub_s64_overflow(position, remainder_of(axis, position), &cut))
		return PG_INT64_MIN;
	return existing(axis, cut);
}

static int64
next_cut(const Axis *axis, int64 position)
{
	int64 cut;

	if (axis->months)
		return position_of_month(month_index(axis_floor(axis, position)) + axis->step);
	if (pg_add_s64_overflow(position, axis->step - remainder_of(axis, position), &cut))
		cut = PG_INT64_MAX;
	if (!is_integer(axis->type) && !IS_VALID_TIMESTAMP(cut))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return cut;
}

int64
axis_next(const Axis *axis, int64 position)
{
	int64 cut = next_cut(axis, position);

	/* the cut may be what the skipped hour moved the last one to */
	if (is_instant(axis))
		while (instant_of(axis, cut) <= instant_of(axis, position))
			cut = next_cut(axis, cut);
	return existing(axis, cut);
}

double
axis_count(const Axis *axis, int64 from, int64 to)
{
	if (axis->months)
		return (double) (month_index(to) - month_index(from)) / axis->step;
	return ((double) to - (double) from) / axis->step;
}

bool
axis_is_end(const Axis *axis, int64 position)
{
	return position > axis->highest || position == PG_INT64_MAX;
}

/* The least uuid of version 7 (and of RFC 9562's variant) of its millisecond. */
static char *
uuid_bound(TimestampTz instant)
{
	int64 ms = (instant - UNIX_EPOCH) / 1000;

	return psprintf("%08x-%04x-7000-8000-000000000000", (uint32) (ms >> 16),
					(uint32) (ms & 0xFFFF));
}

char *
axis_show(const Axis *axis, int64 position)
{
	const int utc = 0;

	if (is_integer(axis->type))
		return psprintf(INT64_FORMAT, position);
	switch (axis->type)
	{
		case DATEOID:
			return JsonEncodeDateTime(
				NULL, DirectFunctionCall1(timestamp_date, TimestampGetDatum(position)), DATEOID,
				NULL);
		case TIMESTAMPOID:
			return JsonEncodeDateTime(NULL, TimestampGetDatum(position), TIMESTAMPOID, NULL);
		default:
			return JsonEncodeDateTime(NULL, TimestampTzGetDatum(instant_of(axis, position)),
									  TIMESTAMPTZOID, &utc);
	}
}

char *
axis_bound(const Axis *axis, int64 position)
{
	if (position < axis->lowest || position == PG_INT64_MIN)
		return "MINVALUE";
	if (axis_is_end(axis, position))
		return "MAXVALUE";
	if (axis->type == UUIDOID)
		return quote_literal_cstr(uuid_bound(instant_of(axis, position)));
	return quote_literal_cstr(axis_show(axis, position));
}

/* What a partition of times is called after: the coarsest that tells each from the next. */
typedef enum TimeSuffix
{
	SUFFIX_YEAR,
	SUFFIX_QUARTER,
	SUFFIX_MONTH,
	SUFFIX_WEEK,
	SUFFIX_DAY,
	SUFFIX_MINUTE,
	SUFFIX_SECOND
} TimeSuffix;

static TimeSuffix
suffix_of_step(const Axis *axis)
{
	if (axis->months && axis->step % MONTHS_PER_YEAR == 0)
		return SUFFIX_YEAR;
	if (axis->months && axis->step == 3)
		return SUFFIX_QUARTER;
	if (axis->months)
		return SUFFIX_MONTH;
	if (axis->step == DAYS_PER_WEEK * USECS_PER_DAY)
		return SUFFIX_WEEK;
	if (axis->step % USECS_PER_DAY == 0)
		return SUFFIX_DAY;
	if (axis->step % USECS_PER_MINUTE == 0)
		return SUFFIX_MINUTE;
	return SUFFIX_SECOND;
}

/*
 * The calendar's unit that the step is made of, as pg_partman writes it, so
 * that names sort by time: 2024, 2024q1, 2024_01, 2024w01, 2024_01_01,
 * 2024_01_01_0000.
 */
static char *
time_suffix(const Axis *axis, int64 position)
{
	TimeSuffix kind = suffix_of_step(axis);
	struct pg_tm tm;
	int year;
	const char *era = "";

	split_time(position, &tm);
	year = tm.tm_year;
	if (kind == SUFFIX_WEEK)
		year = date2isoyear(tm.tm_year, tm.tm_mon, tm.tm_mday);
	if (year <= 0)
	{
		year = 1 - year;
		era = "bc";
	}
	switch (kind)
	{
		case SUFFIX_YEAR:
			return psprintf("_p%04d%s", year, era);
		case SUFFIX_QUARTER:
			return psprintf("_p%04d%sq%d", year, era, (tm.tm_mon - 1) / 3 + 1);
		case SUFFIX_MONTH:
			return psprintf("_p%04d%s_%02d", year, era, tm.tm_mon);
		case SUFFIX_WEEK:
			return psprintf("_p%04d%sw%02d", year, era,
							date2isoweek(tm.tm_year, tm.tm_mon, tm.tm_mday));
		case SUFFIX_DAY:
			return psprintf("_p%04d%s_%02d_%02d", year, era, tm.tm_mon, tm.tm_mday);
		case SUFFIX_MINUTE:
			return psprintf("_p%04d%s_%02d_%02d_%02d%02d", year, era, tm.tm_mon, tm.tm_mday,
							tm.tm_hour, tm.tm_min);
		case SUFFIX_SECOND:
			break;
	}
	return psprintf("_p%04d%s_%02d_%02d_%02d%02d%02d", year, era, tm.tm_mon, tm.tm_mday, tm.tm_hour,
					tm.tm_min, tm.tm_sec);
}

char *
axis_suffix(const Axis *axis, int64 position)
{
	if (!is_integer(axis->type))
		return time_suffix(axis, position);
	if (position < 0)
		return psprintf("_pm" UINT64_FORMAT, (uint64) 0 - (uint64) position);
	return psprintf("_p" INT64_FORMAT, position);
}

/* What time_suffix() makes, for years of our era. */
char *
axis_suffix_format(const Axis *axis)
{
	static char *const formats[] = {
		[SUFFIX_YEAR] = "YYYY",
		[SUFFIX_QUARTER] = "YYYY\"q\"Q",
		[SUFFIX_MONTH] = "YYYY_MM",
		[SUFFIX_WEEK] = "IYYY\"w\"IW",
		[SUFFIX_DAY] = "YYYY_MM_DD",
		[SUFFIX_MINUTE] = "YYYY_MM_DD_HH24MI",
		[SUFFIX_SECOND] = "YYYY_MM_DD_HH24MISS",
	};

	return is_integer(axis->type) ? NULL : formats[suffix_of_step(axis)];
}
