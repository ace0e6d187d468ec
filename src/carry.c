/*-------------------------------------------------------------------------
 *
 * carry.c
 *	  What hangs on the application's table and follows it at a swap; see
 *	  carry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "attempt.h"
#include "carry.h"
#include "carry_kinds.h"
#include "run.h"
#include "utils/timestamp.h"

struct Carried
{
	void *of[lengthof(carriers)];
};

Oid
carry_front(const Migration *m, Direction direction)
{
	return direction == DIRECTION_FORWARD ? m->source : m->target;
}

Oid
carry_back(const Migration *m, Direction direction)
{
	return direction == DIRECTION_FORWARD ? m->target : m->source;
}

bool
carry_is_prepared(Migration *m, Direction direction)
{
	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i] != NULL && carriers[i]->prepare != NULL &&
			!carriers[i]->prepare(m, direction, true))
			return false;
	}
	return true;
}

/* The body of an attempt: the first carrier that has something left to do. */
static void
prepare_one(Run *run, void *arg)
{
	bool *done = arg;
	Migration *m = run->m;
	Direction direction;

	*done = true;
	if (m == NULL || m->paused || (m->state != STATE_LIVE && m->state != STATE_SWAPPED))
		return;
	direction = m->state == STATE_SWAPPED ? DIRECTION_REVERSE : DIRECTION_FORWARD;
	run_limit_lock_waits(run);
	for (int i = 0; i < lengthof(carriers) && *done; i++)
	{
		if (carriers[i] != NULL && carriers[i]->prepare != NULL)
			*done = carriers[i]->prepare(m, direction, false);
	}
}

StepResult
carry_prepare_step(Run *run)
{
	ErrorData *error = NULL;
	TimestampTz began = GetCurrentTimestamp();
	bool done = true;

	if (run_attempt(run, prepare_one, &done, &error))
		return done ? STEP_DONE : STEP_MORE;
	if (!attempt_is_lock_failure(error))
		ReThrowError(error);
	attempt_failed(run, began, TimestampDifferenceMilliseconds(began, GetCurrentTimestamp()));
	return STEP_WAIT;
}

Carried *
carry_collect(Migration *m, Direction direction)
{
	Carried *carried = palloc0(sizeof(Carried));

	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i] != NULL && carriers[i]->collect != NULL)
			carried->of[i] = carriers[i]->collect(m, direction);
	}
	return carried;
}

void
carry_move(Migration *m, Direction direction, Carried *carried)
{
	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i] != NULL && carriers[i]->move != NULL)
			carriers[i]->move(m, direction, carried->of[i]);
	}
}

void
carry_leave(Migration *m, Oid left)
{
	for (int i = 0; i < lengthof(carriers); i++)
	{
		if (carriers[i] != NULL && carriers[i]->leave != NULL)
			carriers[i]->leave(m, left);
	}
}
