/*-------------------------------------------------------------------------
 *
 * describe.h
 *	  What a table is and what hangs on it, as a value that can be compared.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_DESCRIBE_H
#define MIGRATE_EXT_DESCRIBE_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/*
 * describe() without looking at who asks, in the caller's memory; an empty
 * object if there is no such relation.  As of the current command.  Takes
 * ACCESS SHARE on what the definitions of views and rules name; the caller
 * holds a lock on the relation, or can live with a change in between.
 */
extern Jsonb *describe_relation(Oid relid);

/* One thing that differs: where, and as what on either side (JSON text, or NULL). */
typedef struct Difference
{
	char *path;
	char *a;
	char *b;
} Difference;

/* catalog_difference(): List of Difference *, by path. */
extern List *describe_differences(Jsonb *a, Jsonb *b);

#endif
