/*-------------------------------------------------------------------------
 *
 * state.h
 *	  The one place that changes a migration's state, or pauses it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_STATE_H
#define MIGRATE_EXT_STATE_H

#include "types.h"

/*
 * Move m to state "to", in the current transaction, which must be the one that
 * did the work.  Checks that the step is allowed from the state in which the
 * row stands now (it is locked), records an event and NOTIFYs.  Errors with
 * 55000 if another session moved it meanwhile.
 */
extern void state_change(Migration *m, MigrationState to, const char *fmt, ...)
	pg_attribute_printf(3, 4);

/*
 * Pause m, in the current transaction, with an event.  False, and nothing has changed,
 * if it is paused already (its row is locked to see that) or gone.
 */
extern bool migration_pause(Migration *m, const char *reason);

#endif
