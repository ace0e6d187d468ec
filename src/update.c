/*-------------------------------------------------------------------------
 *
 * update.c
 *	  What an update script begins with, so that ALTER EXTENSION UPDATE may run
 *	  beside migrations and writers.
 *
 * Workers and calls lock the extension, shared, in each of their transactions
 * (run.c).  A script locks it for itself: so nobody is in the middle of a piece of
 * work while functions are replaced under him, and whoever comes after the COMMIT
 * sees the new version first.  Writers don't lock it.  They read our tables when
 * a trigger fires that they don't know yet, and keep that lock until their
 * transaction ends; so what a script alters is locked here too, all in one
 * attempt, bounded like any other (lock_queue.h): who fails lets go, and nobody
 * waits long behind him.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "arguments.h"
#include "attempt.h"
#include "errors.h"
#include "lock_queue.h"
#include "run.h"
#include "settings.h"
#include "types.h"
#include "version.h"

PG_FUNCTION_INFO_V1(migrate_ext_begin_update);

/* A piece of work that takes longer, an index, has to be waited for by who can. */
#define UPDATE_PATIENCE_MS 60000
/* Behind the lock on the extension only workers and calls wait; pieces of work are of some 100 ms. */
#define UPDATE_WAIT_MS 5000
#define UPDATE_PAUSE_MS 200

typedef struct Relations
{
	Oid *oids;
	int n;
} Relations;

static Relations
relations_argument(FunctionCallInfo fcinfo, int n)
{
	Relations relations = {0};
	Datum *values;
	bool *nulls;

	argument_require(fcinfo, n, "relations");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &values, &nulls, &relations.n);
	relations.oids = palloc(relations.n * sizeof(Oid));
	for (int i = 0; i < relations.n; i++)
		relations.oids[i] = nulls[i] ? InvalidOid : DatumGetObjectId(values[i]);
	return relations;
}

/* All locks, or an error; the limits go with the GUC nest level. */
static void
lock_all(const Relations *relations)
{
	Migration none = {0}; /* the server's settings */
	int level = NewGUCNestLevel();

	limit_lock_wait(UPDATE_WAIT_MS);
	LockDatabaseObject(ExtensionRelationId, CurrentExtensionObject, 0, AccessExclusiveLock);
	limit_lock_waits(&none);
	lock_queue_enter(settings_get_int(&none, "lock_queue_ms"));
	for (int i = 0; i < relations->n; i++)
		lock_queue_lock(relations->oids[i], AccessExclusiveLock);
	lock_queue_leave();
	AtEOXact_GUC(true, level);
}

/* One attempt, in a subtransaction; what came in the way, or NULL. */
static ErrorData *
try_lock_all(const Relations *relations)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		lock_all(relations);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		lock_queue_leave();
		error = error_end_subtransaction(context, owner);
	}
	PG_END_TRY();
	return error;
}

static void
pause_attempts(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, UPDATE_PAUSE_MS,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
give_up(ErrorData *error)
{
	if (attempt_is_lock_failure(error))
		error->hint = pstrdup("Somebody is at work with migrate_ext, and has been for a minute: an "
							  "index build, or a transaction that has not ended. Pause migrations "
							  "that build indexes, and try again.");
	ReThrowError(error);
}

/*
 * begin_update(version, relations): the first statement of an update script to that
 * version, with the tables and views of ours that it alters.
 */
Datum
migrate_ext_begin_update(PG_FUNCTION_ARGS)
{
	char *version = argument_text(fcinfo, 0, "version");
	Relations relations = relations_argument(fcinfo, 1);
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), UPDATE_PATIENCE_MS);
	Migration none = {0};
	ErrorData *error;

	if (!creating_extension)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("migrate_ext.begin_update() is for update scripts"),
						errhint("ALTER EXTENSION migrate_ext UPDATE runs them.")));
	if (version_of_library_against(version) < 0)
		version_raise(ERROR, version);
	while ((error = try_lock_all(&relations)) != NULL)
	{
		if (!attempt_is_lock_failure(error) || GetCurrentTimestamp() > deadline)
			give_up(error);
		pause_attempts();
	}
	/* what the script forgot to name is not waited for either; until the script's end */
	set_until_commit("lock_timeout", psprintf("%d", settings_get_int(&none, "lock_timeout_ms")));
	PG_RETURN_VOID();
}
