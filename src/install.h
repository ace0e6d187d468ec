/*-------------------------------------------------------------------------
 *
 * install.h
 *	  Of the sync trigger's coming what replace_sync() does in its caller's
 *	  transaction as well; the leader's steps are in stages.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_INSTALL_H
#define MIGRATE_EXT_INSTALL_H

#include "types.h"

/*
 * Lock the table that the application writes to (the source, before a swap)
 * against writers (ShareRowExclusiveLock; the caller has bounded the wait), and
 * make sure that no statement of this very session is still using it (55006).
 * 42P01 if it is gone.
 */
extern void install_lock_front(const Migration *m);

/*
 * created -> logging, in the current transaction, which holds that lock: the
 * change log, the sync trigger, the horizon.  Locks the target RowExclusiveLock.
 * 55000 while a hand-written trigger writes the target.  Caller: superuser.
 */
extern void install_in_transaction(Migration *m);

#endif
