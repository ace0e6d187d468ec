/*-------------------------------------------------------------------------
 *
 * procedures.c
 *	  SQL procedures: what waits.
 *
 * A procedure writes its request and commits; then it looks, again and again
 * and holding no snapshot in between, whether the request has been fulfilled
 * or refused, and tells the events that happen as NOTICEs.  Who does the work:
 * the leader, if there is one; else the session itself takes the leader's lock
 * and makes the steps.  A request holds only as long as its session does, and
 * that only as long as its client: it carries the session's lease, which the
 * swap looks at.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "arguments.h"
#include "batch.h"
#include "call_options.h"
#include "catalog.h"
#include "errors.h"
#include "partman.h"
#include "phases.h"
#include "procedures.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(migrate_ext_run);
PG_FUNCTION_INFO_V1(migrate_ext_wait_for);
PG_FUNCTION_INFO_V1(migrate_ext_verify);
PG_FUNCTION_INFO_V1(migrate_ext_finalize);
PG_FUNCTION_INFO_V1(migrate_ext_undo);
PG_FUNCTION_INFO_V1(migrate_ext_complete);
PG_FUNCTION_INFO_V1(migrate_ext_cancel);

/* Between two looks at the migration's row. */
#define POLL_MS 100

/* After so many looks without a leader, a waiting session asks for one again. */
#define POLLS_WITHOUT_LEADER 20

/* ---- begin and end ---- */

static TimestampTz
deadline_of(FunctionCallInfo fcinfo, int n)
{
	Interval *interval;
	TimestampTz deadline;

	if (PG_ARGISNULL(n))
		return 0;
	interval = PG_GETARG_INTERVAL_P(n);
	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(GetCurrentTimestamp()),
													   IntervalPGetDatum(interval)));
	if (deadline <= GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("timeout must be positive")));
	return deadline;
}

/* See procedures.h. */
void
call_begin(Call *call, FunctionCallInfo fcinfo, const char *name)
{
	Migration *m;
	char *migration = argument_text(fcinfo, 0, "migration");

	argument_require_nonatomic(fcinfo, name);
	argument_require_writable(name);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not connect to the server programming interface")));
	memset(call, 0, sizeof(Call));
	call->name = name;
	call->context =
		AllocSetContextCreate(PortalContext, "migrate_ext call", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(call->context);
	m = catalog_find(migration, false);
	call->migration = pstrdup(migration);
	call->key = migration_is_key(m);
	call->run = run_create(m->id, true);
	SPI_commit();
	MemoryContextSwitchTo(call->context);
}

static void
call_end(Call *call)
{
	if (call->leading)
		leader_unlock(call->run->migration_id);
	call->leading = false;
	lease_release(call->run);
}

void
call_finish(Call *call)
{
	call_end(call);
	SPI_finish();
}

/*
 * See procedures.h.  The subtransaction that a run works in must be ended here:
 * the main loop, which knows nothing of it, would take it for a transaction
 * block of the user's.
 */
void
call_fail(Call *call)
{
	ErrorData *error;

	MemoryContextSwitchTo(call->context);
	error = CopyErrorData();
	FlushErrorState();
	if (call->run->in_transaction)
		RollbackAndReleaseCurrentSubTransaction();
	call->run->in_transaction = false;
	call_end(call);
	ReThrowError(error);
}

/* ---- telling and waiting ---- */

/* What has happened since the last look, as NOTICEs; a refusal as the error it is. */
static void
tell_events(Call *call)
{
	List *events = event_since(call->run->migration_id, call->last_event);
	ListCell *lc;

	foreach (lc, events)
	{
		Event *event = lfirst(lc);

		call->last_event = event->id;
		if (strcmp(event->kind, "refused") == 0)
		{
			char *sqlstate = json_field(json_parse(event->detail), "sqlstate");
			char *detail = json_field(json_parse(event->detail), "detail");

			ereport(ERROR,
					(errcode(sqlstate && strlen(sqlstate) == 5
								 ? MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3],
												 sqlstate[4])
								 : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("%s", event->message),
					 detail ? errdetail("%s", detail) : errdetail("Nothing has changed."),
					 errhint("See migrate_ext.preflight(%s) and the view migrate_ext.events.",
							 quote_literal_cstr(call->migration))));
		}
		ereport(NOTICE, (errmsg("%s", event->message)));
	}
}

static void
check_deadline(Call *call, Migration *m)
{
	if (call->deadline == 0 || GetCurrentTimestamp() < call->deadline)
		return;
	ereport(ERROR, (errcode(ERRCODE_MIGRATION_TIMEOUT),
					errmsg("%s: time is up, migration \"%s\" is in state %s", call->name, m->name,
						   state_name(m->state)),
					m->last_error	  ? errdetail("Last error: %s", m->last_error)
					: m->pause_reason ? errdetail("It is paused: %s", m->pause_reason)
									  : 0,
					errhint("The view migrate_ext.progress tells what it waits for.")));
}

/* One step, and one piece of shared work. */
static StepResult
make_step(Run *run)
{
	ErrorData *error = NULL;
	StepResult result;

	result = phase_step(run, &error);
	if (result == STEP_MORE && error == NULL && phase_has_work(run))
		result = phase_work(run, &error);
	if (error)
		ReThrowError(error);
	return result;
}

/* See procedures.h. */
void
call_step_or_sleep(Call *call)
{
	Run *run = call->run;

	if (!call->leading)
		call->leading = leader_lock(run->migration_id);
	if (!call->leading || make_step(run) == STEP_WAIT)
		run_sleep(run, POLL_MS);
	CHECK_FOR_INTERRUPTS();
}

/* What a look at the row tells a waiting call. */
typedef enum Verdict
{
	KEEP_WAITING,
	REACHED
} Verdict;

typedef Verdict (*Judge)(Call *call, Migration *m, void *arg);

/* Loop until judge says so; with_work: make the steps where no leader does. */
static void
wait_until(Call *call, Judge judge, void *arg, bool with_work)
{
	int lonely = 0;

	for (;;)
	{
		Verdict verdict;
		Run *run = call->run;

		run_begin(run);
		if (run->m == NULL)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
							errmsg("migration \"%s\" does not exist any more", call->migration)));
		tell_events(call);
		verdict = judge(call, run->m, arg);
		if (verdict == KEEP_WAITING)
			check_deadline(call, run->m);
		if (!with_work && leader_pid(run->m->id) == 0 && !run->m->paused &&
			lonely++ % POLLS_WITHOUT_LEADER == 0 && !migration_is_idle(run->m))
			(void) worker_wake(run->m);
		run_commit(run);
		MemoryContextReset(run->scratch);
		if (verdict == REACHED)
			return;
		if (with_work)
			call_step_or_sleep(call);
		else
			run_sleep(run, POLL_MS);
		MemoryContextReset(run->scratch);
	}
}

/* wait_until with locks given back on any way out */
static void
wait_and_finish(Call *call, Judge judge, void *arg, bool with_work)
{
	PG_TRY();
	{
		wait_until(call, judge, arg, with_work);
	}
	PG_CATCH();
	{
		call_fail(call);
	}
	PG_END_TRY();
	call_finish(call);
}

/* ---- wait_for, run ---- */

static Verdict
judge_state(Call *call, Migration *m, void *arg)
{
	MigrationState wanted = *(MigrationState *) arg;

	if (wanted == STATE_SWAPPED)
		migration_require_target(m, "state swapped");
	if (m->state == wanted || (m->state > wanted && m->state != STATE_CANCELLED))
		return REACHED;
	if (m->state >= STATE_COMPLETED || (m->goal == STATE_CANCELLED && wanted != STATE_CANCELLED))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration \"%s\" is %s and can't reach state %s any more", m->name,
						m->state >= STATE_COMPLETED ? state_name(m->state) : "being cancelled",
						state_name(wanted))));
	return KEEP_WAITING;
}

typedef struct Wait
{
	MigrationState wanted;
	bool told; /* that it may be in vain */
} Wait;

/* judge_state, saying once what the wait could be in vain for */
static Verdict
judge_wait(Call *call, Migration *m, void *arg)
{
	Wait *wait = arg;

	if (judge_state(call, m, &wait->wanted) == REACHED)
		return REACHED;
	if (!wait->told && (m->paused || m->goal < wait->wanted))
	{
		ereport(NOTICE, (m->paused ? errmsg("migration \"%s\" is paused", m->name)
								   : errmsg("migration \"%s\" has not been asked for state %s yet",
											m->name, state_name(wait->wanted)),
						 errhint("The view migrate_ext.progress tells the next step.")));
		wait->told = true;
	}
	return KEEP_WAITING;
}

/* CALL wait_for(migration, state, timeout) */
Datum
migrate_ext_wait_for(PG_FUNCTION_ARGS)
{
	Call call;
	Wait wait = {.wanted = state_from_name(argument_text(fcinfo, 1, "state"))};
	TimestampTz deadline = deadline_of(fcinfo, 2);

	call_begin(&call, fcinfo, "migrate_ext.wait_for()");
	call.deadline = deadline;
	call.last_event = PG_INT64_MAX; /* only waits, tells nothing */
	wait_and_finish(&call, judge_wait, &wait, false);
	PG_RETURN_VOID();
}

static Verdict
judge_run(Call *call, Migration *m, void *arg)
{
	if (judge_state(call, m, arg) == REACHED)
		return REACHED;
	if (m->paused)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is paused", m->name),
						m->pause_reason ? errdetail("%s", m->pause_reason) : 0,
						errhint("Call migrate_ext.resume first.")));
	return KEEP_WAITING;
}

/* True: it is there already. */
static bool
begin_run(Call *call, MigrationState until)
{
	Run *run = call->run;
	bool reached;

	run_begin(run);
	lease_take(run);
	call->last_event = event_last_id(run->migration_id);
	reached = run->m && judge_run(call, run->m, &until) == REACHED;
	if (run->m && !reached && run->m->goal < until)
		catalog_save_goal(run->m, until, NULL);
	run_commit(run);
	return reached;
}

/*
 * Live or swapped, it wants to be looked after, too: make what steps a leader
 * would find due by now, so that a job that calls run() each minute is as good.
 */
static void
look_after(Call *call)
{
	while (make_step(call->run) == STEP_MORE &&
		   (call->deadline == 0 || GetCurrentTimestamp() < call->deadline))
	{
		MemoryContextReset(call->run->scratch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* CALL run(migration, until, timeout): the workers' job, in this session */
Datum
migrate_ext_run(PG_FUNCTION_ARGS)
{
	Call call;
	MigrationState until = state_from_name(argument_text(fcinfo, 1, "until"));
	TimestampTz deadline = deadline_of(fcinfo, 2);

	if (until < STATE_LOGGING || until > STATE_LIVE)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("migrate_ext.run() can't work towards state %s", state_name(until)),
						errhint("It goes up to live; after that call migrate_ext.finalize.")));
	call_begin(&call, fcinfo, "migrate_ext.run()");
	call.deadline = deadline;
	call.leading = leader_lock(call.run->migration_id);
	if (!call.leading)
	{
		ereport(NOTICE,
				(errmsg("another process is at work on migration \"%s\" already", call.migration)));
		call_finish(&call);
		PG_RETURN_VOID();
	}
	PG_TRY();
	{
		if (!begin_run(&call, until))
			wait_until(&call, judge_run, &until, true);
		else if (until == STATE_LIVE)
			look_after(&call);
	}
	PG_CATCH();
	{
		call_fail(&call);
	}
	PG_END_TRY();
	call_finish(&call);
	PG_RETURN_VOID();
}

/* ---- finalize, undo, complete, cancel: a request and its fulfilment ---- */

typedef struct Request
{
	MigrationState from; /* the state it starts in */
	MigrationState to;
	const char *options; /* JSON text */
	bool ends;			 /* the migration: done even while it is paused, or
								 * what somebody broke could never be ended */
} Request;

static void
refuse_other_request(Migration *m)
{
	char *requester = m->request ? json_field(m->request, "requester") : NULL;

	if (requester && lease_alive(strtoll(requester, NULL, 10)))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("another session is waiting for migration \"%s\" to become %s",
							   m->name, state_name(m->goal))));
}

/* False: it is there already. */
static bool
write_request(Call *call, Request *request)
{
	Run *run = call->run;
	Migration *m;
	Jsonb *settings;

	run_begin(run);
	lease_take(run);
	m = catalog_load(run->migration_id, true);
	if (m == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("migration \"%s\" does not exist any more", call->migration)));
	if (request->to == STATE_LIVE)
		migration_require_target(m, call->name);
	call->last_event = event_last_id(m->id);
	if (m->state == request->to && m->request == NULL)
	{
		run_commit(run);
		return false;
	}
	if (request->to == STATE_CANCELLED ? m->state >= STATE_SWAPPED : m->state != request->from)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("migration \"%s\" is in state %s", m->name, state_name(m->state)),
			 request->to == STATE_CANCELLED
				 ? errdetail("Only a migration that has not been swapped can be cancelled.")
				 : errdetail("%s needs state %s.", call->name, state_name(request->from)),
			 m->state == STATE_SWAPPED
				 ? errhint("CALL migrate_ext.undo first, or CALL migrate_ext.complete.")
			 : m->state < STATE_LIVE && request->from == STATE_LIVE
				 ? errhint(
					   "SELECT migrate_ext.start and CALL migrate_ext.wait_for(%s, 'live') come first.",
					   quote_literal_cstr(m->name))
				 : 0));
	if (m->paused && !request->ends)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is paused", m->name),
						m->pause_reason ? errdetail("%s", m->pause_reason) : 0,
						errhint("Call migrate_ext.resume first.")));
	refuse_other_request(m);
	settings = partman_option(json_parse(request->options));
	if (settings)
		partman_check(m, settings);
	catalog_save_error(m, NULL);
	catalog_save_goal(
		m, request->to,
		json_parse(psprintf(
			"{\"call\": %s, \"requester\": " INT64_FORMAT ", \"deadline\": %s, \"options\": %s}",
			json_quote(call->name), run->lease,
			call->deadline ? json_quote(timestamptz_to_str(call->deadline)) : "null",
			request->options)));
	if (leader_pid(m->id) != 0)
		(void) worker_wake(m);
	run_commit(run);
	return true;
}

static Verdict
judge_request(Call *call, Migration *m, void *arg)
{
	Request *request = arg;

	if (m->state == request->to)
		return REACHED;
	if (m->goal != request->to)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("%s of migration \"%s\" was given up", call->name, m->name),
						m->last_error ? errdetail("%s", m->last_error) : 0));
	if (m->paused && !request->ends)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is paused", m->name),
						m->pause_reason ? errdetail("%s", m->pause_reason) : 0));
	return KEEP_WAITING;
}

/* With no table to swap, both finalize and complete are the end; there is nothing to undo. */
static void
adapt_to_key(Request *request)
{
	if (request->to != STATE_SWAPPED && request->to != STATE_COMPLETED)
		return;
	request->from = STATE_LIVE;
	request->to = STATE_COMPLETED;
	request->ends = false;
}

static void
fulfil(FunctionCallInfo fcinfo, const char *name, Request *request, TimestampTz deadline)
{
	Call call;
	volatile bool written = false;

	call_begin(&call, fcinfo, name);
	if (call.key)
		adapt_to_key(request);
	/* the one who does it gives up at the deadline; we wait a little longer */
	call.deadline = deadline;
	PG_TRY();
	{
		written = write_request(&call, request);
	}
	PG_CATCH();
	{
		call_fail(&call);
	}
	PG_END_TRY();

	if (!written)
	{
		ereport(NOTICE, (errmsg("migration \"%s\" is %s already", call.migration,
								state_name(request->to))));
		call_finish(&call);
		return;
	}
	if (deadline)
		call.deadline = deadline + 5 * USECS_PER_SEC;
	wait_and_finish(&call, judge_request, request, true);
}

/* CALL finalize(migration, timeout, options): live -> swapped */
Datum
migrate_ext_finalize(PG_FUNCTION_ARGS)
{
	Request request = {STATE_LIVE, STATE_SWAPPED, call_options(fcinfo, 2, false)};

	fulfil(fcinfo, "migrate_ext.finalize()", &request, deadline_of(fcinfo, 1));
	PG_RETURN_VOID();
}

/* CALL undo(migration, timeout, options): swapped -> live */
Datum
migrate_ext_undo(PG_FUNCTION_ARGS)
{
	Request request = {STATE_SWAPPED, STATE_LIVE, call_options(fcinfo, 2, false)};

	fulfil(fcinfo, "migrate_ext.undo()", &request, deadline_of(fcinfo, 1));
	PG_RETURN_VOID();
}

/* CALL complete(migration, drop_original, options): swapped -> completed */
Datum
migrate_ext_complete(PG_FUNCTION_ARGS)
{
	bool drop_original = argument_bool(fcinfo, 1, "drop_original");
	char *options = call_options(fcinfo, 2, true);
	Request request = {STATE_SWAPPED, STATE_COMPLETED, NULL, true};

	request.options = psprintf("{\"drop_original\": %s%s%s", drop_original ? "true" : "false",
							   strcmp(options, "{}") == 0 ? "" : ", ", options + 1);
	fulfil(fcinfo, "migrate_ext.complete()", &request, 0);
	PG_RETURN_VOID();
}

/* CALL cancel(migration): any state before swapped -> cancelled */
Datum
migrate_ext_cancel(PG_FUNCTION_ARGS)
{
	Request request = {STATE_CREATED, STATE_CANCELLED, "{}", true};

	fulfil(fcinfo, "migrate_ext.cancel()", &request, 0);
	PG_RETURN_VOID();
}

/* ---- verify ---- */

static void
verify(Call *call)
{
	Run *run = call->run;
	VerifyCounts counts = {0};
	bool complete;

	run_begin(run);
	if (run->m == NULL || (run->m->state != STATE_LIVE && run->m->state != STATE_SWAPPED))
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("migration \"%s\" is in state %s", call->migration,
					run->m ? state_name(run->m->state) : "(gone)"),
			 errdetail("%s compares tables that are kept equal: it needs state live or swapped.",
					   call->name)));
	if (run->m->paused)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migration \"%s\" is paused", run->m->name),
						run->m->pause_reason ? errdetail("%s", run->m->pause_reason) : 0,
						errhint("Call migrate_ext.resume first.")));
	lease_take(run);
	run_commit(run);
	if (call->key)
	{
		complete = key_verify(run, call->deadline, &counts);
		ereport(NOTICE,
				(errmsg("migration \"%s\": " INT64_FORMAT " rows looked at, " INT64_FORMAT
						" without the key, " INT64_FORMAT " skipped, " INT64_FORMAT " failed%s",
						call->migration, counts.checked, counts.missing, counts.skipped,
						counts.failed, complete ? "" : "; stopped before the end, time is up")));
		return;
	}
	complete = verify_all(run, call->deadline, &counts);
	ereport(NOTICE,
			(errmsg("migration \"%s\": " INT64_FORMAT " rows compared, " INT64_FORMAT
					" missing, " INT64_FORMAT " extra, " INT64_FORMAT " different%s",
					call->migration, counts.checked, counts.missing, counts.extra, counts.different,
					complete ? "" : "; stopped before the end, time is up")));
}

/* CALL verify(migration, timeout): compares all, also in state swapped */
Datum
migrate_ext_verify(PG_FUNCTION_ARGS)
{
	Call call;
	TimestampTz deadline = deadline_of(fcinfo, 1);

	call_begin(&call, fcinfo, "migrate_ext.verify()");
	call.deadline = deadline;
	PG_TRY();
	{
		verify(&call);
	}
	PG_CATCH();
	{
		call_fail(&call);
	}
	PG_END_TRY();
	call_finish(&call);
	PG_RETURN_VOID();
}
