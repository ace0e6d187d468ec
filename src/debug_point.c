/*-------------------------------------------------------------------------
 *
 * debug_point.c
 *	  Places where tests stop the code; see debug_point.h.  In a release there
 *	  are none, and the SQL functions say so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"

#include "debug_point.h"

PG_FUNCTION_INFO_V1(migrate_ext_debug_hold);
PG_FUNCTION_INFO_V1(migrate_ext_debug_release);

#ifdef MIGRATE_EXT_DEBUG_POINTS

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

#else

static void
refuse(void)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("this build of migrate_ext has no debug points"),
					errhint("Build with \"make DEBUG_POINTS=1\".")));
}

Datum
migrate_ext_debug_hold(PG_FUNCTION_ARGS)
{
	refuse();
	PG_RETURN_VOID();
}

Datum
migrate_ext_debug_release(PG_FUNCTION_ARGS)
{
	refuse();
	PG_RETURN_BOOL(false);
}

#endif
