/*-------------------------------------------------------------------------
 *
 * plan_list.h
 *	  The statements that a migration will run, told before it does: the list
 *	  that plan() returns, and what who adds to it needs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PLAN_LIST_H
#define MIGRATE_EXT_PLAN_LIST_H

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"
#include "types.h"

/* A row of plan(). */
typedef struct PlanStep
{
	char *statement;
	char *lock; /* what it takes, and on what; NULL: none */
	char *note;
} PlanStep;

typedef struct MigrationPlan
{
	Migration *m;
	char *original; /* what the source is called after the swap, quoted and qualified */
	bool swapped;	/* what is told comes after the swap's renames */
	List *steps;	/* of PlanStep */
} MigrationPlan;

/* What runs under the swap's locks. */
#define PLAN_IN_SWAP "in the swap's transaction"

/* Done by changes of the catalog, under the swap's locks: told as the statement, or in words. */
#define PLAN_EQUIVALENT "equivalent; " PLAN_IN_SWAP

/* One more step; the texts are kept as they are. */
extern void plan_add(MigrationPlan *plan, char *statement, char *lock, char *note);

/* The same lock and note for several statements; List of char *. */
extern void plan_add_all(MigrationPlan *plan, List *statements, char *lock, char *note);

/*
 * Statements of DDL, one or more of them in a text, each a step of its own with the lock that
 * PostgreSQL takes for it.  Names are qualified.
 */
extern void plan_add_ddl(MigrationPlan *plan, const char *text, char *note);

/* The same for a List of char *. */
extern void plan_add_all_ddl(MigrationPlan *plan, List *texts, char *note);

/* "ACCESS EXCLUSIVE on public.t" */
extern char *plan_lock(LOCKMODE mode, const char *table);

/* A lock that the swap takes by itself, and keeps. */
extern void plan_add_lock(MigrationPlan *plan, Oid relid, LOCKMODE mode);

/* Both tables' locks in the swap. */
extern char *plan_swap_lock(MigrationPlan *plan);

/* A relation as it is called at this point of the plan, quoted and qualified. */
extern char *plan_relation(MigrationPlan *plan, Oid relid);

#endif
