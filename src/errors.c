/*-------------------------------------------------------------------------
 *
 * errors.c
 *	  Whose fault an error is, and the end of what it failed in; see errors.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "errors.h"

/*
 * What isn't known to be otherwise is a row's: an owner's function may raise
 * anything, and a fault that every row has shows soon enough by their number.
 */
ErrorKind
error_kind(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK):
			return ERROR_AGAIN;
		case ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES):
		case ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR):
		case ERRCODE_TO_CATEGORY(ERRCODE_CONFIG_FILE_ERROR):
			return ERROR_SERVER;
		case ERRCODE_TO_CATEGORY(ERRCODE_MIGRATION_RESTART):
			return ERROR_OURS;
		case ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION):
			return ERROR_DEFINITION;
		default:
			return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ? ERROR_AGAIN : ERROR_ROW;
	}
}

/* See errors.h. */
ErrorData *
error_end_subtransaction(MemoryContext context, ResourceOwner owner)
{
	ErrorData *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}
