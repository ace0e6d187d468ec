/*-------------------------------------------------------------------------
 *
 * state.c
 *	  The one place that changes a migration's state, or pauses it.
 *
 *		created -> logging -> copying -> indexing -> catching_up -> live
 *		live <-> swapped -> completed
 *		any before swapped -> cancelled
 *		copying .. catching_up -> logging: the copy starts over
 *		live -> completed: of kind "key", which has nothing to swap
 *
 * The change is made in the transaction that did the work of the transition.
 * The row is locked and its state read again: two processes that both believe
 * to be the leader can't both make a step.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog.h"
#include "state.h"

#define S(state) (1 << (state))

/* which states may follow */
static const int next_states[NUM_STATES] = {
	[STATE_CREATED] = S(STATE_LOGGING) | S(STATE_CANCELLED),
	[STATE_LOGGING] = S(STATE_COPYING) | S(STATE_LOGGING) | S(STATE_CANCELLED),
	[STATE_COPYING] = S(STATE_INDEXING) | S(STATE_LOGGING) | S(STATE_CANCELLED),
	[STATE_INDEXING] = S(STATE_CATCHING_UP) | S(STATE_LOGGING) | S(STATE_CANCELLED),
	[STATE_CATCHING_UP] = S(STATE_LIVE) | S(STATE_LOGGING) | S(STATE_CANCELLED),
	[STATE_LIVE] = S(STATE_SWAPPED) | S(STATE_LOGGING) | S(STATE_CANCELLED),
	[STATE_SWAPPED] = S(STATE_LIVE) | S(STATE_COMPLETED),
};

static bool
may_follow(const Migration *now, MigrationState to)
{
	if (migration_is_key(now) && now->state == STATE_LIVE)
		return to == STATE_COMPLETED || to == STATE_CANCELLED;
	return (next_states[now->state] & S(to)) != 0;
}

void
state_change(Migration *m, MigrationState to, const char *fmt, ...)
{
	Migration *now = catalog_load(m->id, true);
	char message[512];
	va_list args;

	if (now == NULL || now->state != m->state || !may_follow(now, to))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" can't go from state %s to %s", m->name,
							   now ? state_name(now->state) : "(gone)", state_name(to))));

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	catalog_save_state(m, to);
	event_add(
		m, "state",
		psprintf("{\"from\": \"%s\", \"to\": \"%s\"}", state_name(now->state), state_name(to)),
		"%s", message);
}

/* See state.h. */
bool
migration_pause(Migration *m, const char *reason)
{
	Migration *now = catalog_load(m->id, true);

	if (now == NULL || now->paused)
		return false;
	catalog_save_pause(m, true, reason);
	event_add(m, "paused", NULL, "paused%s%s", reason ? ": " : "", reason ? reason : "");
	return true;
}
