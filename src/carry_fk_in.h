/*-------------------------------------------------------------------------
 *
 * carry_fk_in.h
 *	  Foreign keys of other tables that point at the table that is swapped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_FK_IN_H
#define MIGRATE_EXT_CARRY_FK_IN_H

#include "carry.h"

extern const Carrier carry_fk_in;

/*
 * At the end of a migration, before the table is left alone or dropped.  "lock" comes
 * before the locks on both tables, as at a swap: ACCESS EXCLUSIVE on those whose
 * keys are to go.  "settle" drops keys that sleep, wakes those that the user had
 * made for a target of his own, and drops the ones that are awake if asked to;
 * 2BP01 if there are any, refuse is set and they are not to be dropped.
 */
extern void fk_in_lock(Migration *m, Oid left, bool drop);
extern void fk_in_settle(Migration *m, Oid left, bool drop, bool refuse);

/* For plan(): what "settle" will drop of the original's at complete. */
extern void fk_in_plan_settle(MigrationPlan *plan);

#endif
