/*-------------------------------------------------------------------------
 *
 * standby.c
 *	  Synchronous standbys; see standby.h.  What our own transactions do where
 *	  one is away: run.c, commit_locally().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/syncrep.h"
#include "replication/walsender.h"

#include "standby.h"

int
standby_missing(int *wanted)
{
	SyncRepStandbyData *standbys;
	int there;

	*wanted = SyncRepConfig != NULL && max_wal_senders > 0 ? SyncRepConfig->num_sync : 0;
	if (*wanted == 0)
		return 0;
	there = SyncRepGetCandidateStandbys(&standbys);
	return Max(0, *wanted - there);
}
