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
 * is the source's owner.  Locks the target in ACCESS SHARE mode.  True if it has
 * rows or indexes already, so that it can't be copied to.
 */
extern bool target_check_given(Oid source, Oid target);

/*
 * The options, and under "derived" what derives the columns of the target that
 * a row of the source may lack: the values of add_sharding_key() as they are
 * now.  Of the partition keys' columns ("keys", their names), and of those that
 * are NOT NULL in the target (InvalidOid: there is none yet).  A column of the
 * source that is NOT NULL is never derived, nor one for which options.columns
 * has an expression.
 */
extern Jsonb *target_options_with_derived(Oid source, Oid target, Jsonb *options, List *keys);

/* Names of the columns of the root's partition key; List of char *. */
extern List *target_key_names(Oid target);

/* Errors (42703) if a column of the source has no place in the target. */
extern void target_check_carried(Relation source, Oid target, const ColumnMap *map);

/* Errors (42P16) if a partition of a given target has a primary key, and the target is to get another one. */
extern void target_check_part_keys(Migration *m);

#endif
