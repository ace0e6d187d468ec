/*-------------------------------------------------------------------------
 *
 * axis.h
 *	  The line that a range key's values stand on, cut at multiples of a step.
 *
 * A position is an int64: the integer itself, or, for everything to do with
 * time, microseconds of the wall clock in the axis's time zone.  Only this file
 * knows what a position means for which type.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_AXIS_H
#define MIGRATE_EXT_AXIS_H

#include "postgres.h"

/* In which of the three variants of partition_by_range() an argument came. */
typedef enum ArgKind
{
	ARG_BIGINT,
	ARG_INTERVAL, /* with start and stop of type timestamptz */
	ARG_TEXT
} ArgKind;

typedef struct Axis
{
	const char *key; /* column name, for messages */
	Oid type;		 /* of the key, below domains */
	bool months;	 /* step counts months; else units or microseconds */
	int64 step;
	const char *timezone; /* for timestamptz and uuid; else "UTC" */
	int64 lowest;		  /* positions below have no value: MINVALUE */
	int64 highest;		  /* positions above have no value: MAXVALUE */
} Axis;

/* Can a column of this type be cut by a step at all? */
extern bool axis_supports(Oid type);

/*
 * 22023 if the step doesn't fit the type, is zero, negative or too fine;
 * 0A000 if the type can't be cut by a step.
 */
extern Axis *axis_create(const char *key, Oid type, ArgKind kind, Datum step, const char *timezone);

/* The step in words that axis_create() takes back as ARG_TEXT. */
extern char *axis_step(const Axis *axis);

/* Position of start or stop as it was given; 22023 if it doesn't fit the type. */
extern int64 axis_argument(const Axis *axis, ArgKind kind, Datum value);
/*
 * Position of a value of the key; false if it has none (infinite, NaN).
 * 22023 for a uuid that doesn't begin with a time.
 */
extern bool axis_position(const Axis *axis, Datum value, int64 *position);
/* Where a table without rows begins: zero or now. */
extern int64 axis_origin(const Axis *axis);

/* The cut at or below, and the next one above. */
extern int64 axis_floor(const Axis *axis, int64 position);
extern int64 axis_next(const Axis *axis, int64 position);
/* Steps between two cuts; a double, as there may be any number. */
extern double axis_count(const Axis *axis, int64 from, int64 to);

/* No value stands at or above this cut. */
extern bool axis_is_end(const Axis *axis, int64 position);
/* The cut as a partition bound: a literal, MINVALUE or MAXVALUE. */
extern char *axis_bound(const Axis *axis, int64 position);
/* The cut for people. */
extern char *axis_show(const Axis *axis, int64 position);
/* What follows the table's name in that of the partition that begins here. */
extern char *axis_suffix(const Axis *axis, int64 position);
/* The pattern by which to_char() makes, of the cut, what stands after "_p" there; NULL for integers. */
extern char *axis_suffix_format(const Axis *axis);

#endif
