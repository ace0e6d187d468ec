/*-------------------------------------------------------------------------
 *
 * relinfo.c
 *	  Describes a relation: its identity, its shape, its leaves, and whether
 *	  it can be migrated at all.
 *
 * All read the relation cache, never a snapshot: they tell what is so now, also
 * to a transaction at REPEATABLE READ.  Each opens the relation under
 * AccessShareLock and lets go of it again; who needs the answer to stay true
 * holds a lock of its own.
 *
 * A shape is a text to compare with a later one.  It says nothing of defaults,
 * constraints or indexes: rows can be carried whatever those are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "compat.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "relinfo.h"
#include "run.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* See relinfo.h. */
Relation
relinfo_open(Oid relid)
{
	Relation rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table with OID %u does not exist", relid)));
	return rel;
}

/* ------------------------------------------------------------------------
 * Identity
 * ------------------------------------------------------------------------
 */

/*
 * Fill identity from an index of rel, or return false if it doesn't name every
 * row.  The relation cache has left out what is partial already, and up to 17 what
 * is invalid or deferrable; 18 has keys that forbid overlaps, which are no B-trees.
 */
static bool
identity_from_index(Relation rel, Oid indexid, Identity *identity)
{
	Relation index = index_open(indexid, AccessShareLock);
	bool usable = index->rd_index->indisvalid && index->rd_index->indimmediate &&
				  index->rd_rel->relam == BTREE_AM_OID;
	int i;

	identity->index = indexid;
	identity->natts = index->rd_index->indnkeyatts;
	for (i = 0; usable && i < identity->natts; i++)
	{
		AttrNumber attnum = index->rd_index->indkey.values[i];
		Form_pg_attribute att;
		Oid optype = index->rd_opcintype[i];

		usable = attnum > 0 && !column_nullable(RelationGetDescr(rel), attnum - 1);
		if (!usable)
			break;
		att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
		identity->attnums[i] = attnum;
		identity->types[i] = att->atttypid;
		identity->collations[i] = index->rd_indcollation[i];
		identity->eq_operators[i] =
			get_opfamily_member(index->rd_opfamily[i], optype, optype, BTEqualStrategyNumber);
		usable = OidIsValid(identity->eq_operators[i]);
	}
	index_close(index, AccessShareLock);
	return usable;
}

Identity *
relinfo_identity(Oid relid, bool missing_ok)
{
	Relation rel = relinfo_open(relid);
	Identity *identity = palloc0(sizeof(Identity));
	Oid candidates[2];
	int i;

	list_free(RelationGetIndexList(rel)); /* sets the two fields */
	candidates[0] = rel->rd_pkindex;
	candidates[1] = rel->rd_replidindex;
	for (i = 0; i < lengthof(candidates); i++)
	{
		if (OidIsValid(candidates[i]) && identity_from_index(rel, candidates[i], identity))
			break;
	}
	if (i == lengthof(candidates))
	{
		identity = NULL;
		if (!missing_ok)
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no key that names a row", RelationGetRelationName(rel)),
				 errdetail("A primary key or a replica identity index is needed that is valid, "
						   "not deferrable, not partial and on columns that are NOT NULL."),
				 errhint("Add a primary key, or name a unique index with ALTER TABLE ... "
						 "REPLICA IDENTITY USING INDEX.")));
	}
	table_close(rel, AccessShareLock);
	return identity;
}

/* ------------------------------------------------------------------------
 * Can it be migrated?
 * ------------------------------------------------------------------------
 */

/* 42809 for what is no table at all, 0A000 for tables that may come later. */
static void
check_kind(Relation rel)
{
	const char *name = RelationGetRelationName(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a table", name),
						errdetail_relkind_not_supported(rel->rd_rel->relkind),
						errhint("Only plain tables can be migrated.")));
	if (IsSystemRelation(rel))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is a system catalog", name),
				 errdetail("System catalogs can't be migrated.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("table \"%s\" is temporary", name),
				 errdetail("No other process can read a temporary table, so no worker can "
						   "copy it.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("table \"%s\" is unlogged", name),
				 errdetail("Migrating unlogged tables isn't supported: a crash would empty "
						   "one side only."),
				 errhint("Use ALTER TABLE ... SET LOGGED first.")));
	if (rel->rd_rel->reloftype != InvalidOid)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("table \"%s\" is a typed table", name),
						errdetail("Migrating typed tables isn't supported."),
						errhint("Use ALTER TABLE ... NOT OF first.")));
}

/* Partitions and inheritance: rows of the table stand in others too. */
static void
check_inheritance(Relation rel)
{
	const char *name = RelationGetRelationName(rel);

	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("table \"%s\" is partitioned already", name),
						errdetail("Partitioning a partitioned table anew isn't supported yet.")));
	if (rel->rd_rel->relispartition)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("table \"%s\" is a partition", name),
				 errdetail("Partitioning a partition further isn't supported."),
				 errhint("Use ALTER TABLE ... DETACH PARTITION first.")));
	if (has_superclass(RelationGetRelid(rel)))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("table \"%s\" inherits from another table", name),
						errdetail("Tables that inherit can't be migrated."),
						errhint("Use ALTER TABLE ... NO INHERIT first.")));

	/* relhassubclass may be left over from a child that is gone */
	if (rel->rd_rel->relhassubclass &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("table \"%s\" has tables that inherit from it", name),
						errdetail("Tables with inheritance children can't be migrated."),
						errhint("Use ALTER TABLE ... NO INHERIT on them first.")));
}

/* See relinfo.h. */
void
relinfo_check_columns(Relation rel)
{
	TupleDesc desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *table = RelationGetRelationName(rel);

		if (att->attisdropped)
			continue;
		if (att->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("column \"%s\" of table \"%s\" is a virtual generated column",
								   NameStr(att->attname), table),
							errdetail("Only stored generated columns can be carried over."),
							errhint("Drop it, or make a stored one, or a view that computes it.")));
		if (att->attnotnull && column_nullable(desc, i))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the NOT NULL constraint of column \"%s\" of table \"%s\" is not "
							"valid",
							NameStr(att->attname), table),
					 errhint("Use ALTER TABLE ... VALIDATE CONSTRAINT first.")));
	}
}

static void
check_not_ours(Relation rel)
{
	if (RelationGetNamespace(rel) == get_namespace_oid("migrate_ext", true))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a table of migrate_ext itself", RelationGetRelationName(rel)),
				 errdetail("The extension's own tables can't be migrated.")));
}

/* A migration's already?  To be filled, the source of one may be until the swap. */
static void
check_not_used(Relation rel, bool fill)
{
	Migration *m = catalog_of_table(RelationGetRelid(rel));

	if (m == NULL || (fill && m->source == RelationGetRelid(rel) && m->state < STATE_SWAPPED))
		return;
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("table \"%s\" is being migrated already", RelationGetRelationName(rel)),
					errdetail("It is the %s of migration \"%s\", which is in state %s.",
							  m->source == RelationGetRelid(rel) ? "source" : "target", m->name,
							  state_name(m->state)),
					errhint("Complete or cancel that migration first.")));
}

/*
 * The kind comes before the owner: that a view can't be migrated is no secret,
 * and the more helpful answer.
 */
static void
check_table(Oid relid, bool fill)
{
	Relation rel = relinfo_open(relid);

	check_kind(rel);
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	check_not_ours(rel);
	check_not_used(rel, fill);
	check_inheritance(rel);
	relinfo_check_columns(rel);
	pfree(relinfo_identity(relid, false));
	table_close(rel, AccessShareLock);
}

void
relinfo_check_source(Oid relid)
{
	check_table(relid, false);
}

void
relinfo_check_fillable(Oid relid)
{
	check_table(relid, true);
}

/* ------------------------------------------------------------------------
 * Shape
 * ------------------------------------------------------------------------
 */

/* In a target's shape, before the OIDs of its leaves. */
#define SHAPE_LEAVES "leaves"

/* After the numbers of a column that can't be NULL. */
#define SHAPE_NOT_NULL " not null"

char *
relinfo_shape(Oid relid)
{
	Relation rel = relinfo_open(relid);
	TupleDesc desc = RelationGetDescr(rel);
	StringInfoData shape;
	int i;

	initStringInfo(&shape);
	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		appendStringInfo(&shape, "%d %s %u %d %u%s%s\n", att->attnum,
						 quote_identifier(NameStr(att->attname)), att->atttypid, att->atttypmod,
						 att->attcollation, att->attnotnull ? SHAPE_NOT_NULL : "",
						 att->attgenerated ? " generated" : "");
	}
	table_close(rel, AccessShareLock);
	return shape.data;
}

char *
relinfo_target_shape(Oid target)
{
	StringInfoData shape;
	List *leaves = relinfo_leaves(target);
	ListCell *lc;

	initStringInfo(&shape);
	appendStringInfo(&shape, "%s" SHAPE_LEAVES, relinfo_shape(target));
	list_sort(leaves, list_oid_cmp);
	foreach (lc, leaves)
		appendStringInfo(&shape, " %u", lfirst_oid(lc));
	return shape.data;
}

/* The line of a shape that speaks of this column, or NULL. */
static const char *
shape_line(const char *shape, long attnum)
{
	while (shape != NULL && *shape != '\0')
	{
		if (strtol(shape, NULL, 10) == attnum)
			return shape;
		shape = strchr(shape, '\n');
		shape = shape != NULL ? shape + 1 : NULL;
	}
	return NULL;
}

/* The name in such a line; a quoted one may contain blanks. */
static char *
shape_column(const char *line)
{
	const char *name = strchr(line, ' ') + 1;
	const char *end = name;
	bool quoted = false;

	while (*end != '\0' && (quoted || *end != ' '))
		quoted ^= *end++ == '"';
	return pnstrdup(name, end - name);
}

/* What quote_identifier() was given. */
static char *
unquote(const char *name)
{
	char *plain = palloc(strlen(name) + 1);
	char *out = plain;

	if (*name != '"')
		return pstrdup(name);
	for (name++; *name != '\0' && !(name[0] == '"' && name[1] != '"'); name++)
	{
		if (*name == '"')
			name++;
		*out++ = *name;
	}
	*out = '\0';
	return plain;
}

static void
append_change(StringInfo changes, const char *kind, const char *name, const char *change)
{
	appendStringInfo(changes, "%s%s %s %s", changes->len > 0 ? ", " : "", kind, name, change);
}

/* Columns of "these" that "others" doesn't have; both: or has in another way. */
static void
compare_columns(StringInfo changes, const char *these, const char *others, const char *change,
				bool both)
{
	const char *line = these;

	while (line != NULL && *line >= '0' && *line <= '9')
	{
		const char *other = shape_line(others, strtol(line, NULL, 10));
		size_t len = strcspn(line, "\n") + 1;

		if (other == NULL)
			append_change(changes, "column", shape_column(line), change);
		else if (both && strncmp(line, other, len) != 0)
			append_change(changes, "column", shape_column(line), "was changed");
		line = strchr(line, '\n');
		line = line != NULL ? line + 1 : NULL;
	}
}

static List *
shape_leaves(const char *shape)
{
	const char *place = strstr(shape, SHAPE_LEAVES);
	List *leaves = NIL;
	char *end;
	Oid leaf;

	if (place == NULL)
		return NIL;
	place += strlen(SHAPE_LEAVES);
	while ((leaf = (Oid) strtoul(place, &end, 10)) != InvalidOid)
	{
		leaves = lappend_oid(leaves, leaf);
		place = end;
	}
	return leaves;
}

static void
compare_leaves(StringInfo changes, List *these, List *others, const char *change)
{
	ListCell *lc;

	foreach (lc, list_difference_oid(these, others))
	{
		char *name = get_rel_name(lfirst_oid(lc));

		if (name != NULL)
			append_change(changes, "partition", quote_identifier(name), change);
		else
			append_change(changes, "partition", psprintf("with OID %u", lfirst_oid(lc)),
						  "was dropped");
	}
}

bool
relinfo_same_columns(const char *target_shape, const char *other)
{
	const char *leaves = strstr(target_shape, SHAPE_LEAVES);
	size_t len = leaves != NULL ? leaves - target_shape + strlen(SHAPE_LEAVES) : 0;

	return leaves != NULL && strncmp(target_shape, other, len) == 0;
}

bool
relinfo_same_leaves(const char *target_shape, const char *other)
{
	const char *leaves = strstr(target_shape, SHAPE_LEAVES);
	const char *other_leaves = strstr(other, SHAPE_LEAVES);

	return leaves != NULL && other_leaves != NULL && strcmp(leaves, other_leaves) == 0;
}

/* "3 name 20 -1 0 not null": one line of a shape. */
static ShapeColumn *
read_shape_line(const char *line)
{
	ShapeColumn *column = palloc0(sizeof(ShapeColumn));
	char *quoted = shape_column(line);
	char *rest;

	column->attnum = (AttrNumber) strtol(line, NULL, 10);
	column->name = unquote(quoted);
	column->type = (Oid) strtoul(strchr(line, ' ') + 1 + strlen(quoted), &rest, 10);
	column->typmod = (int32) strtol(rest, &rest, 10);
	column->collation = (Oid) strtoul(rest, &rest, 10);
	column->not_null = strncmp(rest, SHAPE_NOT_NULL, strlen(SHAPE_NOT_NULL)) == 0;
	return column;
}

List *
relinfo_shape_columns(const char *shape)
{
	const char *line = shape;
	List *columns = NIL;

	while (line != NULL && *line >= '0' && *line <= '9')
	{
		columns = lappend(columns, read_shape_line(line));
		line = strchr(line, '\n');
		line = line != NULL ? line + 1 : NULL;
	}
	return columns;
}

char *
relinfo_shape_difference(const char *was, const char *is)
{
	StringInfoData changes;

	initStringInfo(&changes);
	compare_columns(&changes, was, is, "is gone", true);
	compare_columns(&changes, is, was, "is new", false);
	compare_leaves(&changes, shape_leaves(was), shape_leaves(is), "is gone");
	compare_leaves(&changes, shape_leaves(is), shape_leaves(was), "is new");
	return changes.data;
}

/* ------------------------------------------------------------------------
 * Storage
 * ------------------------------------------------------------------------
 */

/*
 * The partitions of a partitioned table.  Building the descriptor evaluates
 * what is constant in the expressions of the partition key, functions of the
 * owner's included: as the owner, then.
 */
static PartitionDesc
partitions(Relation rel)
{
	Oid owner = rel->rd_rel->relowner;
	bool is_owner = GetUserId() == owner && InSecurityRestrictedOperation();
	PartitionDesc desc;
	UserSwitch save;

	if (!is_owner)
		user_switch_owner(&save, owner);
	desc = RelationGetPartitionDesc(rel, false);
	if (!is_owner)
		user_switch_back(&save);
	return desc;
}

/*
 * A partition whose detaching is under way is still a leaf: it holds rows
 * until the last query that sees them there is gone.
 */
static List *
collect_leaves(Oid relid, List *leaves)
{
	Relation rel;
	PartitionDesc desc;
	int i;

	/* a leaf need not be opened, so nobody's lock on it holds us up */
	if (get_rel_relkind(relid) == RELKIND_RELATION)
		return lappend_oid(leaves, relid);

	rel = relinfo_open(relid);
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		desc = partitions(rel);
		for (i = 0; i < desc->nparts; i++)
			leaves = collect_leaves(desc->oids[i], leaves);
	}
	relation_close(rel, AccessShareLock);
	return leaves;
}

/* A plain table is its own only leaf. */
List *
relinfo_leaves(Oid target)
{
	return collect_leaves(target, NIL);
}

BlockNumber
relinfo_blocks(Oid relid)
{
	Relation rel = relinfo_open(relid);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);

	table_close(rel, AccessShareLock);
	return blocks;
}

Oid
relinfo_relfilenode(Oid relid)
{
	Relation rel = relinfo_open(relid);
	Oid node = rel->rd_rel->relfilenode;

	table_close(rel, AccessShareLock);
	return node;
}

Oid
relinfo_owner(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

bool
relinfo_trigger(Oid relid, const char *name, TriggerRow *row)
{
	Relation catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	bool found;

	ScanKeyInit(&keys[0], Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_trigger_tgname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(name));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		row->oid = form->oid;
		row->function = form->tgfoid;
		row->enabled = form->tgenabled;
		row->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

char
relinfo_trigger_state(Oid relid, const char *name)
{
	TriggerRow row;

	return relinfo_trigger(relid, name, &row) ? row.enabled : '\0';
}

int64
relinfo_rows(Oid relid, int64 limit)
{
	Relation rel = relinfo_open(relid);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot;
	TableScanDesc scan;
	int64 rows = 0;

	if (RELKIND_HAS_TABLE_AM(rel->rd_rel->relkind))
	{
		slot = table_slot_create(rel, NULL);
		scan = table_beginscan(rel, snapshot, 0, NULL);
		while (rows < limit && table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			CHECK_FOR_INTERRUPTS();
			rows++;
		}
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return rows;
}

List *
relinfo_catalog_rows(Relation catalog, Oid index, AttrNumber column, Oid relid)
{
	List *rows = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, index, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		rows = lappend(rows, heap_copytuple(tuple));
	systable_endscan(scan);
	return rows;
}
