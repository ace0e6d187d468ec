/*-------------------------------------------------------------------------
 *
 * range_key.h
 *	  Ranges of the identity, (low, high], told by values: of which index a table
 *	  is read by such a range, and in which range a row stands.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_RANGE_KEY_H
#define MIGRATE_EXT_RANGE_KEY_H

#include "access/skey.h"
#include "fmgr.h"
#include "types.h"
#include "utils/relcache.h"

/* The identity's columns, which both sides have by name, and the types of bounds: the front's. */
typedef struct RangeIdentity
{
	int n;
	char *names[INDEX_MAX_KEYS];
	Oid types[INDEX_MAX_KEYS];
} RangeIdentity;

/* How one table, the source or a leaf, has them. */
typedef struct RangeKey
{
	int n;
	Oid index;
	AttrNumber attnums[INDEX_MAX_KEYS]; /* of the table */
	Oid families[INDEX_MAX_KEYS];		/* of the index's columns, which are its first */
	Oid column_types[INDEX_MAX_KEYS];	/* what its operator classes take */
	Oid bound_types[INDEX_MAX_KEYS];	/* and for a bound */
	Oid collations[INDEX_MAX_KEYS];
	FmgrInfo order[INDEX_MAX_KEYS]; /* compares a column with a bound */
} RangeKey;

/* Scan keys of a range; they point into themselves. */
typedef struct RangeScanKeys
{
	int n;
	ScanKeyData keys[2];
	ScanKeyData members[2][INDEX_MAX_KEYS];
} RangeScanKeys;

/* Both sides are locked by the caller. */
extern void range_identity(const Migration *m, RangeIdentity *identity);

/*
 * A bound's values, from its SQL text (compare.h); NULL for NULL.  Runs a statement
 * with the active snapshot, as the current user.
 */
extern Datum *range_bound(const RangeIdentity *identity, const char *text);

/*
 * False if no index of rel orders its rows by the identity, as SQL compares it.  In
 * CurrentMemoryContext.
 */
extern bool range_key(RangeKey *key, Relation rel, const RangeIdentity *identity);

/* low and high: NULL is without end */
extern void range_scan_keys(RangeScanKeys *keys, const RangeKey *key, Datum *low, Datum *high);

/* A row's identity and a bound: less than zero, zero, more */
extern int range_key_compare(RangeKey *key, const Datum *values, const Datum *bound);

#endif
