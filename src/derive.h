/*-------------------------------------------------------------------------
 *
 * derive.h
 *	  The value of a sharding key for one row: an expression over the row "s"
 *	  that may read other tables, run as a prepared statement a row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_DERIVE_H
#define MIGRATE_EXT_DERIVE_H

#include "nodes/nodes.h"
#include "types.h"
#include "utils/relcache.h"

/* A value over the rows of one relation. */
typedef struct Derivation
{
	Node *expr; /* analyzed, over the relation as varno 1 */
	Oid type;	/* of the column */
	int32 typmod;
	bool subqueries; /* there are some in it */
	int nargs;		 /* columns of the relation that it reads */
	AttrNumber *attnums;
	Oid *types;
} Derivation;

/*
 * Analyze a value for a column of this name and type.  The caller has become
 * the owner and decides the search_path.  Errors: expression_analyze()'s, and
 * 0A000 for the row as a whole and for temporary tables.
 */
extern Derivation *derive_analyze(Relation rel, const char *column, Oid type, int32 typmod,
								  const char *value);

/* The same value as text that no search_path can change; settings are pinned. */
extern char *derive_text(Relation rel, Derivation *derivation);

/* The text as a statement, the columns that it reads as its parameters. */
extern char *derive_statement(Relation rel, Derivation *derivation);

/*
 * The value as a node over varno 1 that has no subquery in it: where there are
 * some, a call of migrate_ext.derive_key().
 */
extern Node *derive_node(Relation rel, Derivation *derivation);

/* A statement prepared in this session, for good. */
typedef struct DerivePlan DerivePlan;
extern DerivePlan *derive_plan(const char *statement, int nargs, const Oid *types);

/*
 * Run it for one row, with the latest snapshot and with what this transaction
 * has written so far.  The result is in CurrentMemoryContext.  Within a
 * UserSwitch: the caller is the owner, restricted, and settings are pinned.
 * 21000 if a scalar subquery has more than one row.
 */
extern Datum derive_run_pinned(DerivePlan *plan, Datum *values, const bool *isnull,
							   bool *result_isnull);

/*
 * For many rows of one snapshot: from begin to end, the active snapshot is what
 * values are read with, settings are the caller's to pin, and rows that follow
 * each other with the same parameters share one reading.  End tells how many
 * there were; it must be called on any way out.
 */
extern void derive_series_begin(void);
extern int64 derive_series_end(void);

/* The planner's estimate of what one reading costs; 0 without subqueries. */
extern double derive_cost(Relation rel, Derivation *derivation);

#endif
