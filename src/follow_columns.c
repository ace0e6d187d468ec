/*-------------------------------------------------------------------------
 *
 * follow_columns.c
 *	  The other table's columns follow those of the application's table; see
 *	  follow_columns.h.
 *
 * What was done is told by comparing the front table's columns with the shape
 * that was recorded, by attribute number: so a renamed column is not a dropped
 * one and a new one.
 *
 * A new column gets in the back table's rows what it has in the front's.  One
 * that was added with a constant default has that "missing value" in all rows
 * of before; the back table's column is added with the same, which rewrites
 * nothing either.  One whose default is not constant made PostgreSQL rewrite the
 * front table, and makes it rewrite the back table; the values then differ, and
 * the comparison that follows puts them right.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_attrdef.h"
#include "follow_columns.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

typedef struct Following
{
	Migration *m;
	Relation front;
	Oid back;
	const char *was;	/* the front's recorded shape */
	Jsonb *expressions; /* columns of the back side that are computed, or NULL */
	int changed;
} Following;

static bool
is_computed(const Following *f, const char *name)
{
	return f->expressions != NULL && json_field(f->expressions, name) != NULL;
}

static char *
column_type(Form_pg_attribute att)
{
	return format_type_extended(att->atttypid, att->atttypmod,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/* " COLLATE ..." where it isn't the type's own. */
static char *
collation_clause(Form_pg_attribute att)
{
	if (!OidIsValid(att->attcollation) || att->attcollation == get_typcollation(att->atttypid))
		return "";
	return sql_text("SELECT ' COLLATE ' || %u::pg_catalog.regcollation::pg_catalog.text",
					att->attcollation);
}

/* ALTER TABLE back <action>, as its owner. */
static void
alter(Following *f, const char *action)
{
	UserSwitch user;

	user_switch_owner(&user, relinfo_owner(f->back));
	limit_lock_waits(f->m);
	(void) sql_run("ALTER TABLE %s %s", sql_relation(f->back), action);
	user_switch_back(&user);
	CommandCounterIncrement();
	f->changed++;
}

/* The default's expression, or NULL. */
static char *
default_text(Form_pg_attribute att)
{
	return sql_text("SELECT pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef"
					" WHERE adrelid = %u AND adnum = %d",
					att->attrelid, att->attnum);
}

/*
 * What rows of before have in a column that was added with a constant default,
 * as a literal; NULL if they have nothing of the kind.
 */
static char *
missing_text(Form_pg_attribute att)
{
	char *cast;

	if (!att->atthasmissing)
		return NULL;
	cast = quote_literal_cstr(psprintf("::%s", column_type(att)));
	return sql_text("SELECT pg_catalog.quote_literal((attmissingval::pg_catalog.text"
					"::pg_catalog.text[])[1]) || %s FROM pg_catalog.pg_attribute"
					" WHERE attrelid = %u AND attnum = %d",
					cast, att->attrelid, att->attnum);
}

/*
 *		ADD COLUMN c int8 DEFAULT '5'::int8 NOT NULL, and then
 *		ALTER COLUMN c SET DEFAULT nextval('...'), where the default is another one now
 *
 * An identity column of the front becomes a plain one: it has its values from
 * there, and the identity moves at the swap.
 */
static void
add_column(Following *f, Form_pg_attribute att)
{
	char *name = pstrdup(quote_identifier(NameStr(att->attname)));
	char *missing = missing_text(att);
	char *expression = default_text(att);
	StringInfoData action;

	initStringInfo(&action);
	appendStringInfo(&action, "ADD COLUMN %s %s%s", name, column_type(att), collation_clause(att));
	if (att->attgenerated)
		appendStringInfo(&action, " GENERATED ALWAYS AS (%s) STORED", expression);
	else if (missing != NULL)
		appendStringInfo(&action, " DEFAULT %s", missing);
	else if (expression != NULL && att->attnotnull)
		appendStringInfo(&action, " DEFAULT %s", expression);
	if (att->attnotnull && (!att->attidentity || missing != NULL))
		appendStringInfoString(&action, " NOT NULL");
	alter(f, action.data);
	if (att->attgenerated)
		return;
	if (expression != NULL)
		alter(f, psprintf("ALTER COLUMN %s SET DEFAULT %s", name, expression));
	else if (missing != NULL)
		alter(f, psprintf("ALTER COLUMN %s DROP DEFAULT", name));
}

/* Is the column one by which rows are named?  Then the log's columns would have to change, too. */
static void
check_not_identity(Following *f, const char *name)
{
	Identity *identity = relinfo_identity(f->m->source, true);

	for (int i = 0; identity != NULL && i < identity->natts; i++)
	{
		if (strcmp(get_attname(f->m->source, identity->attnums[i], false), name) == 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the type of column \"%s\" of table \"%s\" can't be changed while it is "
						"migrated",
						name, RelationGetRelationName(f->front)),
				 errdetail("The column is part of the key that names a row."),
				 errhint("Cancel the migration and make it anew.")));
	}
}

/* A column that was there: its name, its type, whether it can be NULL. */
static void
follow_column(Following *f, Form_pg_attribute att, const ShapeColumn *was)
{
	char *name = pstrdup(NameStr(att->attname));
	AttrNumber attnum;

	if (strcmp(was->name, name) != 0 && get_attnum(f->back, was->name) > 0 &&
		get_attnum(f->back, name) <= 0)
		alter(f, psprintf("RENAME COLUMN %s TO %s", quote_identifier(pstrdup(was->name)),
						  pstrdup(quote_identifier(name))));
	attnum = get_attnum(f->back, name);
	if (attnum <= 0)
		return;
	if (was->type != att->atttypid || was->typmod != att->atttypmod ||
		was->collation != att->attcollation)
	{
		Oid type;
		int32 typmod;
		Oid collation;

		get_atttypetypmodcoll(f->back, attnum, &type, &typmod, &collation);
		if (type == was->type && typmod == was->typmod && collation == was->collation)
		{
			check_not_identity(f, name);
			alter(f, psprintf("ALTER COLUMN %s TYPE %s%s", quote_identifier(name), column_type(att),
							  collation_clause(att)));
		}
	}
	if (was->not_null && !att->attnotnull)
		alter(f, psprintf("ALTER COLUMN %s DROP NOT NULL", quote_identifier(name)));
}

/* Columns that are gone from the front. */
static void
drop_columns(Following *f, List *columns)
{
	ListCell *cell;

	foreach (cell, columns)
	{
		ShapeColumn *was = lfirst(cell);

		if (TupleDescAttr(RelationGetDescr(f->front), was->attnum - 1)->attisdropped &&
			get_attnum(f->back, was->name) > 0 &&
			get_attnum(RelationGetRelid(f->front), was->name) <= 0)
			alter(f, psprintf("DROP COLUMN %s", quote_identifier(was->name)));
	}
}

static ShapeColumn *
recorded(List *columns, AttrNumber attnum)
{
	ListCell *cell;

	foreach (cell, columns)
	{
		if (((ShapeColumn *) lfirst(cell))->attnum == attnum)
			return lfirst(cell);
	}
	return NULL;
}

int
follow_columns(Migration *m)
{
	bool swapped = m->state == STATE_SWAPPED;
	char *option = json_field(m->options, swapped ? "reverse_columns" : "columns");
	Following f = {m};
	List *columns = relinfo_shape_columns(swapped ? m->target_shape : m->source_shape);
	TupleDesc desc;

	f.back = back_of(m, direction_of(m));
	f.expressions = option != NULL ? json_parse(option) : NULL;
	f.front = relation_open(front_of(m, direction_of(m)), NoLock);
	desc = CreateTupleDescCopyConstr(RelationGetDescr(f.front));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		ShapeColumn *was = recorded(columns, att->attnum);

		if (att->attisdropped || is_computed(&f, NameStr(att->attname)))
			continue;
		if (was != NULL)
			follow_column(&f, att, was);
		else if (get_attnum(f.back, NameStr(att->attname)) <= 0)
			add_column(&f, att);
	}
	if (!swapped && m->made_target)
		drop_columns(&f, columns);
	relation_close(f.front, NoLock);
	return f.changed;
}
