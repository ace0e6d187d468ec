/*-------------------------------------------------------------------------
 *
 * reverse.h
 *	  Is there a way back, and is it paved?
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_REVERSE_H
#define MIGRATE_EXT_REVERSE_H

#include "types.h"

/*
 * Can rows be carried back to the source?  Not where options.columns computes a
 * column of the source's and options.reverse_columns does not say how to get it
 * back.
 */
extern bool reverse_is_possible(const Migration *m);

/* Do target and leaves have their reverse triggers, or need none? */
extern bool reverse_is_prepared(const Migration *m);

/*
 * Make them where they are missing, in a bounded attempt of its own.  False: a
 * lock was not to be had, try again.
 */
extern bool reverse_prepare(Run *run);

#endif
