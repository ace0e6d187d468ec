/*-------------------------------------------------------------------------
 *
 * lock_queue.h
 *	  An attempt at a lock ends early where too many wait behind it.
 *
 * Whoever wants a table after us waits as long as we do.  lock_timeout bounds
 * that for each of them; this bounds it for all of them together, in
 * milliseconds times sessions, so that a busy application, whose sessions all
 * queue up within a moment, waits shorter than an idle one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_LOCK_QUEUE_H
#define MIGRATE_EXT_LOCK_QUEUE_H

#include "storage/lockdefs.h"

/*
 * Between these two a wait for a lock with a lock_timeout, where somebody looks
 * behind (below), fails as if that had passed (55P03) once those that wait for the
 * same lock, or for one that was taken by lock_queue_lock(), have waited for
 * budget_ms together.  0: for no matter how long.  Counts from zero.
 */
extern void lock_queue_enter(int budget_ms);
extern void lock_queue_leave(void);

/*
 * LockRelationOid(), looking behind while it waits; who waits for that relation
 * counts from now on.
 */
extern void lock_queue_lock(Oid relid, LOCKMODE mode);

/* Look behind, or no longer: around a statement that locks on its own. */
extern void lock_queue_watch(bool on);

/* How long others have waited, since lock_queue_enter(), as far as it was counted. */
extern int lock_queue_waited_ms(void);

/* Does this transaction hold that lock, taken by whichever way? */
extern bool lock_queue_holds(Oid relid, LOCKMODE mode);

#endif
