/*-------------------------------------------------------------------------
 *
 * migrate_ext.c
 *	  The library's entry point: settings, callbacks, launchers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "launcher.h"
#include "settings.h"
#include "sync.h"
#include "version.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	version_init();
	settings_define();
	sync_init();
	if (process_shared_preload_libraries_in_progress)
		launcher_register_all();
}
