/*-------------------------------------------------------------------------
 *
 * relinfo.h
 *	  Describes a relation: its identity, its shape, its leaves, and whether
 *	  it can be migrated at all.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_RELINFO_H
#define MIGRATE_EXT_RELINFO_H

#include "nodes/pg_list.h"
#include "types.h"
#include "utils/relcache.h"

/*
 * The key that names a row: the primary key, else the replica identity index;
 * immediate, valid, whole, on NOT NULL plain columns.
 */
typedef struct Identity
{
	Oid index;
	int natts;
	AttrNumber attnums[INDEX_MAX_KEYS]; /* of the table */
	Oid types[INDEX_MAX_KEYS];
	Oid eq_operators[INDEX_MAX_KEYS]; /* of the index's opfamily */
	Oid collations[INDEX_MAX_KEYS];
} Identity;

/* Open it, whatever its kind, in ACCESS SHARE mode; 42P01 without internals if it is gone. */
extern Relation relinfo_open(Oid relid);

/* NULL (missing_ok) or 55000 with a hint if the relation has none. */
extern Identity *relinfo_identity(Oid relid, bool missing_ok);

/*
 * Error unless relid can be the source of a migration: a plain, permanent,
 * non-system table, not partitioned, no inheritance parent or child, not in a
 * migration already, has an identity; the current user owns it (42501).
 */
extern void relinfo_check_source(Oid relid);

/*
 * Columns as they can't be carried over: 0A000 for virtual generated ones, 55000
 * where a NOT NULL isn't validated.  PostgreSQL has both since 18.
 */
extern void relinfo_check_columns(Relation rel);

/*
 * The same for a table whose column is to be filled in place: it may be the source
 * of a migration that has not been swapped, 55000 if it is anything else of one.
 */
extern void relinfo_check_fillable(Oid relid);

/*
 * A text that changes when columns are added, dropped, renamed or retyped
 * (attnum, name, type, typmod, collation, not null, generated).
 */
extern char *relinfo_shape(Oid relid);

/* relinfo_shape() of the target plus the OIDs of its leaves, sorted. */
extern char *relinfo_target_shape(Oid target);
/* Do two such texts differ in nothing but the leaves? */
extern bool relinfo_same_columns(const char *target_shape, const char *other);
/* What has changed from one shape to another, for people: "column a is gone, ..." */
extern char *relinfo_shape_difference(const char *was, const char *is);

/* Are the leaves the same in two such texts? */
extern bool relinfo_same_leaves(const char *target_shape, const char *other);

/* A column as a shape has it. */
typedef struct ShapeColumn
{
	AttrNumber attnum;
	char *name; /* not quoted */
	Oid type;
	int32 typmod;
	Oid collation;
	bool not_null;
} ShapeColumn;

/* The columns of a shape; List of ShapeColumn *. */
extern List *relinfo_shape_columns(const char *shape);

/* Leaves (relkind r) below a partitioned table, in bound order; List of Oid. */
extern List *relinfo_leaves(Oid target);

/* 64-bit-safe number of blocks of the main fork, now. */
extern BlockNumber relinfo_blocks(Oid relid);
extern Oid relinfo_relfilenode(Oid relid);

/* The owner, or InvalidOid if the relation is gone. */
extern Oid relinfo_owner(Oid relid);

/* What a row of pg_trigger says. */
typedef struct TriggerRow
{
	Oid oid;
	Oid function;
	char enabled;		/* tgenabled */
	TransactionId xmin; /* the raw one: freezing doesn't change it */
} TriggerRow;

/*
 * The trigger of this name; false if there is none.  Reads the catalog as it is
 * now, and locks nothing.
 */
extern bool relinfo_trigger(Oid relid, const char *name, TriggerRow *row);

/* Of that, tgenabled alone; '\0' if there is none. */
extern char relinfo_trigger_state(Oid relid, const char *name);

/*
 * Rows of one table (of a partitioned one: none) that the latest snapshot sees,
 * up to a limit.  No query is planned for it, so that it may be asked with any
 * rights: planning evaluates what is constant in index expressions.
 */
extern int64 relinfo_rows(Oid relid, int64 limit);

/*
 * The rows of a catalog that are about this relation, by the column of OIDs that the
 * index begins with: copies, a List of HeapTuple.
 */
extern List *relinfo_catalog_rows(Relation catalog, Oid index, AttrNumber column, Oid relid);

#endif
