/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The extension's settings (GUCs) and the named limits of its algorithms.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SETTINGS_H
#define MIGRATE_EXT_SETTINGS_H

#include "types.h"

extern char *setting_databases;			/* list, for the launcher; at server start */
extern int setting_workers;				/* helpers a migration, 0 = the leader alone */
extern int setting_batch_target_ms;		/* what a copy batch should take */
extern int setting_lock_timeout_ms;		/* one lock attempt */
extern int setting_deadlock_timeout_ms; /* within an attempt; must be lower,
											 * or an autovacuum never yields */

extern void settings_define(void);

/*
 * The value of a setting for a migration: configure()'s where given, else the
 * GUC.  Names are without the "migrate_ext." prefix.
 */
extern int settings_get_int(const Migration *m, const char *name);
/* the same for one of text; never NULL */
extern const char *settings_get_text(const Migration *m, const char *name);

/*
 * Check and normalize a value given to configure().  An unknown setting is
 * 42704 with the list of known ones as hint, a bad value 22023.
 */
extern void settings_check(const char *name, const char *value);

#endif
