/*-------------------------------------------------------------------------
 *
 * priority.h
 *	  Which processes go first where the processors are busy.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PRIORITY_H
#define MIGRATE_EXT_PRIORITY_H

/*
 * Let the server's other processes go first: this process's nice value becomes
 * so much more than postmaster's, 19 at most.  False where that is less than it
 * has now and the system doesn't let it come back: somebody else should do the
 * work.  Not to be called by a process that others may have to wait for.
 */
extern bool priority_give_way(int nice);

#endif
