/*-------------------------------------------------------------------------
 *
 * retarget.h
 *	  Stored expressions and queries (rules, bodies of functions, policies, ...)
 *	  that name one table, made to name another one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_RETARGET_H
#define MIGRATE_EXT_RETARGET_H

#include "nodes/pg_list.h"
#include "types.h"

typedef struct Retarget
{
	Oid from; /* both tables, and their row types */
	Oid to;
	Oid from_type;
	Oid to_type;
	char to_kind;
	int natts;				 /* of from */
	AttrNumber *columns;	 /* its columns in to, by number - 1; or one of the following */
	bool identical;			 /* the same numbers, dropped columns included */
	bool in_order;			 /* the same order; what only `to` has comes last */
	bool same_columns;		 /* the same columns in the same order, dropped ones aside */
	bool types_looked;		 /* retarget_exchanges_types() has been asked */
	const char *type_reason; /* why the row types don't change places */

	/* set by retarget_tree() */
	char *problem; /* the first thing that can't be said about the other table; or NULL */
	bool writes;   /* it writes to the table */
	bool locks;	   /* it locks rows of the table */
} Retarget;

#define RETARGET_MISSING 0		 /* no such column */
#define RETARGET_OTHER_TYPE (-1) /* there is one, of another type */

/* Takes no lock; 42P01 if one of them is gone. */
extern Retarget *retarget_create(Oid from, Oid to);

/*
 * The stored tree (as in pg_node_tree) with `to` in the place of `from`.  If it
 * is a bare expression, variables 1 .. nrelations of it are rows of these.  NULL
 * where it can't be had: problem tells why.
 */
extern char *retarget_tree(Retarget *r, const char *tree, int nrelations, const Oid *relations);

/*
 * Do the row types change places, so that whole rows stay what they are?  If not,
 * r->type_reason tells why.  Looked at once: ask before they do.
 */
extern bool retarget_exchanges_types(Retarget *r);

/* The same of a column's number; 0 and negative ones stay. */
extern AttrNumber retarget_column(const Retarget *r, AttrNumber attnum);

/* Let what an object depends on be `to` and its columns in the place of `from`. */
extern void retarget_dependencies(const Retarget *r, Oid class, Oid oid);

/*
 * A key of `to` that does what this one of `from` does for GROUP BY; InvalidOid
 * if there is none.  Not of `from`: the constraint itself.
 */
extern Oid retarget_key(const Retarget *r, Oid constraint);

#endif
