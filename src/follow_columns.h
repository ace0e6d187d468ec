/*-------------------------------------------------------------------------
 *
 * follow_columns.h
 *	  The other table's columns follow those of the application's table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_FOLLOW_COLUMNS_H
#define MIGRATE_EXT_FOLLOW_COLUMNS_H

#include "types.h"

/*
 * Do to the back table (target; in state swapped the original) what was done to
 * the columns of the front table since m's shapes were recorded: columns added,
 * renamed, retyped, allowed to be NULL; and dropped, where the back table is a target
 * that we made.  Columns that an expression of the options gives are left alone.
 * AccessExclusiveLock on the back table and its partitions, if there is
 * anything to do; the caller holds the front table and has bounded the wait.
 * 0A000 for a retyped column of the key that names a row; else the errors of
 * ALTER TABLE.  Returns how many columns were changed.
 */
extern int follow_columns(Migration *m);

#endif
