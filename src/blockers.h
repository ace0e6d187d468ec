/*-------------------------------------------------------------------------
 *
 * blockers.h
 *	  Who stands in the way of an exclusive lock on a migration's tables, and
 *	  what may be done about it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_BLOCKERS_H
#define MIGRATE_EXT_BLOCKERS_H

#include "types.h"

/* Both as of one look; NULL if nobody holds anything. */
typedef struct Blockers
{
	char *json; /* array of objects: pid, user, state, lock, ... */
	char *text; /* for a message: "pid 4711 (user bob, ...), ..." */
} Blockers;

/*
 * Who holds a lock on source or target, besides this process.  since: only
 * transactions that began before it, 0 for all.  In a transaction, as superuser.
 */
extern Blockers *blockers_find(const Migration *m, TimestampTz since);

/* The same, those only that a SHARE ROW EXCLUSIVE lock has to wait for. */
extern Blockers *blockers_of_writers(const Migration *m, TimestampTz since);

/* Who holds a lock on this table, of whatever migration or none; the rest as above. */
extern Blockers *blockers_of_table(Oid relid, TimestampTz since);

/* The same, prepared transactions only: their locks never go by themselves. */
extern Blockers *blockers_prepared(const Migration *m);

/*
 * Cancel or terminate those of blockers_find(m, since) that the migration's
 * owner may signal; never an autovacuum against wraparound, a WAL sender, a
 * prepared transaction or a process of migrate_ext.  Returns how many.
 */
extern int64 blockers_signal(const Migration *m, TimestampTz since, bool terminate);

/* Two JSON arrays of blockers as one, each process and transaction once. */
extern char *blockers_merge(const char *a, const char *b);

#endif
