/*-------------------------------------------------------------------------
 *
 * sample.h
 *	  What report() draws over time and nothing else records.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SAMPLE_H
#define MIGRATE_EXT_SAMPLE_H

#include "types.h"

/*
 * Note down how deep the change log is, now and then, in the current transaction.
 * Called by who walks the migration through its states, at each step; waits for
 * no lock.
 */
extern void sample_take(Migration *m);

#endif
