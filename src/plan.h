/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  The statements that a migration will run, told before it does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PLAN_H
#define MIGRATE_EXT_PLAN_H

#include "nodes/pg_list.h"
#include "types.h"

/* A row of plan(). */
typedef struct PlanStep
{
	char *statement;
	char *lock; /* what it takes, and on what */
	char *note;
} PlanStep;

typedef struct MigrationPlan
{
	Migration *m;
	List *steps; /* of PlanStep */
} MigrationPlan;

/* One more step; the texts are kept as they are. */
extern void plan_add(MigrationPlan *plan, char *statement, char *lock, char *note);

/* The same lock and note for several statements; List of char *. */
extern void plan_add_all(MigrationPlan *plan, List *statements, char *lock, char *note);

/*
 * plan_index.c: the indexes that the target still lacks, on its partitions and
 * on itself.  As the owner; the caller holds a lock on both tables.
 */
extern void plan_indexes(MigrationPlan *plan);

#endif
