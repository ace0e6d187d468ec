/*-------------------------------------------------------------------------
 *
 * columns.h
 *	  How a row of one side becomes a row of the other: columns of the same
 *	  name, or an expression over the row "s" (options.columns, and
 *	  options.reverse_columns back).  One definition, used as SQL text (copy,
 *	  verification) and as compiled expressions (write-through, drain, reverse).
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_COLUMNS_H
#define MIGRATE_EXT_COLUMNS_H

#include "types.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

typedef struct ColumnMap
{
	Oid			from;			/* relations as of the direction: source, target */
	Oid			to;
	int			natts;			/* attributes of "to", dropped ones included */
	AttrNumber *from_attnum;	/* per attribute of "to": plain column, or 0 */
	Node	  **expr;			/* per attribute of "to": analyzed expression over
								 * "from" (Vars with varno 1), or NULL */
	bool		plain;			/* no expression at all: rows can't fail to fit */
} ColumnMap;

/*
 * Builds the map of a migration, in CurrentMemoryContext.  Both relations must
 * be locked by the caller.  Columns of "to" with neither counterpart nor
 * expression: NULL and not NOT NULL, generated or default is fine (they get
 * their default), else error 42703.  Types that differ get an assignment cast;
 * where there is none: 42804.
 */
extern ColumnMap *columns_build(Migration *m, Direction direction);

/*
 * The same as a select list, "s.a, s.b::pg_catalog.int8, (expr)", one item an
 * undropped attribute of "to", in its order, each AS its quoted name if
 * with_names.
 */
extern char *columns_select_list(Migration *m, Direction direction, bool with_names);

/* Evaluation */
typedef struct ColumnEval
{
	ColumnMap  *map;
	ExprState **states;			/* per attribute of "to", NULL for plain ones */
} ColumnEval;

extern ColumnEval *columns_prepare(ColumnMap *map, EState *estate);

/*
 * Fill "to_slot" (virtual-capable slot of the root "to" relation) from
 * "from_slot", a slot of the "from" relation.  Values may point into
 * from_slot.  econtext is for expression evaluation; the caller resets it.
 */
extern void columns_eval(ColumnEval *eval, TupleTableSlot *from_slot,
						 TupleTableSlot *to_slot, ExprContext *econtext);

/*
 * Attribute numbers of the source that the target's partition keys (all
 * levels) depend on, through the map; as a Bitmapset-free sorted List of int.
 * With whole_known false in *complete: the key depends on something that is
 * not the row (a subquery), so OLD values can't tell the leaf.
 */
extern List *columns_of_partition_key(Migration *m, bool *complete);

#endif
