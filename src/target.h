/*-------------------------------------------------------------------------
 *
 * target.h
 *	  What the files that make, check, preview and extend targets share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_TARGET_H
#define MIGRATE_EXT_TARGET_H

#include "postgres.h"

#include "columns.h"
#include "fmgr.h"
#include "utils/relcache.h"

/* How a target is partitioned; bits, so that sets of them can be told. */
typedef enum Strategy
{
	STRATEGY_RANGE = 1,
	STRATEGY_LIST = 2,
	STRATEGY_HASH = 4,
	STRATEGY_GIVEN = 8 /* the caller made the target himself */
} Strategy;

#define STRATEGY_ANY (STRATEGY_RANGE | STRATEGY_LIST | STRATEGY_HASH | STRATEGY_GIVEN)

/* "range", as definitions, events and PARTITION BY have it. */
extern const char *target_strategy_name(Strategy strategy);

/*
 * Type of the key's column below domains; errors if rel can't be partitioned by
 * it: 42703, 42P17, 42704.
 */
extern Oid target_check_key(Relation rel, const char *key, Strategy strategy);

/*
 * Errors unless the caller's own table can be a target for source.  The caller
 * is the source's owner.  Locks the target in ACCESS SHARE mode.
 */
extern void target_check_given(Oid source, Oid target);

/* Errors (42703) if a column of the source has no place in the target. */
extern void target_check_carried(Relation source, Oid target, const ColumnMap *map);

/* 22004 for a required argument that is NULL, naming it. */
extern void target_require_argument(FunctionCallInfo fcinfo, int n, const char *name);

#endif
