/*-------------------------------------------------------------------------
 *
 * expression.h
 *	  Expressions that a user gives as text, over one row that is called "s":
 *	  parsing, typing and checking them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_EXPRESSION_H
#define MIGRATE_EXT_EXPRESSION_H

#include "nodes/bitmapset.h"
#include "nodes/nodes.h"
#include "types.h"
#include "utils/relcache.h"

/* What the row is called in expressions. */
#define ROW_ALIAS "s"

/* An expression, and what it is for. */
typedef struct ExpressionInput
{
	Relation rel;		/* whose row "s" is; locked */
	const char *column; /* that it is for */
	Oid type;			/* of that column */
	int32 typmod;
	const char *text;
	const char *place; /* "options.columns": where it stands, for errors */
	bool subqueries;   /* are they allowed? */
} ExpressionInput;

/*
 * Analyze an expression and coerce it to the column's type, as an assignment
 * would.  Names are looked up in the current search_path; the caller has become
 * the owner.  Errors: the parser's; 42601 for text that is more than one
 * expression, 42804 for a type that can't be assigned, 0A000 for aggregates,
 * window functions, sets, system columns and, where they aren't allowed,
 * subqueries; 42P17 for volatile functions and row locks.
 */
extern Node *expression_analyze(const ExpressionInput *input);

/* Attribute numbers of "s" that it reads, in subqueries too; 0 is the whole row. */
extern Bitmapset *expression_columns(Node *expr);

#endif
