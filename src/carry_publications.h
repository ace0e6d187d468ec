/*-------------------------------------------------------------------------
 *
 * carry_publications.h
 *	  Publications FOR TABLE, with column lists and row filters.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_PUBLICATIONS_H
#define MIGRATE_EXT_CARRY_PUBLICATIONS_H

#include "carry.h"
#include "retarget.h"

extern const Carrier carry_publications;

/* Why an entry of pg_publication_rel can't be of the other table; or NULL. */
extern char *publication_problem(Retarget *r, Oid oid);

#endif
