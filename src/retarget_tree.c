/*-------------------------------------------------------------------------
 *
 * retarget_tree.c
 *	  Stored expressions and queries that name one table, made to name another.
 *
 * PostgreSQL stores what a view or a function's body says as a tree in which
 * tables are OIDs and columns are numbers.  The tree is changed in place, number
 * by number, instead of being printed as SQL and parsed again: that needs no
 * rights of anybody's, keeps all that is attached to the object, is done in
 * microseconds, and works where there is no CREATE OR REPLACE (materialized
 * views, rules, policies).
 *
 * Columns are told by name and have numbers of their own in each table.  What
 * carries such numbers:
 *
 *		Var						of the table, or of a join that lists its columns
 *		RangeTblEntry			names, aliases, sets of columns used; lists of a join
 *		TargetEntry				of INSERT, UPDATE; where a column came from
 *		FieldSelect				of the row type
 *
 * Where numbers differ and there is no safe way to change them, that is a
 * problem, which is reported before anything starts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "retarget.h"

/* The range table of a query, or what stands for it: new numbers of columns. */
typedef struct Level
{
	struct Level *outer;
	int nentries;
	AttrNumber **columns; /* of each entry, by number - 1; NULL: as they were */
	int *natts;
	bool *is_table; /* is it a row of the table? */
} Level;

typedef struct Walk
{
	Retarget *r;
	Level *level;
	bool of_table; /* a rule of the table itself */
} Walk;

static bool walk(Node *node, Walk *w);

static void
tell(Retarget *r, const char *problem)
{
	if (r->problem == NULL)
		r->problem = pstrdup(problem);
}

/* ------------------------------------------------------------------------
 * Range tables
 * ------------------------------------------------------------------------
 */

static Level *
add_level(Walk *w, int nentries)
{
	Level *level = palloc0(sizeof(Level));

	level->outer = w->level;
	level->nentries = nentries;
	level->columns = palloc0(Max(nentries, 1) * sizeof(AttrNumber *));
	level->natts = palloc0(Max(nentries, 1) * sizeof(int));
	level->is_table = palloc0(Max(nentries, 1) * sizeof(bool));
	w->level = level;
	return level;
}

static void
set_table(Walk *w, Level *level, int entry)
{
	level->columns[entry] = w->r->columns;
	level->natts[entry] = w->r->natts;
	level->is_table[entry] = true;
}

/* The new number of a column of an entry; 0 or less: see RETARGET_MISSING. */
static AttrNumber
new_number(const Level *level, int varno, AttrNumber attnum)
{
	if (attnum <= 0 || varno < 1 || varno > level->nentries || level->columns[varno - 1] == NULL ||
		attnum > level->natts[varno - 1])
		return attnum;
	return level->columns[varno - 1][attnum - 1];
}

/* Columns used, for the checks of privileges. */
static Bitmapset *
new_set(const Retarget *r, Bitmapset *columns)
{
	Bitmapset *result = NULL;
	int member = -1;

	while ((member = bms_next_member(columns, member)) >= 0)
	{
		AttrNumber attnum = member + FirstLowInvalidHeapAttributeNumber;
		AttrNumber now = retarget_column(r, attnum);

		if (attnum <= 0 || now > 0)
			result = bms_add_member(result, now - FirstLowInvalidHeapAttributeNumber);
	}
	return result;
}

/*
 * The names by which a query knows the columns of the table: a list by number,
 * with '' for what has been dropped.  `old` may be shorter than the table is
 * wide, and so is the result.
 */
static List *
new_names(const Retarget *r, List *old)
{
	List *result = NIL;
	AttrNumber last = 0;

	for (int i = 0; i < Min(list_length(old), r->natts); i++)
		last = Max(last, r->columns[i]);
	for (AttrNumber attnum = 1; attnum <= last; attnum++)
	{
		char *name = get_attname(r->to, attnum, true);

		for (int i = 0; i < Min(list_length(old), r->natts); i++)
		{
			if (r->columns[i] == attnum)
				name = strVal(list_nth(old, i));
		}
		result = lappend(result, makeString(name ? pstrdup(name) : pstrdup("")));
	}
	return result;
}

static bool
is_pseudo_entry(const Walk *w, const RangeTblEntry *rte, int entry)
{
	return w->of_table && entry < 2 &&
		   (strcmp(rte->eref->aliasname, "old") == 0 || strcmp(rte->eref->aliasname, "new") == 0);
}

/* The table itself; entry counts from 0. */
static void
change_table(Walk *w, Query *query, RangeTblEntry *rte, int entry)
{
	Retarget *r = w->r;
	RTEPermissionInfo *permissions = query_permissions(query, rte);
	bool is_result = query->resultRelation == entry + 1;

	set_table(w, w->level, entry);
	if (permissions != NULL)
		permissions->relid = r->to;
	rte->relid = r->to;
	if (rte->relkind != RELKIND_COMPOSITE_TYPE) /* EXCLUDED */
	{
		rte->relkind = r->to_kind;
		if (r->to_kind == RELKIND_PARTITIONED_TABLE && !rte->inh &&
			!(is_result && query->commandType == CMD_INSERT) && !is_pseudo_entry(w, rte, entry))
			tell(r, "says ONLY of the table, and ONLY a partitioned table has no rows");
		r->writes |= is_result;
		r->locks |= !is_result && rte->rellockmode > AccessShareLock;
	}
	if (r->identical)
		return;
	if (permissions != NULL)
	{
		permissions->selectedCols = new_set(r, permissions->selectedCols);
		permissions->insertedCols = new_set(r, permissions->insertedCols);
		permissions->updatedCols = new_set(r, permissions->updatedCols);
	}
	rte->eref->colnames = new_names(r, rte->eref->colnames);
	if (rte->alias != NULL && rte->alias->colnames != NIL)
	{
		if (!r->in_order)
			tell(r, "gives the table's columns other names by their order, which is another one "
					"in the other table");
		rte->alias->colnames = new_names(r, rte->alias->colnames);
	}
}

/* The inputs of a join, by the number of its entry. */
typedef struct Inputs
{
	int *left;
	int *right;
} Inputs;

static int
entry_of(Node *node)
{
	return IsA(node, RangeTblRef) ? castNode(RangeTblRef, node)->rtindex
								  : castNode(JoinExpr, node)->rtindex;
}

static void
find_inputs(Node *node, Inputs *inputs)
{
	ListCell *lc;

	if (node == NULL)
		return;
	if (IsA(node, FromExpr))
	{
		foreach (lc, castNode(FromExpr, node)->fromlist)
			find_inputs(lfirst(lc), inputs);
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = castNode(JoinExpr, node);

		if (join->rtindex > 0)
		{
			inputs->left[join->rtindex - 1] = entry_of(join->larg);
			inputs->right[join->rtindex - 1] = entry_of(join->rarg);
		}
		find_inputs(join->larg, inputs);
		find_inputs(join->rarg, inputs);
	}
}

/* New numbers for the columns of one input; what is gone is marked in keep. */
static List *
change_input(Walk *w, List *columns, int input, int merged, bool *keep_first, bool *keep_rest)
{
	List *result = NIL;
	int i = 0;
	ListCell *lc;

	foreach (lc, columns)
	{
		AttrNumber now = new_number(w->level, input, lfirst_int(lc));
		bool *keep = i < merged ? &keep_first[i] : &keep_rest[i - merged];

		if (now == RETARGET_OTHER_TYPE)
			tell(w->r, "joins the table, a column of which has another type in the other table");
		if (now > 0)
			result = lappend_int(result, now);
		else
			*keep = false;
		i++;
	}
	return result;
}

static List *
keep_marked(List *list, const bool *keep)
{
	List *result = NIL;

	for (int i = 0; i < list_length(list); i++)
	{
		if (keep[i])
			result = lappend(result, list_nth(list, i));
	}
	return result;
}

/*
 * A join lists all columns of its inputs.  Columns that are gone leave it: what
 * is not merged (USING), nothing but another join speaks of.
 */
static void
change_join(Walk *w, RangeTblEntry *rte, int entry, const Inputs *inputs)
{
	int left = inputs->left[entry];
	int right = inputs->right[entry];
	int merged = rte->joinmergedcols;
	int n = list_length(rte->joinaliasvars);
	int nleft = list_length(rte->joinleftcols);
	bool *keep = palloc(Max(n, 1) * sizeof(bool));
	AttrNumber *columns = palloc0(Max(n, 1) * sizeof(AttrNumber));
	AttrNumber next = 0;

	if (w->r->identical || left == 0 ||
		(w->level->columns[left - 1] == NULL && w->level->columns[right - 1] == NULL))
		return;
	if (!w->r->in_order)
		tell(w->r, "joins the table, whose columns are in another order in the other table");
	for (int i = 0; i < n; i++)
		keep[i] = true;
	rte->joinleftcols = change_input(w, rte->joinleftcols, left, merged, keep, keep + merged);
	rte->joinrightcols = change_input(w, rte->joinrightcols, right, merged, keep, keep + nleft);
	for (int i = 0; i < n; i++)
	{
		if (keep[i])
			columns[i] = ++next;
		else if (i < merged)
			tell(w->r, "joins by a column that the other table does not have");
	}
	w->level->columns[entry] = columns;
	w->level->natts[entry] = n;
	rte->joinaliasvars = keep_marked(rte->joinaliasvars, keep);
	rte->eref->colnames = keep_marked(rte->eref->colnames, keep);
	if (rte->alias != NULL)
		rte->alias->colnames = keep_marked(rte->alias->colnames, keep);
}

/* A function that returns rows of the table, whose columns have other numbers. */
static void
look_at_functions(Retarget *r, List *functions)
{
	ListCell *lc;

	foreach (lc, functions)
	{
		Oid type = exprType(lfirst_node(RangeTblFunction, lc)->funcexpr);

		if (type == r->from_type)
			tell(r, "calls a function that returns rows of the table, which has dropped columns "
					"that the other table does not have");
	}
}

static void
change_range_table(Walk *w, Query *query)
{
	int n = list_length(query->rtable);
	Inputs inputs = {palloc0(Max(n, 1) * sizeof(int)), palloc0(Max(n, 1) * sizeof(int))};

	find_inputs((Node *) query->jointree, &inputs);
	for (int i = 0; i < n; i++)
	{
		RangeTblEntry *rte = list_nth_node(RangeTblEntry, query->rtable, i);

		if (rte->rtekind == RTE_RELATION && rte->relid == w->r->from)
			change_table(w, query, rte, i);
		else if (rte->rtekind == RTE_JOIN)
			change_join(w, rte, i, &inputs);
		else if (rte->rtekind == RTE_FUNCTION && !w->r->identical)
			look_at_functions(w->r, rte->functions);
	}
}

/* ------------------------------------------------------------------------
 * Queries
 * ------------------------------------------------------------------------
 */

/* What an INSERT or UPDATE sets: numbered by the columns of the table. */
static void
change_targets(Walk *w, List *targets)
{
	ListCell *lc;

	foreach (lc, targets)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		AttrNumber now;

		if (entry->resjunk || entry->resno < 1 || entry->resno > w->r->natts)
			continue;
		now = w->r->columns[entry->resno - 1];
		if (now <= 0)
			tell(w->r, "writes a column that the other table does not have, or of another type");
		else
			entry->resno = now;
	}
}

static bool
writes_table(const Walk *w, const Query *query)
{
	return query->resultRelation > 0 && query->resultRelation <= w->level->nentries &&
		   w->level->is_table[query->resultRelation - 1];
}

static void
change_written(Walk *w, Query *query)
{
	ListCell *lc;

	if (!writes_table(w, query))
		return;
	if (query->commandType == CMD_INSERT || query->commandType == CMD_UPDATE)
		change_targets(w, query->targetList);
	foreach (lc, query->mergeActionList)
	{
		MergeAction *action = lfirst_node(MergeAction, lc);

		if (action->commandType == CMD_INSERT || action->commandType == CMD_UPDATE)
			change_targets(w, action->targetList);
	}
	if (query->onConflict != NULL)
	{
		Relation rel;

		change_targets(w, query->onConflict->onConflictSet);
		if (OidIsValid(query->onConflict->constraint))
			tell(w->r, "names a constraint of the table in ON CONFLICT ON CONSTRAINT");
		if (query->onConflict->exclRelIndex == 0 || w->r->identical)
			return;
		rel = table_open(w->r->to, AccessShareLock);
		query->onConflict->exclRelTlist =
			BuildOnConflictExcludedTargetlist(rel, query->onConflict->exclRelIndex);
		table_close(rel, AccessShareLock);
	}
}

/* Constraints that make GROUP BY a key enough. */
static void
change_keys(Walk *w, Query *query)
{
	ListCell *lc;

	foreach (lc, query->constraintDeps)
	{
		Oid now = retarget_key(w->r, lfirst_oid(lc));

		if (!OidIsValid(now))
			tell(w->r, "groups by the table's primary key, which is another one in the other "
					   "table: GROUP BY needs all columns that are shown");
		lfirst_oid(lc) = now;
	}
}

static void
change_query(Walk *w, Query *query)
{
	Level *outer = w->level;

	(void) add_level(w, list_length(query->rtable));
	change_range_table(w, query);
	change_keys(w, query);
	(void) query_tree_walker(query, walk, w, 0);
	/* after the walk, which has changed what these lists hold */
	change_written(w, query);
	w->level = outer;
}

/* ------------------------------------------------------------------------
 * Expressions
 * ------------------------------------------------------------------------
 */

static void
change_var(Walk *w, Var *var)
{
	Level *level = w->level;
	AttrNumber now;

	for (Index i = 0; i < var->varlevelsup && level != NULL; i++)
		level = level->outer;
	if (level == NULL)
		return;
	if (var->varattno == 0 && var->varno >= 1 && var->varno <= level->nentries &&
		level->is_table[var->varno - 1] && !retarget_exchanges_types(w->r))
		tell(w->r, psprintf("uses whole rows of the table, %s", w->r->type_reason));
	now = new_number(level, var->varno, var->varattno);
	if (var->varattno > 0 && now <= 0)
		tell(w->r, now == RETARGET_MISSING
					   ? "uses a column that the other table does not have"
					   : "uses a column that has another type in the other table");
	var->varattno = now;
	now = new_number(level, var->varnosyn, var->varattnosyn);
	if (now < 0 || (now == 0 && var->varattnosyn != 0))
	{
		/* it is only said to have been written so: by its own name then */
		var->varnosyn = 0;
		now = 0;
	}
	var->varattnosyn = now;
}

static void
change_const(Walk *w, Const *c)
{
	if (c->consttype == REGCLASSOID && !c->constisnull &&
		DatumGetObjectId(c->constvalue) == w->r->from)
		c->constvalue = ObjectIdGetDatum(w->r->to);
}

static void
change_field(Walk *w, FieldSelect *field)
{
	AttrNumber now;

	if (getBaseType(exprType((Node *) field->arg)) != w->r->from_type)
		return;
	now = field->fieldnum > w->r->natts ? 0 : w->r->columns[field->fieldnum - 1];
	if (now <= 0)
		tell(w->r, "uses a column that the other table does not have, or of another type");
	field->fieldnum = now;
}

static void
change_target_entry(Walk *w, TargetEntry *entry)
{
	if (entry->resorigtbl != w->r->from)
		return;
	entry->resorigtbl = w->r->to;
	entry->resorigcol = retarget_column(w->r, entry->resorigcol);
}

/* Rows of the table, or arrays of them, that stand in the tree itself. */
static void
look_at_rows(Walk *w, Node *node)
{
	bool constant = IsA(node, Const) && !castNode(Const, node)->constisnull;
	bool made = IsA(node, RowExpr) || IsA(node, FieldStore) || IsA(node, ConvertRowtypeExpr);
	Oid type;

	if (!constant && !(made && !w->r->identical))
		return;
	type = exprType(node);
	if (type != w->r->from_type && type != get_array_type(w->r->from_type))
		return;
	tell(w->r, constant ? "has a constant row of the table"
						: "makes rows of the table, which has dropped columns that the other table "
						  "does not have");
}

static bool
walk(Node *node, Walk *w)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		change_query(w, (Query *) node);
		return false;
	}
	if (IsA(node, Var))
		change_var(w, (Var *) node);
	else if (IsA(node, Const))
		change_const(w, (Const *) node);
	else if (IsA(node, TargetEntry))
		change_target_entry(w, (TargetEntry *) node);
	else if (IsA(node, FieldSelect))
		change_field(w, (FieldSelect *) node);
	look_at_rows(w, node);
	return expression_tree_walker(node, walk, w);
}

char *
retarget_tree(Retarget *r, const char *tree, int nrelations, const Oid *relations)
{
	Walk w = {.r = r};
	Level *level = add_level(&w, nrelations);
	Node *node = stringToNode(tree);

	r->problem = NULL;
	r->writes = false;
	r->locks = false;
	for (int i = 0; i < nrelations; i++)
	{
		if (relations[i] == r->from)
		{
			set_table(&w, level, i);
			w.of_table = true;
		}
	}
	(void) walk(node, &w);
	return r->problem == NULL ? nodeToString(node) : NULL;
}
