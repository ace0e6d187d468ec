/*-------------------------------------------------------------------------
 *
 * swap_request.c
 *	  Reads, carries forward and withdraws what a caller asked for; see
 *	  swap_request.h.
 *
 * Two may write the column at a time: a caller who asks, and the leader who
 * notes its progress.  The leader so locks the row first and writes only while
 * it still says what it said when the leader read it: the same goal, asked for
 * by the same session.  A call that was given up and made again, meanwhile,
 * begins with a progress of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "catalog.h"
#include "errors.h"
#include "partman.h"
#include "sqlgen.h"
#include "swap_request.h"

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/* A field that is an object, or NULL. */
static Jsonb *
object_field(Jsonb *object, const char *field)
{
	char *text = json_field(object, field);

	return text ? json_parse(text) : NULL;
}

/* A boolean field; anything but its opposite is the default. */
static bool
bool_field(Jsonb *object, const char *field, bool otherwise)
{
	char *text = json_field(object, field);

	if (text == NULL)
		return otherwise;
	return otherwise ? strcmp(text, "false") != 0 : strcmp(text, "true") == 0;
}

static void
read_options(SwapRequest *request, Jsonb *options)
{
	char *old_snapshots = json_field(options, "old_snapshots");
	char *blockers = json_field(options, "blockers");
	char *incoming_fks = json_field(options, "incoming_fks");

	request->ignore_old_snapshots = old_snapshots && strcmp(old_snapshots, "ignore") == 0;
	request->verify = bool_field(options, "verify", true);
	request->accept_failed = bool_field(options, "accept_failed", false);
	request->drop_original = bool_field(options, "drop_original", false);
	if (incoming_fks && strcmp(incoming_fks, "keep") == 0)
		request->incoming_fks = INCOMING_FKS_KEEP;
	else if (incoming_fks && strcmp(incoming_fks, "drop") == 0)
		request->incoming_fks = INCOMING_FKS_DROP;
	if (blockers && strcmp(blockers, "cancel") == 0)
		request->blockers = BLOCKERS_CANCEL;
	else if (blockers && strcmp(blockers, "terminate") == 0)
		request->blockers = BLOCKERS_TERMINATE;
	request->pg_partman = partman_option(options);
}

static void
read_progress(SwapRequest *request, Jsonb *progress)
{
	char *stable = json_field(progress, "stable");
	char *attempts = json_field(progress, "attempts");
	char *wait_ms = json_field(progress, "wait_ms");

	request->told = json_field(progress, "told");
	request->waiting = json_field(progress, "waiting");
	request->retried_failed = bool_field(progress, "retried_failed", false);
	request->read_again = bool_field(progress, "read_again", false);
	request->stable = stable ? strtou64(stable, NULL, 10) : 0;
	request->older = json_field(progress, "older");
	request->attempts = attempts ? pg_strtoint32(attempts) : 0;
	request->wait_ms = wait_ms ? strtod(wait_ms, NULL) : 0;
	request->blocked_by = json_field(progress, "blocked_by");
}

SwapRequest *
swap_request_read(const Migration *m)
{
	SwapRequest *request = palloc0(sizeof(SwapRequest));
	char *deadline = json_field(m->request, "deadline");
	char *requester = json_field(m->request, "requester");

	if (deadline)
		request->deadline = DatumGetTimestampTz(
			DirectFunctionCall3(timestamptz_in, CStringGetDatum(deadline),
								ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	if (requester)
		request->requester = pg_strtoint64(requester);
	read_options(request, object_field(m->request, "options"));
	read_progress(request, object_field(m->request, "progress"));
	return request;
}

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------
 */

/*
 * Lock the row; true if it still asks for what m says.  m->request gets the
 * row's present contents.
 */
static bool
lock_same_request(Migration *m)
{
	Migration *now = catalog_load(m->id, true);
	char *ours = json_field(m->request, "requester");
	char *theirs;

	if (now == NULL || now->state != m->state || now->goal != m->goal)
		return false;
	theirs = json_field(now->request, "requester");
	if ((ours == NULL) != (theirs == NULL) || (ours != NULL && strcmp(ours, theirs) != 0))
		return false;
	m->request = now->request;
	return true;
}

static char *
quote_or_null(const char *text)
{
	return text ? json_quote(text) : "null";
}

/* {"progress": {"told": .., "waiting": .., ...}} */
static char *
progress_text(const SwapRequest *request)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf,
					 "{\"progress\": {\"told\": %s, \"waiting\": %s, \"retried_failed\": %s,"
					 " \"read_again\": %s",
					 quote_or_null(request->told), quote_or_null(request->waiting),
					 request->retried_failed ? "true" : "false",
					 request->read_again ? "true" : "false");
	appendStringInfo(&buf, ", \"stable\": \"" UINT64_FORMAT "\", \"older\": %s", request->stable,
					 quote_or_null(request->older));
	appendStringInfo(&buf, ", \"attempts\": %d, \"wait_ms\": %.3f, \"blocked_by\": %s}}",
					 request->attempts, request->wait_ms,
					 request->blocked_by ? request->blocked_by : "null");
	return buf.data;
}

bool
swap_request_save(Migration *m, const SwapRequest *request)
{
	Jsonb *asked;

	if (!lock_same_request(m))
		return false;
	asked = m->request ? m->request : json_parse("{}");
	catalog_save_goal(
		m, m->goal,
		DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(asked),
										   JsonbPGetDatum(json_parse(progress_text(request))))));
	return true;
}

/* psprintf for a caller that is variadic itself */
static char *format(const char *fmt, va_list args) pg_attribute_printf(1, 0);

static char *
format(const char *fmt, va_list args)
{
	size_t len = 256;

	for (;;)
	{
		char *text = palloc(len);
		va_list again;
		size_t needed;

		va_copy(again, args);
		needed = pvsnprintf(text, len, fmt, again);
		va_end(again);
		if (needed < len)
			return text;
		pfree(text);
		len = needed;
	}
}

/* told is a list of words, with a blank before and after each */
void
swap_request_tell(Migration *m, SwapRequest *request, const char *word, const char *detail,
				  const char *fmt, ...)
{
	bool is_new = !request->told || strstr(request->told, psprintf(" %s ", word)) == NULL;
	va_list args;
	char *message;

	va_start(args, fmt);
	message = format(fmt, args);
	va_end(args);
	if (!is_new && request->waiting && strcmp(request->waiting, message) == 0)
		return;
	request->waiting = message;
	if (is_new)
		request->told = psprintf("%s%s ", request->told ? request->told : " ", word);
	if (swap_request_save(m, request) && is_new)
		event_add(m, "waiting", detail, "%s", message);
}

void
swap_request_withdraw(Migration *m, int sqlerrcode, const char *values, const char *fmt, ...)
{
	va_list args;
	char *message;
	char *detail;

	va_start(args, fmt);
	message = format(fmt, args);
	va_end(args);
	if (!lock_same_request(m))
		return;
	detail = psprintf("{\"sqlstate\": \"%s\", \"detail\": %s, \"request\": %s}",
					  unpack_sql_state(sqlerrcode), quote_or_null(values),
					  m->request ? json_text(m->request) : "null");
	catalog_save_goal(m, m->state, NULL);
	catalog_save_error(m, values ? psprintf("%s: %s", message, values) : message);
	event_add(m, "refused", detail, "%s", message);
}

/*
 * cancel() is carried through whoever is gone: it was asked for once and can't
 * be harmful later, as a swap long after its caller gave up would be.
 */
bool
swap_request_holds(Migration *m, const SwapRequest *request)
{
	if (m->goal == STATE_CANCELLED)
		return true;
	if (request->requester != 0 && !lease_alive(request->requester))
	{
		swap_request_withdraw(m, ERRCODE_QUERY_CANCELED, NULL,
							  "given up: the session that asked for state %s is gone",
							  state_name(m->goal));
		return false;
	}
	if (request->deadline != 0 && GetCurrentTimestamp() >= request->deadline)
	{
		swap_request_withdraw(m, ERRCODE_MIGRATION_TIMEOUT, request->waiting,
							  "time is up, migration \"%s\" stays in state %s", m->name,
							  state_name(m->state));
		return false;
	}
	return true;
}
