/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  plan(): the parts that plan.c has in files of their own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PLAN_H
#define MIGRATE_EXT_PLAN_H

#include "plan_list.h"

/*
 * plan_index.c: the indexes that the target still lacks, on its partitions and
 * on itself.  As the owner; the caller holds a lock on both tables.
 */
extern void plan_indexes(MigrationPlan *plan);

#endif
