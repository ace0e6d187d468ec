/*-------------------------------------------------------------------------
 *
 * mirror_guard.c
 *	  Evaluating expressions that may fail, for the mirror.
 *
 * Where a column is computed by an expression (a cast included), computing it
 * can fail for a row that the application is right to write.  A write-through
 * must turn that into a refusal.  Only then is the work done in a
 * subtransaction, which takes no transaction id and so costs next to nothing.
 * What an expression leaves behind when it fails (the executor's state of a
 * function in SQL, say) is not to be trusted: the mirror is opened anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "errors.h"
#include "mirror_internal.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

/* > 0: the subtransaction that is ending is a guard's. */
int mirror_guard_depth = 0;

/* In the guard's PG_CATCH: end the subtransaction, turn the error into a refusal. */
static void
catch_error(Call *call, MemoryContext context, ResourceOwner owner, MirrorRefusal *refusal)
{
	ErrorData *error = error_end_subtransaction(context, owner);

	mirror_guard_depth--;
	call->mirror->broken = true;
	if (error_kind(error->sqlerrcode) < ERROR_DEFINITION)
		ReThrowError(error);
	(void) refuse(call, refusal, error->sqlerrcode, "%s", error->message);
	FreeErrorData(error);
}

/*
 * Do work, which evaluates expressions.  Where it is risky, an error that is
 * the row's fault makes the result false and sets *refusal.  Settings must
 * have been pinned before: a nest level of settings can't outlive the
 * subtransaction that it was begun in.
 */
bool
run_guarded(Call *call, bool risky, Guarded work, void *arg, MirrorRefusal *refusal)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = false;

	if (!risky)
		return work(call, arg, refusal);

	BeginInternalSubTransaction(NULL);
	mirror_guard_depth++;
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		ok = work(call, arg, refusal);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		mirror_guard_depth--;
	}
	PG_CATCH();
	{
		catch_error(call, context, owner, refusal);
		ok = false;
	}
	PG_END_TRY();
	return ok;
}

bool
is_user_function(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

static bool
user_code_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_user_function, context))
		return true;
	/* these may depend on settings and be called immutable all the same: bytea_output, xmlbinary */
	if (IsA(node, CoerceViaIO) || IsA(node, XmlExpr))
		return true;
	/* a domain's checks may be anything */
	if (IsA(node, CoerceToDomain) || IsA(node, SubLink) || IsA(node, NextValueExpr))
		return true;
	return expression_tree_walker(node, user_code_walker, context);
}

/*
 * Does evaluating this call what isn't PostgreSQL's own?  Such functions see
 * the session's settings, and run as the table's owner: the writer must not
 * choose their search_path.  Nor may his settings choose what a function of
 * PostgreSQL's comes to: the day of a timestamptz depends on TimeZone.
 */
bool
contains_user_code(Node *node)
{
	return user_code_walker(node, NULL) || contain_mutable_functions(node);
}

/* Whatever an error has left behind. */
void
mirror_forget(void)
{
	mirror_guard_depth = 0;
}
