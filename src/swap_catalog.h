/*-------------------------------------------------------------------------
 *
 * swap_catalog.h
 *	  What a swap changes in PostgreSQL's catalogs: the names of the two tables
 *	  and of their indexes and constraints, and which of them owns the
 *	  sequences.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SWAP_CATALOG_H
#define MIGRATE_EXT_SWAP_CATALOG_H

#include "nodes/pg_list.h"
#include "types.h"

/* One change, as much of it as it takes to make it undone. */
typedef struct CatalogChange
{
	Oid oid;	  /* the relation renamed, or the sequence moved */
	char *before; /* its names, or NULL for a sequence */
	char *after;
	AttrNumber source_attnum; /* the columns between which it moved */
	AttrNumber target_attnum;
	char identity; /* attidentity of that column, '\0' if serial */
} CatalogChange;

/*
 * Give the target the source's name, and so on.  The caller holds
 * AccessExclusiveLock on both.  List of CatalogChange *, in order.  Errors:
 * 42P07 where a name was taken in this very moment.
 */
extern List *swap_catalog_forth(Migration *m);

/*
 * What of it can be told before: the name that the source, or an index of its,
 * will have; and the sequences that will move, as CatalogChange without names.
 */
extern char *swap_catalog_original_name(const char *name, Oid schema);
extern List *swap_catalog_sequences(const Migration *m);

/* The way back: exactly those changes, the last one first. */
extern void swap_catalog_back(Migration *m, List *changes);

/* The list as JSON and back, to be kept in an event. */
extern char *swap_changes_text(List *changes);
extern List *swap_changes_read(const char *json);

#endif
