/*-------------------------------------------------------------------------
 *
 * carry_statements.h
 *	  What the carriers of properties share: a kind whose difference between the
 *	  front and the back table can be told as statements.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_STATEMENTS_H
#define MIGRATE_EXT_CARRY_STATEMENTS_H

#include "carry.h"

/* The event that keeps what a swap renamed; there is one if it was ever swapped. */
#define EVENT_RENAMED "renamed"

/*
 * Shall the back table be exactly like the front one, losing what the front
 * does not have?  Not a target of the user's own before it has been swapped for
 * the first time: what stands there is his.  From then on what hangs on it is
 * what the application has had.  Not to be asked in move(): the swap under way
 * would count.
 */
extern bool carry_is_exact(const Migration *m, Direction direction);

/*
 * Execute what migrate_ext.<function>(migration id, front, back, exact, leaves,
 * ahead = false) returns, as the back table's owner, until none is left or the time of one
 * attempt is over.  True if nothing was left to do; look_only: change nothing.
 * Under the swap's locks partitions are not looked at: they were a moment ago.
 * plan: see CatalogCall, one a function.
 */
extern bool carry_by_statements(Migration *m, Direction direction, const char *function,
								SPIPlanPtr *plan, bool look_only);

/* For plan(): the same statements, and (ahead) those that can follow them. */
extern void carry_plan_statements(MigrationPlan *plan, const char *function);

#endif
