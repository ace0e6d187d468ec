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

#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "types.h"
#include "utils/relcache.h"

/*
 * A sharding key that is derived where the column itself is NULL.  As SQL it is
 * "value" over the row "s" of "FROM source s" followed by "joins"; rows out are
 * rows in, or a scalar subquery of it had more than one row.
 */
typedef struct DerivedColumn
{
	AttrNumber source; /* the column itself, of the source */
	char *value;
	char *assigned;				   /* the same in the type of the target's column; an error
									* if it doesn't fit */
	char *joins;				   /* or "" */
	bool pinned;				   /* evaluating the value pins the settings by itself */
	struct Derivation *derivation; /* derive.h: the value alone, for one row */
} DerivedColumn;

typedef struct ColumnMap
{
	Oid from; /* relations as of the direction: source, target */
	Oid to;
	int natts;				 /* attributes of "to", dropped ones included */
	AttrNumber *from_attnum; /* per attribute of "to": plain column, or 0 */
	Node **expr;			 /* per attribute of "to": analyzed expression over
								 * "from" (Vars with varno 1), or NULL */
	DerivedColumn **derived; /* per attribute of "to", or NULL; direction
								 * forward; expr is there too */
	bool has_derived;
	bool plain; /* no expression at all: rows can't fail to fit */
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

/* The same without the attributes of "to" in this set. */
extern char *columns_select_list_without(Migration *m, Direction direction, bool with_names,
										 const Bitmapset *without);

/* What follows "FROM source s" in a statement with that list, direction forward: its map's joins. */
extern char *columns_joins(const ColumnMap *map);

/*
 * columns_derived.c: make attribute i of the map, which is mapped already, be
 * derived where it comes to NULL.  The caller is the owner, settings are pinned.
 */
extern void columns_derive(ColumnMap *map, int i, Relation from, Relation to, const char *value);

/*
 * A value over rows of "from" as SQL over "FROM source s" followed by *joins, to
 * be evaluated for all of these rows.  Rows out are rows in, or a scalar subquery
 * had more than one row.  As for columns_derive().
 */
struct Derivation;
extern char *columns_value_sql(Relation from, struct Derivation *derivation, char **joins);

/* Rows whose partition key comes out NULL are left out: options.on_null_key. */
extern bool columns_skip_null_key(const Migration *m);

/* The root's partition key columns, as attribute numbers of the target. */
extern Bitmapset *columns_of_root_key(Oid target);

/* Evaluation */
typedef struct ColumnEval
{
	ColumnMap *map;
	ExprState **states;	  /* per attribute of "to", NULL for plain ones */
	NullableDatum *given; /* if set: values of derived columns, per attribute */
} ColumnEval;

extern ColumnEval *columns_prepare(ColumnMap *map, EState *estate);

/*
 * Fill "to_slot" (virtual-capable slot of the root "to" relation) from
 * "from_slot", a slot of the "from" relation.  Values may point into
 * from_slot.  econtext is for expression evaluation; the caller resets it.
 */
extern void columns_eval(ColumnEval *eval, TupleTableSlot *from_slot, TupleTableSlot *to_slot,
						 ExprContext *econtext);

/*
 * Attribute numbers of the source that the target's partition keys (all
 * levels) depend on, through the map; as a Bitmapset-free sorted List of int.
 * With whole_known false in *complete: the key depends on something that is
 * not the row (a subquery), so OLD values can't tell the leaf.
 */
extern List *columns_of_partition_key(Migration *m, bool *complete);

#endif
