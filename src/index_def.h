/*-------------------------------------------------------------------------
 *
 * index_def.h
 *	  What indexes the target is to have: the source's, as statements that
 *	  make the same on a leaf, or on a partitioned table alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_INDEX_DEF_H
#define MIGRATE_EXT_INDEX_DEF_H

#include "nodes/pg_list.h"
#include "types.h"

typedef struct IndexDef
{
	Oid source;	  /* the source's index; InvalidOid: one of ours */
	char *name;	  /* of index and constraint on the source */
	char *suffix; /* what a leaf's index adds to the leaf's name */
	char contype; /* CONSTRAINT_PRIMARY, CONSTRAINT_UNIQUE, or 0 */
	bool unique;
	char *tail;		  /* "btree (a, b) WHERE c", "PRIMARY KEY (a, b)" */
	char *added;	  /* partition key columns put in, quoted; or NULL */
	bool leaf_only;	  /* no partitioned table can have it */
	List *statistics; /* of pairs: column number, target (see .c) */
} IndexDef;

/*
 * The definition for one index of the source, as it is now; NULL if it is gone,
 * not valid, or can't be made on the target (an exclusion constraint; a column
 * that the target lacks).  source_index InvalidOid: a plain index on the
 * identity.  The caller holds a lock on the source.
 */
extern IndexDef *index_def(Migration *m, Oid source_index);

/*
 * The indexes that the target lacks, the one on the identity first; List of
 * OIDs for index_def().  An adopted target may have some already.
 */
extern List *index_def_wanted(Migration *m);

/* The statement that makes it; "only": on a partitioned table alone. */
extern char *index_def_sql(IndexDef *def, const char *name, Oid relid, bool only);

/* A name for it on a leaf, final and free. */
extern char *index_def_leaf_name(IndexDef *def, Oid leaf);

/*
 * Is there an index on "relid" that serves for it?  Told by text, which may
 * differ where the target's types do: no is not for sure.
 */
extern bool index_def_exists(IndexDef *def, Oid relid);

/* That index, or InvalidOid. */
extern Oid index_def_serving(IndexDef *def, Oid relid);

/*
 * The valid index of "relid", attached to none yet, that has the same
 * definition and kind of constraint as "like", an index of another table with
 * the same columns; or InvalidOid.
 */
extern Oid index_def_find(Oid relid, Oid like);

/* An index of the source, and the one of the partitioned table that was made for it. */
typedef struct IndexPair
{
	Oid source;
	Oid target;	   /* InvalidOid: there is none */
	IndexDef *def; /* of the source's */
} IndexPair;

/*
 * All indexes of the source that index_def() gives a definition for and a
 * partitioned table can have; List of IndexPair *.  Told by definition, so
 * whatever was renamed or built anew meanwhile; of several that are alike, by
 * name.  Runs no code of a user's but what opening the target runs; call it as
 * the owner.  The caller holds a lock on both tables.
 */
extern List *index_def_pairs(Migration *m);

/* Indexes of the source that the target lacks a column for; List of OIDs. */
extern List *index_def_impossible(Migration *m);

/* The name of a partitioned table's index until the swap gives it the source's. */
extern char *index_def_new_name(IndexDef *def, Oid schema);

/* Set the statistics targets of its expressions on an index made of it. */
extern void index_def_set_statistics(IndexDef *def, Oid index);

/* The statements that do, for an index of this qualified name; List of char *. */
extern List *index_def_statistics_sql(IndexDef *def, const char *index);

#endif
