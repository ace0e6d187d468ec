/*-------------------------------------------------------------------------
 *
 * expression.c
 *	  Expressions that a user gives as text; see expression.h.
 *
 * A text becomes a tree once, where the user's own search_path decides what a
 * name means, or ours where nothing else is promised; whoever uses it later
 * takes the tree or a text made from it.  Nothing in the words can then reach
 * out of the expression.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "expression.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/rel.h"

/* For the error context. */
typedef struct ExpressionPlace
{
	const ExpressionInput *input;
	const char *sql; /* what is parsed */
} ExpressionPlace;

/* Positions are in our text, not in the statement that the user sent. */
static void
expression_error_context(void *arg)
{
	ExpressionPlace *place = arg;
	int position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(place->sql);
	}
	errcontext("expression for column \"%s\" in %s", place->input->column, place->input->place);
}

/*
 * The raw expression in "SELECT (text)", which must be one expression and
 * nothing else: a text like "1) FROM secrets; --" parses too, but not to this
 * shape.
 */
static Node *
parse_expression(const char *sql, const char *text)
{
	List *statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	SelectStmt *select = NULL;
	SelectStmt *simple = makeNode(SelectStmt);

	if (list_length(statements) == 1)
		select = (SelectStmt *) linitial_node(RawStmt, statements)->stmt;
	if (select != NULL && IsA(select, SelectStmt) && list_length(select->targetList) == 1)
	{
		ResTarget *item = linitial_node(ResTarget, select->targetList);

		/* all of a statement that is no more than its select list */
		simple->targetList = select->targetList;
		simple->limitOption = select->limitOption;
		if (item->name == NULL && item->indirection == NIL && equal(select, simple))
			return item->val;
	}
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR), errmsg("\"%s\" is not one SQL expression", text)));
	return NULL; /* keep the compiler quiet */
}

/* The walk through an expression: how deep in subqueries, and what was found. */
typedef struct ColumnsContext
{
	int depth;
	Bitmapset *attnums; /* offset by one: system columns are 0 */
	bool locks_rows;
} ColumnsContext;

static bool
columns_walker(Node *node, ColumnsContext *context)
{
	bool result;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;

		if (var->varlevelsup == context->depth)
			context->attnums = bms_add_member(context->attnums, Max(var->varattno, -1) + 1);
		return false;
	}
	if (IsA(node, Query))
	{
		if (((Query *) node)->rowMarks != NIL)
			context->locks_rows = true;
		context->depth++;
		result = query_tree_walker((Query *) node, columns_walker, context, 0);
		context->depth--;
		return result;
	}
	return expression_tree_walker(node, columns_walker, context);
}

Bitmapset *
expression_columns(Node *expr)
{
	ColumnsContext context = {0};
	Bitmapset *attnums = NULL;
	int member = -1;

	(void) columns_walker(expr, &context);
	while ((member = bms_next_member(context.attnums, member)) >= 0)
	{
		if (member > 0)
			attnums = bms_add_member(attnums, member - 1);
	}
	return attnums;
}

/* Refuse what has no place in an expression over one row. */
static void
check_expression(const ExpressionInput *input, ParseState *pstate, Node *expr)
{
	const char *what = NULL;
	ColumnsContext context = {0};

	if (pstate->p_hasAggs)
		what = "an aggregate";
	else if (pstate->p_hasWindowFuncs)
		what = "a window function";
	else if (expression_returns_set(expr))
		what = "a function that returns a set";
	else if (pstate->p_hasSubLinks && !input->subqueries)
		what = "a subquery";
	if (what != NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s is not supported in a column's expression", what)));

	(void) columns_walker(expr, &context);
	if (bms_is_member(0, context.attnums))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a system column is not supported in a column's expression"),
						errdetail("Its value is another one in each table.")));
	if (context.locks_rows)
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
						errmsg("a column's expression can't lock rows")));
	if (contain_volatile_functions(expr))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("a column's expression can't contain volatile functions"),
				 errdetail("A row is read more than once and must come to the same values.")));
}

Node *
expression_analyze(const ExpressionInput *input)
{
	/* the line break ends a comment that the text may end with */
	char *sql = psprintf("SELECT (%s\n)", input->text);
	ExpressionPlace place = {input, sql};
	ErrorContextCallback callback = {error_context_stack, expression_error_context, &place};
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Node *expr;
	Node *coerced;

	error_context_stack = &callback;
	pstate->p_sourcetext = sql;
	item = addRangeTableEntryForRelation(pstate, input->rel, AccessShareLock,
										 makeAlias(ROW_ALIAS, NIL), false, true);
	addNSItemToQuery(pstate, item, true, true, true);

	expr = transformExpr(pstate, parse_expression(sql, input->text), EXPR_KIND_OTHER);
	coerced = coerce_to_target_type(pstate, expr, exprType(expr), input->type, input->typmod,
									COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (coerced == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" is of type %s but the expression is of type %s",
						input->column, format_type_be(input->type), format_type_be(exprType(expr))),
				 errhint("Rewrite the expression or cast it.")));
	assign_expr_collations(pstate, coerced);
	check_expression(input, pstate, coerced);
	free_parsestate(pstate);
	error_context_stack = callback.previous;
	return coerced;
}
