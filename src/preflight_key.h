/*-------------------------------------------------------------------------
 *
 * preflight_key.h
 *	  What preflight() finds by looking at rows and at expressions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PREFLIGHT_KEY_H
#define MIGRATE_EXT_PREFLIGHT_KEY_H

#include "nodes/pg_list.h"
#include "run.h"
#include "types.h"

/* A row as preflight() returns it: severity, object, problem, remedy. */
#define PREFLIGHT_COLUMNS 4

/* What was found; all in the memory of who asked. */
typedef struct KeyLook
{
	List *rows;		/* of char *[PREFLIGHT_COLUMNS] */
	char *greatest; /* JSON: greatest values by column, where an index tells */
} KeyLook;

/*
 * Look at the source's rows and at what the key is derived from, before the
 * swap.  As the owner, in a subtransaction: an error becomes a row.  Reads a
 * bounded number of blocks.
 */
extern KeyLook *preflight_key_look(Migration *m);

/*
 * Statements that name the migration's table, as a text[], that
 * pg_stat_statements shows to the current user; empty where it isn't there.
 */
extern Datum preflight_key_statements(Migration *m);

/*
 * Lock both tables as lightly as can be, and become the owner.  False where one
 * is gone or somebody holds the strongest lock: nothing is waited for.
 */
extern bool preflight_begin_looking(Migration *m, UserSwitch *user);
extern void preflight_end_looking(Migration *m, UserSwitch *user);

#endif
