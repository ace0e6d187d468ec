/*-------------------------------------------------------------------------
 *
 * sharding_key.h
 *	  Columns made or taken over by add_sharding_key(), as they are recorded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SHARDING_KEY_H
#define MIGRATE_EXT_SHARDING_KEY_H

#include "types.h"

/* Of the first such column of a table; others have a number after it. */
#define FILL_TRIGGER_NAME OUR_TRIGGER_PREFIX "fill"

/* A row of migrate_ext.sharding_key. */
typedef struct ShardingKey
{
	int64 id;
	Oid relation;
	AttrNumber attnum;
	char *value; /* qualified, see derive_text(); or NULL */
	bool fill;
} ShardingKey;

/*
 * Read it, in CurrentMemoryContext, with the latest snapshot; NULL if there is
 * none.  Checks no rights.
 */
extern ShardingKey *sharding_key_of_column(Oid relation, AttrNumber attnum);
extern ShardingKey *sharding_key_by_id(int64 id);

#endif
