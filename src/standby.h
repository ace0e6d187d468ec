/*-------------------------------------------------------------------------
 *
 * standby.h
 *	  Synchronous standbys that a COMMIT would wait for, and wait in vain.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_STANDBY_H
#define MIGRATE_EXT_STANDBY_H

/*
 * How many of the synchronous standbys that a COMMIT waits for are not there;
 * *wanted: of how many.  0 where none is asked for.
 */
extern int standby_missing(int *wanted);

#endif
