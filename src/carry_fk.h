/*-------------------------------------------------------------------------
 *
 * carry_fk.h
 *	  What the carriers of foreign keys, carry_fk_out.c and carry_fk_in.c, share.
 *
 * Either asks an SQL function what is left to do (sql/25_carry_fk.sql,
 * sql/27_carry_fk_in.sql) and does one step of it at a time.  Keys are made
 * without a look at the rows, asleep, and validated afterwards.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_FK_H
#define MIGRATE_EXT_CARRY_FK_H

#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "types.h"

/* One row of fk_out_steps() or fk_in_steps(). */
typedef struct FkStep
{
	char *kind;		 /* drop, add, disable or validate */
	char *name;		 /* of the key */
	Oid referenced;	 /* what it points at */
	Oid relation;	 /* whose table's statement it is */
	char *statement; /* add, of an incoming key: the key alone */
} FkStep;

/*
 * What one of those two functions returns, in order: List of FkStep *.  ahead: also
 * what is to be done with the keys that will have been made by then, for plan().
 * plan: see CatalogCall; one for each function.
 */
extern List *fk_find_steps(SPIPlanPtr *plan, const char *function, Oid front, Oid back, bool ahead);

extern bool fk_is_add(const FkStep *step);

/* What an ALTER TABLE ... ADD CONSTRAINT ... FOREIGN KEY points at. */
extern RangeVar *fk_referenced(const char *statement);

/*
 * Run such a statement as this role, but without a look at the rows: the key, and
 * those of partitions, are marked not valid where rows are.  Takes the locks of
 * ALTER TABLE.
 */
extern void fk_add(Oid role, Oid relation, const char *name, const char *statement);

/* Run the steps "disable" among these; of the key of this name, or all where it is NULL. */
extern void fk_disable(List *steps, const char *name);

#endif
