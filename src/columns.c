/*-------------------------------------------------------------------------
 *
 * columns.c
 *	  How a row of one side becomes a row of the other; see columns.h.
 *
 * A column gets its value in the first of these ways that fits:
 *
 *	1. from an expression of the user's over the row "s" (options.columns, or
 *	   options.reverse_columns on the way back);
 *	2. a generated column: from its own definition, with our values for the
 *	   columns it reads; or plainly, where the other side generates the same;
 *	3. from the column of the same name, through an assignment cast where the
 *	   types differ;
 *	4. from its default, or NULL.
 *
 * The same row must always come to the same values, whether the copy, the
 * trigger, the drain or the verification asks, in whatever session.  So
 * expressions that are volatile are refused, as are casts and defaults that
 * depend on anything but the row; a stable function in an expression of the
 * user's is his own decision (it may read another table).
 *
 * The SQL text is generated from the analyzed expression, not from the user's
 * words: what the text means can't depend on a search_path, nor can a cleverly
 * placed bracket mean something else to another statement.  Its casts are
 * explicit ones: a value too long for a varchar(n) is cut in the text and an
 * error in the evaluation.  So the copy evaluates, and only verification uses
 * the text, where a row that doesn't fit is missing on the other side anyway.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "columns.h"
#include "executor/executor.h"
#include "expression.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "rewrite/rewriteHandler.h"
#include "run.h"
#include "sqlgen.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

/* A map while it is being built. */
typedef struct Builder
{
	bool reverse;
	Relation from;
	Relation to;
	const char *option; /* where the user's expressions stand */
	Jsonb *expressions; /* by column of "to", or NULL */
	Jsonb *forward;		/* those of the way forth, or NULL */
	Jsonb *derived;		/* values of sharding keys, direction forward; or NULL */
	ColumnMap *map;
} Builder;

static void map_column(Builder *builder, int i);
static void map_generated(Builder *builder, int i);

/* ------------------------------------------------------------------------
 * Expressions of the user's
 * ------------------------------------------------------------------------
 */

/* 42703 if an expression is given for a column that isn't there. */
static void
check_expression_names(Builder *builder)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;

	if (builder->expressions == NULL)
		return;
	iterator = JsonbIteratorInit(&builder->expressions->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		char *name;

		if (token != WJB_KEY)
			continue;
		name = pnstrdup(value.val.string.val, value.val.string.len);
		if (get_attnum(RelationGetRelid(builder->to), name) <= 0)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
							errmsg("column \"%s\" in options.%s does not exist in table \"%s\"",
								   name, builder->option, RelationGetRelationName(builder->to))));
	}
}

/* ------------------------------------------------------------------------
 * The map
 * ------------------------------------------------------------------------
 */

static Var *
make_var(Form_pg_attribute att)
{
	return makeVar(1, att->attnum, att->atttypid, att->atttypmod, att->attcollation, 0);
}

/* The attribute of that name which isn't dropped, or NULL. */
static Form_pg_attribute
find_attribute(Relation rel, const char *name)
{
	AttrNumber attnum = get_attnum(RelationGetRelid(rel), name);

	return attnum > 0 ? TupleDescAttr(RelationGetDescr(rel), attnum - 1) : NULL;
}

/*
 * Map attribute i from the column of the same name, which has a type of its
 * own.  Where the cast changes nothing (varchar(10) to varchar(20), or to
 * text) the column is a plain one.
 */
static void
map_cast(Builder *builder, int i, Form_pg_attribute from)
{
	Form_pg_attribute to = TupleDescAttr(RelationGetDescr(builder->to), i);
	Node *expr = (Node *) make_var(from);
	Node *bare;

	expr = coerce_to_target_type(NULL, expr, from->atttypid, to->atttypid, to->atttypmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("column \"%s\" can't be carried from type %s to type %s", NameStr(to->attname),
					format_type_be(from->atttypid), format_type_be(to->atttypid)),
			 errdetail("There is no assignment cast between the types."),
			 errhint("Give an expression for the column in options.%s.", builder->option)));
	if (contain_mutable_functions(expr))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("column \"%s\" can't be carried from type %s to type %s",
							   NameStr(to->attname), format_type_be(from->atttypid),
							   format_type_be(to->atttypid)),
						errdetail("The cast depends on settings of the session."),
						errhint("Give an expression for the column in options.%s, for a timestamp "
								"\"s.%s AT TIME ZONE 'UTC'\".",
								builder->option, NameStr(to->attname))));
	assign_expr_collations(NULL, expr);

	/* drops length coercions that can't change a value */
	expr = eval_const_expressions(NULL, expr);
	bare = expr;
	while (IsA(bare, RelabelType))
		bare = (Node *) ((RelabelType *) bare)->arg;
	if (IsA(bare, Var))
		builder->map->from_attnum[i] = from->attnum;
	else
		builder->map->expr[i] = expr;
}

/*
 * Map attribute i, which nothing on the other side corresponds to, to its
 * default.
 */
static void
map_default(Builder *builder, int i)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(builder->to), i);
	Node *expr = build_column_default(builder->to, att->attnum);

	if (expr == NULL && att->attnotnull)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of table \"%s\" has no counterpart in table \"%s\"",
							   NameStr(att->attname), RelationGetRelationName(builder->to),
							   RelationGetRelationName(builder->from)),
						errdetail("The column is NOT NULL and has no default."),
						errhint("Give an expression for it in options.%s.", builder->option)));
	if (expr != NULL && contain_mutable_functions(expr))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" has no counterpart in table \"%s\"",
						NameStr(att->attname), RelationGetRelationName(builder->to),
						RelationGetRelationName(builder->from)),
				 errdetail("Its default gives another value each time; a row that is carried "
						   "twice must come to the same values."),
				 errhint("Give an expression for it in options.%s.", builder->option)));
	if (expr == NULL)
		expr = (Node *) makeNullConst(att->atttypid, att->atttypmod, att->attcollation);
	builder->map->expr[i] = expr;
}

/*
 * On the way back, a column of the same name isn't the counterpart where the
 * way forth computed it: the user must say how to undo his expression.
 */
static void
check_way_back(Builder *builder, const char *name)
{
	if (builder->reverse && builder->forward != NULL && json_field(builder->forward, name) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" can't be carried back", name),
				 errdetail("options.columns computes it, and options.reverse_columns doesn't say "
						   "how to come back from its value."),
				 errhint("Give an expression for it in options.reverse_columns.")));
}

/* Decide how attribute i of "to", not a generated one, gets its value. */
static void
map_column(Builder *builder, int i)
{
	Form_pg_attribute to = TupleDescAttr(RelationGetDescr(builder->to), i);
	const char *name = NameStr(to->attname);
	Form_pg_attribute from;
	char *text = NULL;

	if (builder->expressions != NULL)
		text = json_field(builder->expressions, name);
	if (text != NULL)
	{
		ExpressionInput input = {builder->from, name, to->atttypid, to->atttypmod, text};

		input.place = psprintf("options.%s", builder->option);
		builder->map->expr[i] = expression_analyze(&input);
		return;
	}

	from = find_attribute(builder->from, name);
	if (from == NULL)
	{
		map_default(builder, i);
		return;
	}
	check_way_back(builder, name);
	if (from->atttypid == to->atttypid && (from->atttypmod == to->atttypmod || to->atttypmod < 0))
		builder->map->from_attnum[i] = from->attnum;
	else
		map_cast(builder, i, from);
	if (builder->derived != NULL && (text = json_field(builder->derived, name)) != NULL)
		columns_derive(builder->map, i, builder->from, builder->to, text);
}

/* Replace columns of "to" in an expression by what the map gives for them. */
static Node *
substitute_columns(Node *node, void *arg)
{
	Builder *builder = arg;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;
		Form_pg_attribute from;

		if (var->varattno <= 0)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("a generated column of table \"%s\" reads a system column",
								   RelationGetRelationName(builder->to)),
							errdetail("Its value is another one in each table.")));
		if (builder->map->expr[var->varattno - 1] != NULL)
			return copyObject(builder->map->expr[var->varattno - 1]);

		from = TupleDescAttr(RelationGetDescr(builder->from),
							 builder->map->from_attnum[var->varattno - 1] - 1);
		if (from->atttypid == var->vartype)
			return (Node *) make_var(from);
		return (Node *) makeRelabelType((Expr *) make_var(from), var->vartype, var->vartypmod,
										var->varcollid, COERCE_IMPLICIT_CAST);
	}
	return expression_tree_mutator(node, substitute_columns, arg);
}

/*
 * Map attribute i of "to", a generated column.  All others are mapped already.
 * Where the other side generates the same, its value is taken as it is.
 */
static void
map_generated(Builder *builder, int i)
{
	Form_pg_attribute to = TupleDescAttr(RelationGetDescr(builder->to), i);
	Form_pg_attribute from = find_attribute(builder->from, NameStr(to->attname));
	Node *expr;

	if (builder->expressions != NULL &&
		json_field(builder->expressions, NameStr(to->attname)) != NULL)
		ereport(ERROR, (errcode(ERRCODE_GENERATED_ALWAYS),
						errmsg("column \"%s\" of table \"%s\" is a generated column",
							   NameStr(to->attname), RelationGetRelationName(builder->to)),
						errdetail("options.%s can't give an expression for it, it has one.",
								  builder->option)));

	expr = substitute_columns(build_column_default(builder->to, to->attnum), builder);
	if (from != NULL && from->attgenerated && from->atttypid == to->atttypid &&
		from->atttypmod == to->atttypmod &&
		equal(expr, build_column_default(builder->from, from->attnum)))
		builder->map->from_attnum[i] = from->attnum;
	else
		builder->map->expr[i] = expr;
}

/* One of the two objects of expressions in the options, or NULL. */
static Jsonb *
expressions_option(Migration *m, const char *option)
{
	char *text = m->options != NULL ? json_field(m->options, option) : NULL;
	Jsonb *expressions;

	if (text == NULL)
		return NULL;
	expressions = json_parse(text);
	if (!JB_ROOT_IS_OBJECT(expressions))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" is not an object", option),
						errhint("Give expressions by column name, as in "
								"{\"columns\": {\"total\": \"s.price * s.amount\"}}.")));
	return JB_ROOT_COUNT(expressions) > 0 ? expressions : NULL;
}

static void
map_all(Builder *builder)
{
	TupleDesc desc = RelationGetDescr(builder->to);
	int i;

	check_expression_names(builder);
	for (i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && !TupleDescAttr(desc, i)->attgenerated)
			map_column(builder, i);
	}
	for (i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && TupleDescAttr(desc, i)->attgenerated)
			map_generated(builder, i);
	}
	builder->map->plain = true;
	for (i = 0; i < desc->natts; i++)
	{
		if (builder->map->expr[i] != NULL)
			builder->map->plain = false;
	}
}

/*
 * See columns.h.  Becomes the owner by itself to analyze expressions: folding
 * of constants may run his functions.  Opens both relations without a lock.
 */
ColumnMap *
columns_build(Migration *m, Direction direction)
{
	bool forward = direction == DIRECTION_FORWARD;
	Builder builder = {!forward};
	ColumnMap *map = palloc0(sizeof(ColumnMap));
	UserSwitch save;

	map->from = front_of(m, direction);
	map->to = back_of(m, direction);
	builder.map = map;
	builder.option = forward ? "columns" : "reverse_columns";
	builder.expressions = expressions_option(m, builder.option);
	builder.forward = expressions_option(m, "columns");
	builder.derived = forward ? expressions_option(m, "derived") : NULL;
	builder.from = table_open(map->from, NoLock);
	builder.to = table_open(map->to, NoLock);

	map->natts = RelationGetDescr(builder.to)->natts;
	map->from_attnum = palloc0(map->natts * sizeof(AttrNumber));
	map->expr = palloc0(map->natts * sizeof(Node *));
	map->derived = palloc0(map->natts * sizeof(DerivedColumn *));

	/* settings are pinned too: search_path decides what a function's name means */
	user_switch_owner(&save, m->owner);
	map_all(&builder);
	user_switch_back(&save);

	table_close(builder.to, NoLock);
	table_close(builder.from, NoLock);
	return map;
}

/*
 * See columns.h.  Same locks and errors as columns_build().
 */
char *
columns_select_list(Migration *m, Direction direction, bool with_names)
{
	return columns_select_list_without(m, direction, with_names, NULL);
}

char *
columns_select_list_without(Migration *m, Direction direction, bool with_names,
							const Bitmapset *without)
{
	ColumnMap *map = columns_build(m, direction);
	Relation from = table_open(map->from, NoLock);
	Relation to = table_open(map->to, NoLock);
	List *context = deparse_context_for(ROW_ALIAS, map->from);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < map->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(to), i);
		char *value;
		Oid type;

		if (att->attisdropped || bms_is_member(i + 1, without))
			continue;
		if (map->derived[i] != NULL)
		{
			value = map->derived[i]->value;
			type = InvalidOid;
		}
		else if (map->expr[i] != NULL)
		{
			value = psprintf("(%s)", deparse_expression(map->expr[i], context, true, false));
			type = InvalidOid; /* a hidden cast on top must be seen again */
		}
		else
		{
			Form_pg_attribute source =
				TupleDescAttr(RelationGetDescr(from), map->from_attnum[i] - 1);

			value = psprintf(ROW_ALIAS ".%s", quote_identifier(NameStr(source->attname)));
			type = source->atttypid;
		}
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", value);
		if (type != att->atttypid)
			appendStringInfo(
				&list, "::%s",
				format_type_extended(att->atttypid, att->atttypmod,
									 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (with_names)
			appendStringInfo(&list, " AS %s", quote_identifier(NameStr(att->attname)));
	}
	table_close(to, NoLock);
	table_close(from, NoLock);
	return list.data;
}

/* ------------------------------------------------------------------------
 * Evaluation
 * ------------------------------------------------------------------------
 */

/*
 * Compile the map's expressions, in the estate's memory.  The caller is the
 * owner: planning an expression may run immutable functions of his.
 */
ColumnEval *
columns_prepare(ColumnMap *map, EState *estate)
{
	ColumnEval *eval = palloc(sizeof(ColumnEval));

	eval->map = map;
	eval->given = NULL;
	eval->states = palloc0(map->natts * sizeof(ExprState *));
	for (int i = 0; i < map->natts; i++)
	{
		if (map->expr[i] != NULL)
			eval->states[i] = ExecPrepareExpr((Expr *) copyObject(map->expr[i]), estate);
	}
	return eval;
}

/* See columns.h.  The caller is the owner. */
void
columns_eval(ColumnEval *eval, TupleTableSlot *from_slot, TupleTableSlot *to_slot,
			 ExprContext *econtext)
{
	ColumnMap *map = eval->map;

	slot_getallattrs(from_slot);
	ExecClearTuple(to_slot);
	econtext->ecxt_scantuple = from_slot;
	for (int i = 0; i < map->natts; i++)
	{
		AttrNumber attnum = map->from_attnum[i];

		if (attnum > 0)
		{
			to_slot->tts_values[i] = from_slot->tts_values[attnum - 1];
			to_slot->tts_isnull[i] = from_slot->tts_isnull[attnum - 1];
		}
		else if (eval->given != NULL && map->derived[i] != NULL)
		{
			to_slot->tts_values[i] = eval->given[i].value;
			to_slot->tts_isnull[i] = eval->given[i].isnull;
		}
		else if (eval->states[i] != NULL)
			to_slot->tts_values[i] =
				ExecEvalExprSwitchContext(eval->states[i], econtext, &to_slot->tts_isnull[i]);
		else
		{
			/* a dropped column */
			to_slot->tts_values[i] = (Datum) 0;
			to_slot->tts_isnull[i] = true;
		}
	}
	ExecStoreVirtualTuple(to_slot);
}
