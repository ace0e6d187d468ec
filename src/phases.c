/*-------------------------------------------------------------------------
 *
 * phases.c
 *	  The state machine: which stage makes a migration's next step.
 *
 * A leader (a worker, or a session inside a CALL) holds the leader lock and
 * calls phase_step() in a loop.  What is wanted stands in the migration's row:
 * goal, pause, request.  What is done is written by the stages, each transition
 * in the transaction that did its work.  So a leader can die at any line: the
 * next one reads the row and goes on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "debug_point.h"
#include "errors.h"
#include "phases.h"
#include "run.h"
#include "sample.h"
#include "stages.h"
#include "state.h"
#include "throttle.h"

typedef StepResult (*StepFunction)(Run *run);

typedef struct Phase
{
	StepFunction step; /* towards the next state */
	StepFunction work; /* shared out to helpers, or NULL */
} Phase;

static const Phase phases[NUM_STATES] = {
	[STATE_CREATED] = {install_step, NULL},	   [STATE_LOGGING] = {copy_begin_step, NULL},
	[STATE_COPYING] = {copy_step, copy_work},  [STATE_INDEXING] = {index_step, index_work},
	[STATE_CATCHING_UP] = {golive_step, NULL}, [STATE_LIVE] = {swap_step, NULL},
};

/* Those of kind "key", whose states are the same. */
static const Phase key_phases[NUM_STATES] = {
	[STATE_CREATED] = {key_begin_step, NULL},		  [STATE_LOGGING] = {key_logging_step, NULL},
	[STATE_COPYING] = {key_copy_step, key_copy_work}, [STATE_INDEXING] = {key_indexing_step, NULL},
	[STATE_CATCHING_UP] = {key_catch_up_step, NULL},
};

static const Phase *
phase_of(bool key, MigrationState state)
{
	return key ? &key_phases[state] : &phases[state];
}

void
phase_saw(Run *run, const Migration *m)
{
	run->seen_key = migration_is_key(m);
	run->seen_state = m->state;
	run->seen_idle = migration_is_idle(m);
	run->seen_verifying = verify_has_work(m);
}

bool
phase_has_work(const Run *run)
{
	return run->seen_verifying || phase_of(run->seen_key, run->seen_state)->work != NULL;
}

/*
 * A tampered trigger: after resume() it is put right, which before going live
 * means to start over, since writes may have gone unrecorded.
 */
static StepResult
mend(Run *run, MigrationState state)
{
	if (state < STATE_LIVE)
		return install_restart_step(run);
	return install_mend_step(run);
}

/* The same for kind "key": nothing to swap, and no trigger to look after. */
static StepResult
dispatch_key(Run *run, const Migration *m)
{
	if (m->goal == STATE_CANCELLED)
		return key_cancel_step(run);
	if (m->paused)
		return STEP_WAIT;
	if (m->state == STATE_LIVE)
		return m->goal == STATE_COMPLETED ? key_finish_step(run) : STEP_WAIT;
	if (m->state >= m->goal)
		return STEP_WAIT;
	return key_phases[m->state].step(run);
}

/* The step for what the row says; outside of a transaction. */
static StepResult
dispatch(Run *run, const Migration *m)
{
	if (m->state > STATE_SWAPPED)
		return STEP_WAIT;
	if (migration_is_key(m))
		return dispatch_key(run, m);
	if (m->goal == STATE_CANCELLED)
		return cancel_step(run);
	if (m->goal == STATE_COMPLETED && m->state == STATE_SWAPPED)
		return complete_step(run);
	if (m->paused)
		return STEP_WAIT;
	if (m->state > STATE_CREATED && m->needs_mending)
		return mend(run, m->state);
	if (m->state == STATE_SWAPPED)
		return m->goal == STATE_LIVE ? swap_step(run) : live_step(run);
	if (m->state == STATE_LIVE && m->goal != STATE_SWAPPED)
		return live_step(run);
	if (m->state >= m->goal)
		return STEP_WAIT;
	return phases[m->state].step(run);
}

/* Read the row, then step. */
static StepResult
step(Run *run)
{
	Migration m;
	bool restart;

	run_begin(run);
	run->gone = run->m == NULL;
	if (run->gone)
	{
		run_commit(run);
		return STEP_DONE;
	}
	m = *run->m;
	phase_saw(run, &m);
	throttle_settle(&m);
	sample_take(&m);
	restart = m.state > STATE_CREATED && m.state < STATE_LIVE && truncation_pending(m.id);
	run_commit(run);

	/* what the state was reached by is committed, what comes next has not begun */
	ME_DEBUG_POINT(psprintf("step_%s", state_name(m.state)));
	if (restart && !m.paused && m.goal != STATE_CANCELLED)
		return run->seen_key ? key_restart_step(run) : install_restart_step(run);
	return dispatch(run, &m);
}

/* ---- errors ---- */

static void
record_restart(Run *run, ErrorData *error)
{
	run_begin(run);
	/* one of several helpers that found out is enough */
	if (run->m && run->m->state < STATE_LIVE && !truncation_pending(run->m->id))
	{
		truncation_mark(run->m->id);
		event_add(run->m, "restart", NULL, "%s", error->message);
	}
	run_commit(run);
}

static void
record_tampering(Run *run, ErrorData *error)
{
	run_begin(run);
	if (run->m && migration_pause(run->m, error->message))
	{
		if (!migration_is_key(run->m))
			catalog_save_tainted(run->m);
		ereport(WARNING, (errmsg("migration \"%s\" is paused: %s", run->m->name, error->message),
						  error->hint ? errhint("%s", error->hint) : 0));
	}
	run_commit(run);
}

/*
 * Whoever was in the way is gone at the next try or the one after it.  What fails so many
 * times in a row is told like any other error.
 */
#define AGAIN_IN_SILENCE 10

/* What record_error() wrote down last: a worker has one migration at a time. */
static char *recorded_error = NULL;

/*
 * An error of a worker: once as an event and in the server's log, not at every
 * try.
 */
static void
record_error(Run *run, ErrorData *error)
{
	run_begin(run);
	if (run->m && (run->m->last_error == NULL || strcmp(run->m->last_error, error->message) != 0))
	{
		catalog_save_error(run->m, error->message);
		event_add(run->m, "error", NULL, "%s", error->message);
		if (recorded_error)
			pfree(recorded_error);
		recorded_error = MemoryContextStrdup(TopMemoryContext, error->message);
		ereport(LOG, (errcode(error->sqlerrcode),
					  errmsg("migration \"%s\", state %s: %s", run->m->name,
							 state_name(run->m->state), error->message),
					  error->detail ? errdetail_internal("%s", error->detail) : 0,
					  error->context ? errcontext("%s", error->context) : 0));
	}
	run_commit(run);
}

/* Only our own: why a request was refused is to be read until the next one. */
static void
clear_error(Run *run)
{
	run_begin(run);
	if (run->m && run->m->last_error && recorded_error &&
		strcmp(run->m->last_error, recorded_error) == 0)
		catalog_save_error(run->m, NULL);
	run_commit(run);
}

/* Call f; whatever it throws has been rolled back when this returns. */
static StepResult
guarded(Run *run, StepFunction f, ErrorData **error)
{
	volatile StepResult result = STEP_WAIT;

	*error = NULL;
	PG_TRY();
	{
		result = f(run);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(run->scratch);
		*error = CopyErrorData();
		FlushErrorState();
		run_abort(run);
	}
	PG_END_TRY();

	if (*error == NULL)
	{
		run->again = 0;
		return result;
	}
	if (run->in_session && (*error)->sqlerrcode == ERRCODE_QUERY_CANCELED)
		return STEP_WAIT;
	if ((*error)->sqlerrcode == ERRCODE_MIGRATION_RESTART)
		record_restart(run, *error);
	else if ((*error)->sqlerrcode == ERRCODE_MIGRATION_TAMPERED)
		record_tampering(run, *error);
	else if (error_kind((*error)->sqlerrcode) != ERROR_AGAIN ||
			 (++run->again > AGAIN_IN_SILENCE && !run->in_session))
	{
		if (!run->in_session)
			record_error(run, *error);
		return STEP_WAIT;
	}
	*error = NULL;
	return STEP_WAIT;
}

/* Count errors in a row; the first success forgets them, and says so. */
static void
count_error(Run *run, const ErrorData *error, int *errors)
{
	if (error != NULL)
		(*errors)++;
	else if (*errors > 0)
	{
		*errors = 0;
		if (!run->gone)
			clear_error(run);
	}
}

StepResult
phase_step(Run *run, ErrorData **error)
{
	StepResult result = guarded(run, step, error);

	count_error(run, *error, &run->errors);
	return result;
}

/*
 * A piece of shared work, when pacing allows it; until then the row is looked at again.
 * A comparison asks for each of its ranges by itself.
 */
static StepResult
paced_work(Run *run)
{
	if (run->seen_verifying)
		return verify_work(run);
	if (!throttle_may_go(run))
		return STEP_MORE;
	return phase_of(run->seen_key, run->seen_state)->work(run);
}

StepResult
phase_work(Run *run, ErrorData **error)
{
	StepResult result = STEP_WAIT;

	*error = NULL;
	if (phase_has_work(run))
		result = guarded(run, paced_work, error);
	/* that there is nothing to do is no success */
	if (*error != NULL || result == STEP_MORE)
		count_error(run, *error, &run->work_errors);
	return result;
}
