/*-------------------------------------------------------------------------
 *
 * catalog_look.h
 *	  What was found good in the catalogs once need not be looked for again while
 *	  they have not changed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CATALOG_LOOK_H
#define MIGRATE_EXT_CATALOG_LOOK_H

#include "types.h"

/*
 * Around a question to the catalogs about a migration's tables and what hangs on
 * them, which is answered by "good" or by something else:
 *
 *		static uint64 good;
 *
 *		if (!catalog_look_begin(&look, m, direction, &good))
 *			return <good>;
 *		... ask ...
 *		catalog_look_end(&look, <it is good>);
 *
 * The caller's transaction must be READ COMMITTED, so that each statement of it
 * sees what has been committed by then.  No lock is kept, and none waited for.  An
 * answer that an error breaks off isn't remembered, nor is one of which a part was
 * left out, as catalog_look_missed() tells.
 */
typedef struct CatalogLook
{
	const Migration *m;
	uint64 mark;   /* of the catalogs as they were at the beginning; 0: not known */
	uint64 missed; /* how often a part had been left out by then */
	uint64 *good;  /* the mark they had when the answer was good; 0: never */
} CatalogLook;

extern bool catalog_look_begin(CatalogLook *look, const Migration *m, Direction direction,
							   uint64 *good);
extern void catalog_look_missed(void);
extern void catalog_look_end(CatalogLook *look, bool is_good);

#endif
