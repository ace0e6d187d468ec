/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  One launcher for each database of migrate_ext.databases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_LAUNCHER_H
#define MIGRATE_EXT_LAUNCHER_H

/* From _PG_init, while shared_preload_libraries are being loaded. */
extern void launcher_register_all(void);

#endif
