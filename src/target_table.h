/*-------------------------------------------------------------------------
 *
 * target_table.h
 *	  The statements that make a target and its partitions.
 *
 * The caller is the source's owner (user_switch_owner, run_as_owner), holds a
 * lock on the source, and has checked what can be checked.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_TARGET_TABLE_H
#define MIGRATE_EXT_TARGET_TABLE_H

#include "postgres.h"

#include "nodes/pg_list.h"

/*
 * CREATE TABLE <source>_new like source, partitioned by strategy (range, list,
 * hash) of the key column; without partitions.  42P07 if the name is taken.
 */
extern Oid target_table_create(Oid source, const char *strategy, const char *key);

/* Its partitions, a List of Partition *, and what can only follow them. */
extern void target_table_add_partitions(Oid source, Oid target, List *partitions);

/*
 * A partition for a target in use: made apart and attached, which locks the
 * target in SHARE UPDATE EXCLUSIVE mode only, and its default partition, which
 * is read, in ACCESS EXCLUSIVE mode.  Returns the partition.
 */
extern Oid target_table_attach(Oid source, Oid target, const char *name, const char *bound);

#endif
