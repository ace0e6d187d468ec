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

/* What the two carriers differ in; one static variable of each. */
typedef struct FkKind
{
	const char *steps; /* SQL functions: what is left to do, */
	const char *flip;  /* and what the swap changes */
	void (*make)(Migration *m, Oid front, Oid back, const FkStep *step); /* a step "add" */

	SPIPlanPtr steps_plan;
	SPIPlanPtr flip_plan;
} FkKind;

/* Carrier.prepare: the first step, or as many "validate" as a piece of work has room for. */
extern bool fk_prepare(FkKind *kind, Migration *m, Direction direction, bool look_only);

/* In the swap: let the keys of the one table sleep, and wake those of the other. */
extern void fk_flip(FkKind *kind, Oid front, Oid back);

/*
 * What one of those two functions returns, List of FkStep *.  plan: see CatalogCall;
 * one for each function.  ahead: see there.
 */
extern List *fk_steps(SPIPlanPtr *plan, const char *function, Oid front, Oid back, bool ahead);

extern bool fk_is_add(const FkStep *step);

/* The text of a key that is added, pointing at this table instead of the one that it names. */
extern char *fk_renamed(const char *statement, Oid referenced);

/*
 * Run ALTER TABLE ... ADD CONSTRAINT ... FOREIGN KEY as this role, but without a look
 * at the rows: the key, and those of partitions, are marked not valid where rows
 * are.  Takes the locks of ALTER TABLE.
 */
extern void fk_add(Oid role, Oid relation, const char *name, const char *statement);

/* Let the triggers sleep that steps "disable" of the key of this name tell. */
extern void fk_disable(FkKind *kind, Oid front, Oid back, const char *name);

/* Which tables a key binds; false if it is gone. */
extern bool fk_ends(Oid key, Oid *child, Oid *referenced);

/* For plan(): what comes with adding it, and after that. */
#define FK_NOTE_ADD "the rows are not looked at: where they are the key is marked NOT VALID"
#define FK_NOTE_DISABLE \
	"triggers of the key, at once with what precedes; '?' is a number that is not known yet"

#endif
