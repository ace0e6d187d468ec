/*-------------------------------------------------------------------------
 *
 * lock_queue.c
 *	  An attempt at a lock ends early where too many wait behind it; see
 *	  lock_queue.h.
 *
 * Who waits for a lock sleeps in the depth of PostgreSQL's lock manager, so only
 * a timer can look around meanwhile.  Its handler may take no lock: it reads the
 * length of queues, one integer each, and where the sum gets too large has
 * lock_timeout pass at once.  From there on all is as if it had.
 *
 * Which queues: that of the lock waited for, by MyProc->waitLock, and those of
 * the locks that were taken before.  Entries of the lock table stay where they
 * are as long as somebody holds the lock, and we do until the transaction, or
 * the subtransaction that an attempt is in a session, has ended.  Should the
 * timer come between that and lock_queue_leave(), it finds us waiting for no
 * lock, and does nothing.  It runs where we may wait, not through all the work
 * of an attempt.
 *
 * Counted are those ahead of us in the queue as well: it can't be told in a
 * handler who is.  That is on the safe side, and nobody should join a long queue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "lock_queue.h"

/* Between two looks. */
#define TICK_MS 10

/* More relations than this are locked one after the other by no attempt that counts. */
#define MAX_HELD 64

static TimeoutId timer = MAX_TIMEOUTS; /* until it is registered */

/* Of the attempt under way; written with the timer off, or by its handler. */
static LOCK *held[MAX_HELD];
static int nheld = 0;
static int budget = 0;
static volatile int waited = 0;
static volatile bool ticked = false;

static void
look_behind(void)
{
	LOCK *awaited = MyProc->waitLock;
	int waiting;
	int i;

	ticked = true;
	/* for a moment a process is about to wait, and its timeouts are not set */
	if (awaited == NULL || !get_timeout_active(LOCK_TIMEOUT))
		return;
	waiting = lock_waiters(awaited) - 1;
	for (i = 0; i < nheld; i++)
		waiting += lock_waiters(held[i]);
	waited += Max(waiting, 0) * TICK_MS;
	if (waited >= budget)
		enable_timeout_after(LOCK_TIMEOUT, 0);
}

/*
 * A tick sets the latch, whoever has asked for it: left so, the next sleep would
 * be none.  What else set it meanwhile is forgotten with it, as in any wait for a
 * lock: whoever relies on it looks again after a while.
 */
static void
stop_timer(void)
{
	disable_timeout(timer, false);
	if (ticked)
		ResetLatch(MyLatch);
	ticked = false;
}

/* See lock_queue.h. */
void
lock_queue_watch(bool on)
{
	if (budget == 0)
		return;
	if (on)
		enable_timeout_every(timer, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TICK_MS),
							 TICK_MS);
	else
		stop_timer();
}

/* See lock_queue.h. */
void
lock_queue_enter(int budget_ms)
{
	if (timer == MAX_TIMEOUTS)
		timer = RegisterTimeout(USER_TIMEOUT, look_behind);
	nheld = 0;
	waited = 0;
	budget = budget_ms;
}

/* See lock_queue.h. */
void
lock_queue_leave(void)
{
	if (budget > 0)
		stop_timer();
	budget = 0;
	nheld = 0;
}

/*
 * The lock table's entry of a lock that this process holds in that mode; NULL for
 * one held by the fast path.  Taking it once more is what tells.
 */
static LOCK *
entry_of(Oid relid, LOCKMODE mode)
{
	LOCKTAG tag;
	LOCALLOCK *local;
	LOCK *entry;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	(void) LockAcquireExtended(&tag, mode, false, false, true, &local, false);
	entry = local->lock;
	LockRelease(&tag, mode, false);
	return entry;
}

/* See lock_queue.h. */
void
lock_queue_lock(Oid relid, LOCKMODE mode)
{
	LOCK *entry;
	int i;

	lock_queue_watch(true);
	LockRelationOid(relid, mode);
	lock_queue_watch(false);
	if (budget == 0 || nheld == MAX_HELD)
		return;
	entry = entry_of(relid, mode);
	for (i = 0; i < nheld; i++)
	{
		if (held[i] == entry)
			return;
	}
	if (entry == NULL)
		return;
	held[nheld++] = entry;
}

/* See lock_queue.h. */
int
lock_queue_waited_ms(void)
{
	return waited;
}

bool
lock_queue_holds(Oid relid, LOCKMODE mode)
{
	LOCKTAG tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	return LockHeldByMe(&tag, mode, false);
}
