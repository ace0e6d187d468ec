/*-------------------------------------------------------------------------
 *
 * row_types.h
 *	  Two tables exchange their row types.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_ROW_TYPES_H
#define MIGRATE_EXT_ROW_TYPES_H

#include "types.h"

/*
 * The row type of each table becomes that of the other one, and is named after
 * it: functions, columns and variables of the type go on being of the table of
 * that name.  The tables have the same columns in the same order, and the caller
 * (superuser) holds AccessExclusiveLock on both.  Rows that are stored elsewhere
 * are not read any more: PostgreSQL 15.20 and later finds their columns to be
 * older than those of their type.
 */
extern void row_types_exchange(Oid a, Oid b);

#endif
