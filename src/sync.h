/*-------------------------------------------------------------------------
 *
 * sync.h
 *	  The sync trigger: what it does when it fires is in sync.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SYNC_H
#define MIGRATE_EXT_SYNC_H

/* Install callbacks; from _PG_init. */
extern void sync_init(void);

/*
 * Let go of everything the triggers keep open for the transaction.  DDL of ours
 * on the tables calls it first, so that a call of the same transaction does
 * not stumble on its own session's open relations.
 */
extern void sync_release(void);

#endif
