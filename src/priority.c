/*-------------------------------------------------------------------------
 *
 * priority.c
 *	  Which processes go first where the processors are busy.
 *
 * A copy or an index build takes all of a processor that it gets.  With as many
 * helpers as processors the application's sessions would each get a part only,
 * and a statement of a millisecond would wait for its turn longer than it takes.
 * Sleeping between pieces of work comes too late for them and wastes what nobody
 * else wants, so the choice is left to the system's scheduler.
 *
 * Linux sorts the processes by session first where autogroups are on (sched(7)), and
 * each process of PostgreSQL is a session of its own: a nice value alone would say
 * nothing there, its group needs one, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <sys/resource.h>

#include "miscadmin.h"
#include "storage/fd.h"

#include "priority.h"

/* setpriority() cuts off what is more. */
#define NICE_MAX 19

/* One process of the system may change its group's in so many ms; another may have been it. */
#define AUTOGROUP_PAUSE_MS 100
#define AUTOGROUP_TRIES 5

/* True: nothing is left to be done. */
static bool
autogroup_try(int nice)
{
	FILE *file = AllocateFile("/proc/self/autogroup", "r+");
	int now;
	bool done = true;

	if (file == NULL)
		return true; /* not Linux, or built without */
	if (fscanf(file, "/autogroup-%*d nice %d", &now) == 1 && now != nice)
	{
		rewind(file);
		errno = 0;
		done = fprintf(file, "%d", nice) > 0 && fflush(file) == 0;
		done = done || errno != EAGAIN;
	}
	FreeFile(file);
	return done;
}

bool
priority_give_way(int nice)
{
	int wanted = Min(getpriority(PRIO_PROCESS, PostmasterPid) + nice, NICE_MAX);
	int tries;

	if (getpriority(PRIO_PROCESS, 0) != wanted && setpriority(PRIO_PROCESS, 0, wanted) != 0)
		return false;
	for (tries = 0; !autogroup_try(wanted) && tries < AUTOGROUP_TRIES; tries++)
		pg_usleep(AUTOGROUP_PAUSE_MS * 1000L);
	return true;
}
