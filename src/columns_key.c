/*-------------------------------------------------------------------------
 *
 * columns_key.c
 *	  What columns of the source the target's partition keys depend on.
 *
 * With their OLD values a trigger can tell the leaf that an old row stands in,
 * so they are logged beside the identity.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "columns.h"
#include "optimizer/optimizer.h"
#include "partitioning/partdesc.h"
#include "run.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"

/* Attribute numbers of the source, as a set of them; *complete as in columns.h. */
typedef struct KeyColumns
{
	ColumnMap *map;
	Relation source;
	Bitmapset *attnums;
	bool complete;
} KeyColumns;

/* Add the columns of the source that column "attnum" of "level" is made of. */
static void
add_key_column(KeyColumns *columns, Relation level, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(level), attnum - 1);
	AttrNumber root_attnum = get_attnum(columns->map->to, NameStr(att->attname));
	Bitmapset *members = NULL;
	Node *expr;
	int member = -1;

	Assert(root_attnum > 0); /* a partition has the columns of its parent */
	if (columns->map->derived[root_attnum - 1] != NULL)
	{
		/* where that is NULL, an entry doesn't tell the leaf: see mirror_map.c */
		columns->attnums =
			bms_add_member(columns->attnums, columns->map->derived[root_attnum - 1]->source);
		return;
	}
	expr = columns->map->expr[root_attnum - 1];
	if (expr == NULL)
	{
		columns->attnums =
			bms_add_member(columns->attnums, columns->map->from_attnum[root_attnum - 1]);
		return;
	}
	if (contain_mutable_functions(expr))
		columns->complete = false;

	pull_varattnos(expr, 1, &members);
	while ((member = bms_next_member(members, member)) >= 0)
	{
		AttrNumber source_attnum = member + FirstLowInvalidHeapAttributeNumber;
		TupleDesc desc = RelationGetDescr(columns->source);

		if (source_attnum > 0)
			columns->attnums = bms_add_member(columns->attnums, source_attnum);
		else
		{
			/* the row as a whole: check_expression lets nothing else through */
			for (int i = 0; i < desc->natts; i++)
			{
				if (!TupleDescAttr(desc, i)->attisdropped)
					columns->attnums = bms_add_member(columns->attnums, i + 1);
			}
		}
	}
}

/* Add what the keys of this partitioned table and those below it depend on. */
static void
add_key_columns(KeyColumns *columns, Relation level)
{
	PartitionKey key = RelationGetPartitionKey(level);
	PartitionDesc desc = RelationGetPartitionDesc(level, true);
	Bitmapset *members = NULL;
	int member = -1;

	for (int i = 0; i < key->partnatts; i++)
	{
		if (key->partattrs[i] != 0)
			add_key_column(columns, level, key->partattrs[i]);
	}

	pull_varattnos((Node *) key->partexprs, 1, &members);
	while ((member = bms_next_member(members, member)) >= 0)
	{
		AttrNumber attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum > 0)
		{
			add_key_column(columns, level, attnum);
			continue;
		}
		for (int i = 0; i < RelationGetDescr(level)->natts; i++)
		{
			if (!TupleDescAttr(RelationGetDescr(level), i)->attisdropped)
				add_key_column(columns, level, i + 1);
		}
	}

	for (int i = 0; i < desc->nparts; i++)
	{
		if (!desc->is_leaf[i])
		{
			Relation child = table_open(desc->oids[i], AccessShareLock);

			add_key_columns(columns, child);
			table_close(child, NoLock);
		}
	}
}

/*
 * See columns.h.  Both relations are locked by the caller; partitioned tables
 * below the target are locked here (AccessShareLock).
 */
List *
columns_of_partition_key(Migration *m, bool *complete)
{
	KeyColumns columns = {columns_build(m, DIRECTION_FORWARD)};
	Relation root;
	List *result = NIL;
	int attnum = -1;
	UserSwitch save;

	root = table_open(m->target, NoLock);
	columns.source = table_open(m->source, NoLock);
	columns.complete = true;
	/* what is constant in a key's expressions is evaluated here */
	user_switch_owner(&save, m->owner);
	add_key_columns(&columns, root);
	user_switch_back(&save);
	table_close(columns.source, NoLock);
	table_close(root, NoLock);

	while ((attnum = bms_next_member(columns.attnums, attnum)) >= 0)
		result = lappend_int(result, attnum);
	*complete = columns.complete;
	return result;
}
