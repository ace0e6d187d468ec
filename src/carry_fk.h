/*-------------------------------------------------------------------------
 *
 * carry_fk.h
 *	  What the carriers of foreign keys share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_FK_H
#define MIGRATE_EXT_CARRY_FK_H

#include "nodes/pg_list.h"
#include "types.h"

/* First column of what a query with two OIDs returns: List of char *. */
extern List *carry_fk_statements(const char *sql, Oid one, Oid other);

/*
 * Under the swap's locks: lock tables against writers as well
 * (ShareRowExclusiveLock), all waits within one lock_timeout_ms.  sql returns
 * their OIDs as text, given source and target.  55P03 where one is not to be had.
 */
extern void carry_fk_lock(Migration *m, const char *sql);

#endif
