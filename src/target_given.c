/*-------------------------------------------------------------------------
 *
 * target_given.c
 *	  Can a partitioned table of the caller's own be a target?
 *
 * One that is empty and has no index is copied to as our own targets are.  One
 * that has rows or indexes is adopted: it is compared with the source and put
 * right, row by row and with its indexes.  Either way rows are written past its
 * triggers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog.h"
#include "catalog/catalog.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "index_def.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "relinfo.h"
#include "sqlgen.h"
#include "target.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Kind, place and owner of the table itself. */
static void
check_root(Oid source, Relation rel)
{
	const char *name = RelationGetRelationName(rel);
	Migration *m;

	if (RelationGetRelid(rel) == source)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("source and target are the same table \"%s\"", name)));
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a partitioned table", name),
						errhint("Make the target with CREATE TABLE ... PARTITION BY.")));
	if (rel->rd_rel->relowner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table \"%s\" has another owner than \"%s\"", name, get_rel_name(source)),
				 errhint("Use ALTER TABLE ... OWNER TO.")));
	m = catalog_of_table(RelationGetRelid(rel));
	if (m != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table \"%s\" is used by a migration already", name),
						errdetail("It is the target of migration \"%s\".", m->name)));
	if (rel->rd_rel->relispartition)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("table \"%s\" is a partition of another table", name),
						errhint("Give the topmost table, or detach it.")));
}

/* One table below the target, or the target itself; true if it has indexes. */
static bool
check_part(Oid relid)
{
	Relation rel = relation_open(relid, AccessShareLock);
	const char *name = RelationGetRelationName(rel);
	bool has_indexes;

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("partition \"%s\" of the target is not a plain table", name),
						errdetail_relkind_not_supported(rel->rd_rel->relkind)));
	if (rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("table \"%s\" is temporary or unlogged", name),
						errdetail("The target takes over from a permanent table.")));
	has_indexes = RelationGetIndexList(rel) != NIL;
	relation_close(rel, NoLock);
	return has_indexes;
}

bool
target_check_given(Oid source, Oid target)
{
	bool adopted = false;
	Relation rel = relinfo_open(target);
	ListCell *lc;

	check_root(source, rel);
	relinfo_check_columns(rel);
	foreach (lc, find_all_inheritors(target, AccessShareLock, NULL))
		adopted |= check_part(lfirst_oid(lc));
	if (relinfo_leaves(target) == NIL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table \"%s\" has no partitions", RelationGetRelationName(rel)),
						errhint("Create its partitions first.")));
	relation_close(rel, NoLock);
	return adopted ||
		   sql_int64("SELECT EXISTS (SELECT FROM %s)::pg_catalog.int4", sql_relation(target)) != 0;
}

/*
 * A table has one primary key.  Where a partition's is another one than the target is to get,
 * that can't be made, which would show after all rows have been compared.
 */
static void
check_part_key(Oid relid, IndexDef *primary)
{
	Relation rel = relation_open(relid, AccessShareLock);
	char *own;

	list_free(RelationGetIndexList(rel));
	if (OidIsValid(rel->rd_pkindex))
	{
		own = sql_text("SELECT pg_catalog.pg_get_constraintdef(%u)",
					   get_index_constraint(rel->rd_pkindex));
		/* storage parameters and a tablespace may come behind it */
		if (strncmp(primary->tail, own, strlen(own)) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("partition \"%s\" has another primary key than the target is to get",
							RelationGetRelationName(rel)),
					 errdetail("It has %s, the target is to get %s.", own, primary->tail),
					 errhint("Drop constraint \"%s\": the migration makes the other one.",
							 get_rel_name(rel->rd_pkindex))));
	}
	relation_close(rel, NoLock);
}

void
target_check_part_keys(Migration *m)
{
	ListCell *lc;

	foreach (lc, index_def_wanted(m))
	{
		IndexDef *def = index_def(m, lfirst_oid(lc));
		ListCell *part;

		if (def == NULL || def->contype != CONSTRAINT_PRIMARY)
			continue;
		foreach (part, find_all_inheritors(m->target, AccessShareLock, NULL))
			check_part_key(lfirst_oid(part), def);
	}
}

/* The source's columns that some expression of the map reads. */
static Bitmapset *
columns_in_expressions(const ColumnMap *map)
{
	Bitmapset *members = NULL;
	int i;

	for (i = 0; i < map->natts; i++)
	{
		if (map->expr[i] != NULL)
			pull_varattnos(map->expr[i], 1, &members);
	}
	return members;
}

/*
 * Both sides are searched, and compared range by range, in the order of the key
 * that names a row: it must be the same order.
 */
static void
check_key_collations(Relation source, Oid target)
{
	Identity *identity = relinfo_identity(RelationGetRelid(source), true);
	int i;

	for (i = 0; identity != NULL && i < identity->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), identity->attnums[i] - 1);
		AttrNumber attnum = get_attnum(target, NameStr(att->attname));
		Oid type;
		int32 typmod;
		Oid collation;

		if (attnum == InvalidAttrNumber)
			continue;
		get_atttypetypmodcoll(target, attnum, &type, &typmod, &collation);
		if (OidIsValid(att->attcollation) && OidIsValid(collation) &&
			collation != att->attcollation)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("column \"%s\" of table \"%s\" has another collation than that "
								   "of table \"%s\"",
								   NameStr(att->attname), get_rel_name(target),
								   RelationGetRelationName(source)),
							errdetail("It is part of the key that names a row.")));
	}
}

/*
 * Errors (42703) if a column of the source gets lost: no column of the target
 * has its name, and no expression reads it.  Both relations are locked.
 */
void
target_check_carried(Relation source, Oid target, const ColumnMap *map)
{
	TupleDesc desc = RelationGetDescr(source);
	Bitmapset *used = columns_in_expressions(map);
	int i;

	check_key_collations(source, target);
	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, used))
		return; /* the whole row */
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || get_attnum(target, NameStr(att->attname)) != InvalidAttrNumber ||
			bms_is_member(att->attnum - FirstLowInvalidHeapAttributeNumber, used))
			continue;
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("table \"%s\" has no column for column \"%s\" of table \"%s\"",
							   get_rel_name(target), NameStr(att->attname),
							   RelationGetRelationName(source)),
						errdetail("Its values would be lost by the swap."),
						errhint("Add a column of that name, or use it in an expression of "
								"options.columns.")));
	}
}
