/*-------------------------------------------------------------------------
 *
 * bounds.h
 *	  Which partitions a target gets: their names and bounds.  Nothing is made
 *	  here, so a preview comes to the same as the real thing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_BOUNDS_H
#define MIGRATE_EXT_BOUNDS_H

#include "axis.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* What partitions are planned for. */
typedef struct BoundsInput
{
	Oid source;
	const char *table; /* the name that partitions' names begin with */
	Oid schema;		   /* where those names must be free */
	const char *key;   /* column name */
	Oid type;		   /* of the key, below domains */
	const char *rows;  /* query that returns the key of every row as k */
} BoundsInput;

/* What was asked of range partitions; positions on the axis. */
typedef struct RangeInput
{
	bool has_start;
	bool has_stop;
	int64 start;
	int64 stop;
	int headroom;
} RangeInput;

/* One partition to be. */
typedef struct Partition
{
	char *name;
	char *bound; /* "FOR VALUES ..." or "DEFAULT" */
	int64 from;	 /* of a range, positions; to is exclusive */
	int64 to;
} Partition;

/* Lists of Partition *; range and list end with the default partition. */
extern List *bounds_range(const BoundsInput *input, const Axis *axis, const RangeInput *range);
extern List *bounds_list(const BoundsInput *input, Jsonb *groups);
extern List *bounds_hash(const BoundsInput *input, int partitions);

/*
 * The same from data known to the caller: the least and greatest position
 * (has_data false: none), or the values as List of char *.
 */
extern List *bounds_range_of(const BoundsInput *input, const Axis *axis, const RangeInput *range,
							 bool has_data, int64 least, int64 greatest);
extern List *bounds_list_of(const BoundsInput *input, List *values);

/* FOR VALUES of a range; exposed for partitions that are added later. */
extern char *bounds_range_clause(const Axis *axis, int64 from, int64 to);

/* 54000 if the server's lock table can't take so many partitions of source. */
extern void bounds_check_locks(Oid source, double partitions);
/* 54000 if there are more values than a list should have. */
extern void bounds_check_values(const BoundsInput *input, double values);

#endif
