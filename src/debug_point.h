/*-------------------------------------------------------------------------
 *
 * debug_point.h
 *	  Places where a test can stop the code.  Compiled out of a release.
 *
 * ME_DEBUG_POINT("name") waits while some session holds the point through
 * migrate_ext.debug_hold('name'); an isolation spec or a TAP test so puts an
 * interleaving where it wants it, with no sleep.
 *
 * ME_DEBUG_LOCKS(where) tells the server's log, where that takes DEBUG1, which
 * locks on tables this transaction has that are stronger than SHARE UPDATE
 * EXCLUSIVE, and the lock_timeout in force.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_DEBUG_POINT_H
#define MIGRATE_EXT_DEBUG_POINT_H

#ifdef MIGRATE_EXT_DEBUG_POINTS
extern void debug_point(const char *name);
#define ME_DEBUG_POINT(name) debug_point(name)
extern void debug_locks(const char *where);
#define ME_DEBUG_LOCKS(where) debug_locks(where)
#else
#define ME_DEBUG_POINT(name) ((void) 0)
#define ME_DEBUG_LOCKS(where) ((void) 0)
#endif

#endif
