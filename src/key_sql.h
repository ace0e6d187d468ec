/*-------------------------------------------------------------------------
 *
 * key_sql.h
 *	  The table of a migration of kind "key", and the pieces of SQL for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_KEY_SQL_H
#define MIGRATE_EXT_KEY_SQL_H

#include "access/htup_details.h"
#include "storage/lockdefs.h"
#include "types.h"
#include "utils/relcache.h"

/*
 * Places of rows, [first, end): a block's number times KEY_PLACES plus the line
 * pointer's.
 */
#define KEY_PLACES ((uint64) MaxHeapTuplesPerPage + 1)

typedef struct KeyRange
{
	uint64 first;
	uint64 end;
} KeyRange;

/* A table and its key, as pieces of SQL. */
typedef struct KeySql
{
	char *table;
	char *column;
	char *places;  /* condition on the places of s */
	char *lock;	   /* FOR UPDATE or FOR NO KEY UPDATE */
	char *columns; /* of s, that value and identity read */
	char *value;
	char *joins;
	char *identity; /* of s, as jsonb */
} KeySql;

/*
 * Lock the source, and error with ERRCODE_MIGRATION_TAMPERED unless its key can
 * be filled as the migration says.
 */
extern void key_guard(Run *run, LOCKMODE lockmode);

/*
 * The pieces for a range of an open table.  The caller is the owner, the settings
 * are pinned, and a snapshot is there.  The value is coerced to the column's type
 * but not to its length: UPDATE does so, which tells where a cast would cut.
 */
extern KeySql *key_sql(Run *run, Relation rel, KeyRange range);

/* The condition that a row of that alias has its place in the range. */
extern char *key_places(const char *alias, KeyRange range);

#endif
