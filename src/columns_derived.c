/*-------------------------------------------------------------------------
 *
 * columns_derived.c
 *	  A sharding key that is derived where the source's column is NULL.
 *
 * There are two ways to come to the value, from one definition.  For one row
 * (trigger, drain; copy, where that is faster) it is evaluated: COALESCE(s.key,
 * derive_key(...)), which runs a prepared statement.  For many rows (copy,
 * verification, bounds) it is SQL,
 * in which each scalar subquery that is always evaluated becomes a join:
 *
 *		SELECT COALESCE(s.key, d1_0.v) FROM ONLY source s
 *		  LEFT JOIN LATERAL (SELECT p.project_id FROM p WHERE p.id = s.p_id) d1_0 (v)
 *		    ON s.key IS NULL
 *
 * The planner pulls that up and may join by hash, where it runs a scalar
 * subquery row by row.  A scalar subquery of more than one row is an error; a
 * join gives the row twice, which who reads the rows must notice.  A subquery
 * that the planner couldn't pull up, or that may be passed over (in the second
 * argument of COALESCE, say), stays where it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "columns.h"
#include "derive.h"
#include "expression.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "sqlgen.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

/* Numbers of the parameters that stand for a subquery while text is made. */
#define FIRST_PLACEHOLDER 900000

/* Would the planner pull it up into a join? */
static bool
is_simple_subquery(SubLink *sublink)
{
	Query *query = (Query *) sublink->subselect;

	return sublink->subLinkType == EXPR_SUBLINK && IsA(query, Query) &&
		   query->commandType == CMD_SELECT && !query->hasAggs && !query->hasWindowFuncs &&
		   !query->hasTargetSRFs && query->setOperations == NULL && query->groupClause == NIL &&
		   query->groupingSets == NIL && query->havingQual == NULL && query->sortClause == NIL &&
		   query->distinctClause == NIL && query->limitOffset == NULL &&
		   query->limitCount == NULL && query->cteList == NIL && query->jointree->fromlist != NIL;
}

/* Replace the subqueries that can be joined by placeholders; they are added to *arg. */
static Node *
lift_subqueries(Node *node, void *arg)
{
	List **lifted = arg;

	if (node == NULL)
		return NULL;
	if (IsA(node, SubLink))
	{
		Param *param = makeNode(Param);

		if (!is_simple_subquery((SubLink *) node))
			return copyObject(node);
		param->paramkind = PARAM_EXTERN;
		param->paramid = FIRST_PLACEHOLDER + list_length(*lifted);
		param->paramtype = exprType(node);
		param->paramtypmod = exprTypmod(node);
		param->paramcollid = exprCollation(node);
		param->location = -1;
		*lifted = lappend(*lifted, node);
		return (Node *) param;
	}
	/* what may not be evaluated must not raise an error: only what always is */
	if (IsA(node, CaseExpr) || (IsA(node, BoolExpr) && ((BoolExpr *) node)->boolop != NOT_EXPR))
		return copyObject(node);
	if (IsA(node, CoalesceExpr))
	{
		CoalesceExpr *coalesce = copyObject((CoalesceExpr *) node);

		linitial(coalesce->args) = lift_subqueries(linitial(coalesce->args), arg);
		return (Node *) coalesce;
	}
	return expression_tree_mutator(node, lift_subqueries, arg);
}

/* Put the join's column where its placeholder stands; false if that isn't sure. */
static bool
replace_placeholder(char **text, const char *placeholder, const char *column)
{
	char *found = strstr(*text, placeholder);
	StringInfoData buf;

	if (found == NULL || strstr(found + 1, placeholder) != NULL)
		return false;
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, *text, found - *text);
	appendStringInfo(&buf, "%s%s", column, found + strlen(placeholder));
	*text = buf.data;
	return true;
}

/* The value as SQL, with its joins where there are any. */
static char *
value_with_joins(Relation from, Derivation *derivation, int i, const char *condition, char **joins)
{
	List *context = deparse_context_for(ROW_ALIAS, RelationGetRelid(from));
	List *lifted = NIL;
	Node *lifted_expr = lift_subqueries(derivation->expr, &lifted);
	char *text = deparse_expression(lifted_expr, context, true, false);
	StringInfoData buf;
	int n;

	initStringInfo(&buf);
	for (n = 0; n < list_length(lifted); n++)
	{
		char *alias = psprintf("d%d_%d", i + 1, n);

		if (!replace_placeholder(&text, psprintf("$%d", FIRST_PLACEHOLDER + n),
								 psprintf("%s.v", alias)))
			break;
		appendStringInfo(&buf, " LEFT JOIN LATERAL %s %s (v) ON %s",
						 deparse_expression(list_nth(lifted, n), context, true, false), alias,
						 condition);
	}
	if (n < list_length(lifted))
	{
		*joins = "";
		return derive_text(from, derivation);
	}
	*joins = buf.data;
	return text;
}

char *
columns_value_sql(Relation from, Derivation *derivation, char **joins)
{
	return value_with_joins(from, derivation, 0, "true", joins);
}

/* The column as it is, in the target's type. */
static Node *
column_node(ColumnMap *map, int i, Form_pg_attribute from, Form_pg_attribute to)
{
	Node *var =
		(Node *) makeVar(1, from->attnum, from->atttypid, from->atttypmod, from->attcollation, 0);

	if (map->expr[i] != NULL)
		return map->expr[i];
	if (from->atttypid == to->atttypid)
		return var;
	return (Node *) makeRelabelType((Expr *) var, to->atttypid, to->atttypmod, to->attcollation,
									COERCE_IMPLICIT_CAST);
}

void
columns_derive(ColumnMap *map, int i, Relation from, Relation to, const char *value)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(to), i);
	const char *name = NameStr(att->attname);
	AttrNumber source = get_attnum(RelationGetRelid(from), name);
	Form_pg_attribute from_att = TupleDescAttr(RelationGetDescr(from), source - 1);
	Derivation *derivation = derive_analyze(from, name, att->atttypid, att->atttypmod, value);
	DerivedColumn *derived = palloc0(sizeof(DerivedColumn));
	CoalesceExpr *coalesce = makeNode(CoalesceExpr);
	char *text;

	coalesce->coalescetype = att->atttypid;
	coalesce->coalescecollid = att->attcollation;
	coalesce->args = list_make2(column_node(map, i, from_att, att), derive_node(from, derivation));
	coalesce->location = -1;

	derived->source = source;
	derived->pinned = derivation->subqueries;
	derived->derivation = derivation;
	text = value_with_joins(from, derivation, i,
							psprintf(ROW_ALIAS ".%s IS NULL", quote_identifier(name)),
							&derived->joins);
	derived->value = psprintf(
		"COALESCE(%s, %s)",
		deparse_expression((Node *) linitial(coalesce->args),
						   deparse_context_for(ROW_ALIAS, RelationGetRelid(from)), true, false),
		text);
	derived->assigned = sql_assignment(derived->value, att->atttypid, att->atttypmod);
	map->from_attnum[i] = 0;
	map->expr[i] = (Node *) coalesce;
	map->derived[i] = derived;
	map->has_derived = true;
}

char *
columns_joins(const ColumnMap *map)
{
	StringInfoData joins;

	initStringInfo(&joins);
	for (int i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL)
			appendStringInfoString(&joins, map->derived[i]->joins);
	}
	return joins.data;
}

bool
columns_skip_null_key(const Migration *m)
{
	char *option = json_field(m->options, "on_null_key");

	return option != NULL && strcmp(option, "skip") == 0;
}

Bitmapset *
columns_of_root_key(Oid target)
{
	Relation root = table_open(target, AccessShareLock);
	PartitionKey key = RelationGetPartitionKey(root);
	Bitmapset *attnums = NULL;

	for (int i = 0; key != NULL && i < key->partnatts; i++)
	{
		if (key->partattrs[i] > 0)
			attnums = bms_add_member(attnums, key->partattrs[i]);
	}
	table_close(root, NoLock);
	return attnums;
}
