/*-------------------------------------------------------------------------
 *
 * partman.h
 *	  Option pg_partman of complete: from then on pg_partman makes the next
 *	  partitions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PARTMAN_H
#define MIGRATE_EXT_PARTMAN_H

#include "types.h"

/* What a call's options want set in pg_partman's table; NULL: pg_partman isn't asked for. */
extern Jsonb *partman_option(Jsonb *options);

/*
 * Within run_begin(): raise an error if the target can't be handed over, or not
 * with these settings.  Reads the default partition, so without strong locks.
 */
extern void partman_check(const Migration *m, Jsonb *settings);

/* Hand it over, in the transaction that completes the migration. */
extern void partman_register(Migration *m, Jsonb *settings);

#endif
