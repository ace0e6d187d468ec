/*-------------------------------------------------------------------------
 *
 * throttle_probe.h
 *	  How near the server is to the limits that a migration is to respect.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_THROTTLE_PROBE_H
#define MIGRATE_EXT_THROTTLE_PROBE_H

#include "types.h"

#define MB (1024.0 * 1024.0)

/* What a probe that failed counts as: much slower, but not stopped for ever. */
#define LEVEL_FAILED 0.95

/* What a probe, or a rate limit, says. */
typedef struct Reading
{
	double level;	  /* 1: the limit is reached */
	const char *kind; /* a constant: the setting it is of */
	char *text;		  /* value and limit, for people */
} Reading;

/*
 * Make all probes whose settings are on; outside of a transaction, each is one of
 * its own, read only and not longer than half a second.  *worst is the reading
 * nearest to its limit (in run->scratch), or untouched if there is none.
 * Nothing is raised but a cancel: a probe that fails is a reading as well.
 */
extern void throttle_probe(Run *run, Reading *worst);

/*
 * Can this be the setting throttle_query?  Errors of the parser's, as the
 * owner; 42601 unless it is one SELECT, 42804 unless of one boolean or number.
 */
extern void throttle_check_query(const Migration *m, const char *query);

#endif
