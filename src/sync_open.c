/*-------------------------------------------------------------------------
 *
 * sync_open.c
 *	  What the sync trigger has open, and when it lets go of it.
 *
 * What is open (mirror, log) stays so until the transaction ends, under a
 * resource owner below the transaction's, not the statement's or the
 * savepoint's: an UPDATE of 1,000 rows opens its tables once.  It is let go of
 *
 *	 - before the commit (or PREPARE), while that is still possible;
 *	 - when the transaction aborts, together with everything else;
 *	 - when a savepoint is rolled back: a partition made after it is gone;
 *	 - by sync_release(), before DDL of ours.
 *
 * What the mirror knows of the tables outlives a commit, but none of the others.
 *
 * The front side is never kept open: BEGIN; UPDATE t; ALTER TABLE t ...; must
 * go on working.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "errors.h"
#include "miscadmin.h"
#include "run.h"
#include "sync.h"
#include "sync_internal.h"
#include "utils/memutils.h"

/* In CacheMemoryContext. */
static List *open_list = NIL;

/* A subtransaction of our own that is ending must not close what it opens. */
static bool opening = false;

static SyncOpen *
find_open(int64 migration_id, Direction direction)
{
	ListCell *cell;

	foreach (cell, open_list)
	{
		SyncOpen *open = lfirst(cell);

		if (open->migration_id == migration_id && open->direction == direction)
			return open;
	}
	return NULL;
}

/* See sync_internal.h. */
SyncOpen *
sync_open(SyncTable *table)
{
	SyncOpen *open = find_open(table->migration_id, table->direction);
	MemoryContext old_context;
	MemoryContext context;

	if (open == NULL)
	{
		old_context = MemoryContextSwitchTo(CacheMemoryContext);
		context =
			AllocSetContextCreate(CurrentMemoryContext, "migrate_ext sync", ALLOCSET_SMALL_SIZES);
		open = MemoryContextAllocZero(context, sizeof(SyncOpen));
		open->context = context;
		open->migration_id = table->migration_id;
		open->direction = table->direction;
		open_list = lappend(open_list, open);
		MemoryContextSwitchTo(old_context);
	}
	if (open->owner == NULL)
	{
		open->log_context =
			AllocSetContextCreate(TopTransactionContext, "migrate_ext log", ALLOCSET_SMALL_SIZES);
		open->owner = ResourceOwnerCreate(TopTransactionResourceOwner, "migrate_ext sync");
	}
	return open;
}

/* The log, open; NULL if it is gone. */
ChangeLog *
sync_open_log(SyncTable *table, SyncOpen *open)
{
	ResourceOwner save_owner = CurrentResourceOwner;
	MemoryContext old_context;

	if (open->log != NULL)
		return open->log;
	old_context = MemoryContextSwitchTo(open->log_context);
	CurrentResourceOwner = open->owner;
	open->log = changelog_open(table->m->log);
	CurrentResourceOwner = save_owner;
	MemoryContextSwitchTo(old_context);
	return open->log;
}

/* Errors of opening that are the session's own business, not the tables'. */
static bool
must_reach_session(int sqlerrcode)
{
	ErrorKind kind = error_kind(sqlerrcode);

	return kind == ERROR_AGAIN || kind == ERROR_SERVER;
}

/*
 * In PG_CATCH: the tables don't fit any more.  From now on, in this
 * transaction, everything is logged.
 */
static void
catch_opening(SyncTable *table, SyncOpen *open, MemoryContext context, ResourceOwner owner)
{
	ErrorData *error = error_end_subtransaction(context, owner);

	opening = false;
	if (must_reach_session(error->sqlerrcode))
		ReThrowError(error);
	open->mirror_failed = true;
	ereport(DEBUG1, (errmsg("migrate_ext logs changes of migration \"%s\": %s", table->m->name,
							error->message)));
	FreeErrorData(error);
}

/* Of another transaction: open its tables again.  What changed meanwhile makes it stale. */
static void
wake_mirror(SyncOpen *open)
{
	ResourceOwner save_owner = CurrentResourceOwner;

	CurrentResourceOwner = open->owner;
	open->mirror_awake = true;
	(void) mirror_wake(open->mirror);
	CurrentResourceOwner = save_owner;
}

/*
 * The mirror, open and up to date; NULL if it can't be opened.  In a
 * subtransaction, where it is not kept: that a column is missing on the other
 * side must not fail the application's write.
 */
Mirror *
sync_open_mirror(SyncTable *table, SyncOpen *open)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	UserSwitch user;

	if (open->mirror != NULL && !open->mirror_awake)
		wake_mirror(open);
	if (open->mirror != NULL && mirror_is_stale(open->mirror) && !mirror_is_busy(open->mirror))
	{
		mirror_close(open->mirror);
		open->mirror = NULL;
		open->mirror_awake = false;
	}
	if (open->mirror != NULL || open->mirror_failed)
		return open->mirror;

	BeginInternalSubTransaction(NULL);
	opening = true;
	PG_TRY();
	{
		user_switch_owner(&user, table->m->owner);
		MemoryContextSwitchTo(open->context);
		CurrentResourceOwner = open->owner;
		open->mirror = mirror_open(table->m, table->direction);
		open->mirror_awake = true;
		user_switch_back(&user);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		opening = false;
	}
	PG_CATCH();
	{
		catch_opening(table, open, context, owner);
	}
	PG_END_TRY();
	return open->mirror;
}

/* ------------------------------------------------------------------------
 * Closing
 * ------------------------------------------------------------------------
 */

/* What is the transaction's own.  Locks stay. */
static void
close_transaction(SyncOpen *open)
{
	if (open->owner == NULL)
		return;
	ResourceOwnerRelease(open->owner, RESOURCE_RELEASE_BEFORE_LOCKS, false, false);
	ResourceOwnerRelease(open->owner, RESOURCE_RELEASE_LOCKS, true, false);
	ResourceOwnerRelease(open->owner, RESOURCE_RELEASE_AFTER_LOCKS, false, false);
	ResourceOwnerDelete(open->owner);
	MemoryContextDelete(open->log_context);
	memset((char *) open + offsetof(SyncOpen, owner), 0,
		   sizeof(SyncOpen) - offsetof(SyncOpen, owner));
}

static void
drop_open(SyncOpen *open)
{
	open_list = list_delete_ptr(open_list, open);
	MemoryContextDelete(open->context);
}

/* Close all of it, whatever an error has left half-way. */
static void
close_open(SyncOpen *open)
{
	if (open->mirror != NULL)
		mirror_close(open->mirror);
	close_transaction(open);
	drop_open(open);
}

/* Before the commit: what the next transaction can use is kept. */
static void
rest_open(SyncOpen *open)
{
	if (open->owner == NULL)
		return;
	if (open->mirror_failed || (open->mirror_awake && !mirror_rest(open->mirror)))
		close_open(open);
	else
		close_transaction(open);
}

static void
check_not_busy(SyncOpen *open)
{
	if (open->owner != NULL && open->mirror != NULL && mirror_is_busy(open->mirror))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a table of a migration is changed while a row of it is carried over")));
}

void
sync_release_migration(int64 migration_id)
{
	ListCell *cell;

	foreach (cell, list_copy(open_list))
	{
		SyncOpen *open = lfirst(cell);

		if (open->migration_id != migration_id)
			continue;
		check_not_busy(open);
		close_open(open);
	}
}

void
sync_release(void)
{
	ListCell *cell;

	foreach (cell, open_list)
		check_not_busy(lfirst(cell));
	while (open_list != NIL)
		close_open(linitial(open_list));
}

static void
transaction_callback(XactEvent event, void *arg)
{
	ListCell *cell;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
			foreach (cell, list_copy(open_list))
				rest_open(lfirst(cell));
			break;
		default:
			/* what is still open goes with the transaction; what was known, with an error */
			foreach (cell, list_copy(open_list))
			{
				SyncOpen *open = lfirst(cell);

				if (open->owner != NULL)
					drop_open(open);
			}
			opening = false;
			mirror_forget();
			break;
	}
}

/*
 * A savepoint is rolled back.  Where that is part of a call under way (a
 * function of a user's caught an error), the call goes on.
 */
static void
subtransaction_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
						void *arg)
{
	ListCell *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB || opening)
		return;
	foreach (cell, list_copy(open_list))
	{
		SyncOpen *open = lfirst(cell);

		if (open->owner != NULL && (open->mirror == NULL || !mirror_is_busy(open->mirror)))
			close_open(open);
	}
}

void
sync_init(void)
{
	RegisterXactCallback(transaction_callback, NULL);
	RegisterSubXactCallback(subtransaction_callback, NULL);
	sync_cache_init();
}
