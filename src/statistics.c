/*-------------------------------------------------------------------------
 *
 * statistics.c
 *	  The target's statistics.
 *
 * Autovacuum analyzes the partitions in its own good time, but never the
 * partitioned table itself, whose statistics the planner uses for whatever
 * spans partitions.  Without them plans flip at the swap.
 *
 * One ANALYZE of the parent does all, in one transaction, which takes
 * ShareUpdateExclusiveLock on each leaf: no reader and no writer is held up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "attempt.h"
#include "catalog.h"
#include "run.h"
#include "sqlgen.h"
#include "statistics.h"

static void
gather(Run *run, void *arg)
{
	if (run->m->analyzed_at != 0)
		return;
	run_limit_lock_waits(run);
	run_as_owner(run);
	(void) sql_run("ANALYZE %s", sql_relation(run->m->target));
	run_as_self(run);
	catalog_save_analyzed(run->m);
	event_add(run->m, "analyzed", NULL, "statistics of %s gathered", sql_relation(run->m->target));
}

bool
statistics_gather(Run *run)
{
	ErrorData *error = NULL;

	run_report(run, "gathering statistics");
	if (run_attempt(run, gather, NULL, &error))
		return true;
	if (!attempt_is_lock_failure(error))
		ReThrowError(error);
	return false;
}
