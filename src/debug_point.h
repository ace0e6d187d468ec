/*-------------------------------------------------------------------------
 *
 * debug_point.h
 *	  Places where a test can stop the code.  Compiled out of a release.
 *
 * ME_DEBUG_POINT("name") waits while some session holds the point through
 * migrate_ext.debug_hold('name'); an isolation spec or a TAP test so puts an
 * interleaving where it wants it, with no sleep.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_DEBUG_POINT_H
#define MIGRATE_EXT_DEBUG_POINT_H

#ifdef MIGRATE_EXT_DEBUG_POINTS
extern void debug_point(const char *name);
#define ME_DEBUG_POINT(name) debug_point(name)
#else
#define ME_DEBUG_POINT(name) ((void) 0)
#endif

#endif
