/*-------------------------------------------------------------------------
 *
 * statistics.h
 *	  The target's statistics, before anybody plans with them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_STATISTICS_H
#define MIGRATE_EXT_STATISTICS_H

#include "types.h"

/*
 * ANALYZE the target, its parent too, unless that was done since it went live.
 * In transactions of its own.  False: a lock was not to be had, try again.
 */
extern bool statistics_gather(Run *run);

#endif
