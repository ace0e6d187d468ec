/*-------------------------------------------------------------------------
 *
 * call_options.c
 *	  The options of finalize, undo and complete; see call_options.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "arguments.h"
#include "call_options.h"
#include "sqlgen.h"

/* Who takes an option. */
#define SWAPS 1		/* finalize and undo */
#define COMPLETES 2 /* complete */

/* Their values, the default first. */
static const struct
{
	const char *name;
	int taken_by;
	bool object; /* or an object, which the one who reads it checks */
	const char *values[4];
} call_option[] = {
	{"old_snapshots", SWAPS, false, {"wait", "ignore"}},
	{"blockers", SWAPS, false, {"wait", "cancel", "terminate"}},
	{"verify", SWAPS, false, {"true", "false"}},
	{"accept_failed", SWAPS, false, {"false", "true"}},
	{"incoming_fks", SWAPS | COMPLETES, false, {"move", "keep", "drop"}},
	{"pg_partman", COMPLETES, true, {"false", "true"}},
};

static void
check_option(const char *name, const char *value, bool object, int caller)
{
	int i;
	int j;

	for (i = 0; i < lengthof(call_option); i++)
	{
		if (strcmp(call_option[i].name, name) != 0 || !(call_option[i].taken_by & caller))
			continue;
		if (object && call_option[i].object)
			return;
		for (j = 0; j < 4 && call_option[i].values[j]; j++)
			if (value && strcmp(call_option[i].values[j], value) == 0)
				return;
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for option \"%s\": %s", name, value ? value : "null"),
						errhint("Values are %s, %s%s%s%s; the first is the default.",
								call_option[i].values[0], call_option[i].values[1],
								call_option[i].values[2] ? ", " : "",
								call_option[i].values[2] ? call_option[i].values[2] : "",
								call_option[i].object ? ", an object" : "")));
	}
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized option \"%s\"", name),
		 caller == COMPLETES
			 ? errhint("Options are incoming_fks and pg_partman.")
			 : errhint(
				   "Options are old_snapshots, blockers, verify, accept_failed and incoming_fks.")));
}

char *
call_options(FunctionCallInfo fcinfo, int n, bool completes)
{
	Jsonb *options = argument_options(fcinfo, n);
	JsonbIterator *it = JsonbIteratorInit(&options->root);
	JsonbValue v;
	JsonbIteratorToken token;
	char *name = NULL;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE)
			check_option(name, json_field(options, name),
						 v.type == jbvBinary && JsonContainerIsObject(v.val.binary.data),
						 completes ? COMPLETES : SWAPS);
	}
	return json_text(options);
}
