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
 * The first row of one of those two functions, or NULL; of this kind, and of the key
 * of this name, where they are given.  plan: see CatalogCall; one for each function.
 */
extern FkStep *fk_next_step(SPIPlanPtr *plan, const char *function, Oid front, Oid back,
							const char *kind, const char *name);

/*
 * Run ALTER TABLE ... ADD CONSTRAINT ... FOREIGN KEY as this role, but without a look
 * at the rows: the key, and those of partitions, are marked not valid where rows
 * are.  referenced: what it points at instead of the table that the text names, or
 * NULL.  Takes the locks of ALTER TABLE.
 */
extern void fk_add(Oid role, Oid relation, const char *name, const char *statement,
				   RangeVar *referenced);

/* Let all triggers of steps "disable" sleep; of the key of this name, if given. */
extern void fk_disable(SPIPlanPtr *plan, const char *function, Oid front, Oid back,
					   const char *name);

#endif
