/*-------------------------------------------------------------------------
 *
 * debug_point.c
 *	  Places where tests stop the code; see debug_point.h.  In a release there
 *	  are none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"

#include "debug_point.h"

#ifdef MIGRATE_EXT_DEBUG_POINTS

PG_FUNCTION_INFO_V1(migrate_ext_debug_hold);
PG_FUNCTION_INFO_V1(migrate_ext_debug_release);

#define LOCK_CLASS_DEBUG 0x4D34

static void
set_tag(LOCKTAG *tag, const char *name)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0,
						 hash_bytes((const unsigned char *) name, strlen(name)), LOCK_CLASS_DEBUG);
}

/* Wait while a session holds the point; the limit of a lock attempt does not count here. */
void
debug_point(const char *name)
{
	LOCKTAG tag;
	int lock_timeout = LockTimeout;

	set_tag(&tag, name);
	LockTimeout = 0;
	PG_TRY();
	{
		(void) LockAcquire(&tag, ShareLock, true, false);
	}
	PG_FINALLY();
	{
		LockTimeout = lock_timeout;
	}
	PG_END_TRY();
	LockRelease(&tag, ShareLock, true);
}

/* Of relations that are no part of PostgreSQL, by their OIDs: in an abort no catalog can be read. */
void
debug_locks(const char *where)
{
	LockData *data;
	StringInfoData list;
	int i;

	if (!message_level_is_interesting(DEBUG1))
		return;
	initStringInfo(&list);
	data = GetLockStatusData();
	for (i = 0; i < data->nelements; i++)
	{
		LockInstanceData *lock = &data->locks[i];
		LOCKMODE mode;

		if (lock->pid != MyProcPid || lock->locktag.locktag_type != LOCKTAG_RELATION ||
			lock->locktag.locktag_field2 < FirstNormalObjectId)
			continue;
		for (mode = ShareUpdateExclusiveLock + 1; mode <= MaxLockMode; mode++)
			if (lock->holdMask & LOCKBIT_ON(mode))
				appendStringInfo(&list, " %u %s", lock->locktag.locktag_field2,
								 GetLockmodeName(lock->locktag.locktag_lockmethodid, mode));
	}
	if (list.len > 0)
		elog(DEBUG1, "locks at %s, lock_timeout %d:%s", where, LockTimeout, list.data);
}

/* debug_hold(name): processes that come to this point wait, until released */
Datum
migrate_ext_debug_hold(PG_FUNCTION_ARGS)
{
	LOCKTAG tag;

	set_tag(&tag, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
	PG_RETURN_VOID();
}

Datum
migrate_ext_debug_release(PG_FUNCTION_ARGS)
{
	LOCKTAG tag;

	set_tag(&tag, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_BOOL(LockRelease(&tag, ExclusiveLock, true));
}

#endif
