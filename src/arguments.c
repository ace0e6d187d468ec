/*-------------------------------------------------------------------------
 *
 * arguments.c
 *	  Reading and checking the arguments of SQL calls.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"

#include "arguments.h"
#include "sqlgen.h"
#include "version.h"

void
argument_require(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("parameter \"%s\" must not be null", name)));
}

char *
argument_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	argument_require(fcinfo, n, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

bool
argument_bool(FunctionCallInfo fcinfo, int n, const char *name)
{
	argument_require(fcinfo, n, name);
	return PG_GETARG_BOOL(n);
}

Jsonb *
argument_options(FunctionCallInfo fcinfo, int n)
{
	Jsonb *options;

	argument_require(fcinfo, n, "options");
	options = PG_GETARG_JSONB_P(n);
	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("parameter \"%s\" must be a JSON object", "options")));
	return options;
}

const char *
argument_on_null_key(Jsonb *options)
{
	char *given = json_field(options, "on_null_key");

	if (given != NULL && strcmp(given, "error") != 0 && strcmp(given, "skip") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"on_null_key\" can't be \"%s\"", given),
						errhint("The values are \"error\" and \"skip\".")));
	return given != NULL ? given : "error";
}

void
argument_require_writable(const char *call)
{
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	version_require();
}

void
argument_require_nonatomic(FunctionCallInfo fcinfo, const char *call)
{
	if (fcinfo->context && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
		 errmsg("%s cannot run inside a transaction block", call),
		 errdetail("It waits between transactions of its own."),
		 errhint(
			 "Call it outside of a transaction: in Rails disable_ddl_transaction!, in Django atomic = False, in Alembic with op.get_context().autocommit_block(). Several statements in one string are a transaction, too.")));
}
