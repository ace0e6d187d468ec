/*-------------------------------------------------------------------------
 *
 * carry_grants.c
 *	  Privileges on the table and its columns.
 *
 * They are not given before the swap: whoever may read the application's table
 * through row-level security, say, must not find the other one open.  In the
 * swap's transaction the back table's access control lists become those of the
 * front table, as they are: grantors, grant options and the owner's own entries
 * with them, and what was revoked is revoked.  The front keeps its own, for the
 * way back.
 *
 * GRANT takes no lock on a table, so the swap's locks don't keep it out.  One
 * that hasn't committed shows in the rows of pg_class and pg_attribute that it
 * has updated: the attempt fails then, as at any lock that isn't to be had.  One
 * that comes later must not reach the table that is swapped out and be lost in
 * silence: its rows are updated here, so that it waits for the swap and fails
 * with "tuple concurrently updated".
 *
 * Partitions get nothing: who reads the partitioned table needs no privilege on
 * them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "carry_kinds.h"
#include "carry_statements.h"
#include "relinfo.h"

/* ------------------------------------------------------------------------
 * Against GRANTs under way
 * ------------------------------------------------------------------------
 */

/*
 * Lock a row of a catalog, and update it without a change.  55P03 if a
 * transaction that hasn't ended, or has ended just now, has updated it.
 */
static void
hold_row(Relation catalog, HeapTuple tuple, Oid relid)
{
	HeapTupleData row = {.t_self = tuple->t_self};
	TM_FailureData failure;
	Buffer buffer;
	TM_Result result;

	result = heap_lock_tuple(catalog, &row, GetCurrentCommandId(true), LockTupleNoKeyExclusive,
							 LockWaitError, false, &buffer, &failure);
	ReleaseBuffer(buffer);
	if (result != TM_Ok && result != TM_SelfModified)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the privileges of table \"%s\" are being changed", get_rel_name(relid))));
	if (result == TM_Ok)
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
}

static void
hold_rows(Oid relid)
{
	Relation classes = table_open(RelationRelationId, RowExclusiveLock);
	Relation attributes = table_open(AttributeRelationId, RowExclusiveLock);
	HeapTuple tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));
	int natts;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table with OID %u does not exist", relid)));
	natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
	hold_row(classes, tuple, relid);
	heap_freetuple(tuple);
	for (int attnum = 1; attnum <= natts; attnum++)
	{
		tuple = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));
		if (!HeapTupleIsValid(tuple))
			continue;
		if (!((Form_pg_attribute) GETSTRUCT(tuple))->attisdropped)
			hold_row(attributes, tuple, relid);
		heap_freetuple(tuple);
	}
	table_close(attributes, NoLock);
	table_close(classes, NoLock);
	CommandCounterIncrement();
}

/* ------------------------------------------------------------------------
 * Access control lists
 * ------------------------------------------------------------------------
 */

/* The list in a row of pg_class or pg_attribute; NULL: nothing but what is built in. */
static Acl *
read_acl(int cache, HeapTuple tuple, AttrNumber column)
{
	bool isnull;
	Datum datum = SysCacheGetAttr(cache, tuple, column, &isnull);

	return isnull ? NULL : DatumGetAclPCopy(datum);
}

/* List and dependencies of an object become "wanted". */
static void
write_acl(Relation catalog, HeapTuple tuple, AttrNumber column, ObjectAddress object, Oid owner,
		  Acl *is, Acl *wanted)
{
	Datum values[Max(Natts_pg_class, Natts_pg_attribute)] = {0};
	bool nulls[Max(Natts_pg_class, Natts_pg_attribute)] = {false};
	bool replaces[Max(Natts_pg_class, Natts_pg_attribute)] = {false};
	Oid *old_members = NULL;
	Oid *new_members = NULL;
	int old_count = is ? aclmembers(is, &old_members) : 0;
	int new_count = wanted ? aclmembers(wanted, &new_members) : 0;

	values[column - 1] = PointerGetDatum(wanted);
	nulls[column - 1] = wanted == NULL;
	replaces[column - 1] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(catalog), values, nulls, replaces);
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	updateAclDependencies(object.classId, object.objectId, object.objectSubId, owner, old_count,
						  old_members, new_count, new_members);
}

static bool
same_acl(const Acl *a, const Acl *b)
{
	return a == NULL || b == NULL ? a == b : aclequal(a, b);
}

/* A list that is to become another one. */
typedef struct AclChange
{
	AttrNumber column; /* of the back table, or 0 */
	Acl *is;
	Acl *wanted;
} AclChange;

/* The list of changes with one more, if it is one. */
static List *
add_change(List *changes, AttrNumber column, Acl *is, Acl *wanted)
{
	AclChange *change;

	if (same_acl(is, wanted))
		return changes;
	change = palloc(sizeof(AclChange));
	change->column = column;
	change->is = is;
	change->wanted = wanted;
	return lappend(changes, change);
}

static List *
add_table(List *changes, Oid front, Oid back, bool exact)
{
	HeapTuple from = SearchSysCache1(RELOID, ObjectIdGetDatum(front));
	HeapTuple to = SearchSysCache1(RELOID, ObjectIdGetDatum(back));
	Oid owner = ((Form_pg_class) GETSTRUCT(to))->relowner;
	Acl *is = read_acl(RELOID, to, Anum_pg_class_relacl);
	Acl *wanted = read_acl(RELOID, from, Anum_pg_class_relacl);

	if (!exact && (is != NULL || wanted != NULL))
		wanted = aclmerge(is ? is : acldefault(OBJECT_TABLE, owner),
						  wanted ? wanted : acldefault(OBJECT_TABLE, owner), owner);
	ReleaseSysCache(from);
	ReleaseSysCache(to);
	return add_change(changes, 0, is, wanted);
}

static List *
add_column(List *changes, HeapTuple from, Oid back, bool exact)
{
	Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(from);
	Acl *wanted = read_acl(ATTNUM, from, Anum_pg_attribute_attacl);
	HeapTuple to = SearchSysCacheAttName(back, NameStr(att->attname));
	AttrNumber column;
	Acl *is;

	if (!HeapTupleIsValid(to))
		return changes;
	column = ((Form_pg_attribute) GETSTRUCT(to))->attnum;
	is = read_acl(ATTNUM, to, Anum_pg_attribute_attacl);
	ReleaseSysCache(to);
	if (!exact && is != NULL && wanted != NULL)
		wanted = aclmerge(is, wanted, relinfo_owner(back));
	else if (!exact && wanted == NULL)
		wanted = is;
	return add_change(changes, column, is, wanted);
}

/*
 * What differs; List of AclChange *.  Columns by name; one that only the back
 * table has keeps what it has.
 */
static List *
find_changes(Oid front, Oid back, bool exact)
{
	List *changes = add_table(NIL, front, back, exact);
	HeapTuple class = SearchSysCache1(RELOID, ObjectIdGetDatum(front));
	int natts = ((Form_pg_class) GETSTRUCT(class))->relnatts;

	ReleaseSysCache(class);
	for (int attnum = 1; attnum <= natts; attnum++)
	{
		HeapTuple from = SearchSysCache2(ATTNUM, ObjectIdGetDatum(front), Int16GetDatum(attnum));

		if (!HeapTupleIsValid(from))
			continue;
		if (!((Form_pg_attribute) GETSTRUCT(from))->attisdropped)
			changes = add_column(changes, from, back, exact);
		ReleaseSysCache(from);
	}
	return changes;
}

static void
make_change(Relation classes, Relation attributes, Oid back, const AclChange *change)
{
	ObjectAddress object = {RelationRelationId, back, change->column};
	HeapTuple tuple = change->column == 0 ? SearchSysCache1(RELOID, ObjectIdGetDatum(back))
										  : SearchSysCache2(ATTNUM, ObjectIdGetDatum(back),
															Int16GetDatum(change->column));

	write_acl(change->column == 0 ? classes : attributes, tuple,
			  change->column == 0 ? Anum_pg_class_relacl : Anum_pg_attribute_attacl, object,
			  relinfo_owner(back), change->is, change->wanted);
	ReleaseSysCache(tuple);
}

/* ------------------------------------------------------------------------
 * The carrier
 * ------------------------------------------------------------------------
 */

static void *
collect(Migration *m, Direction direction)
{
	bool *exact = palloc(sizeof(bool));

	*exact = carry_is_exact(m, direction);
	hold_rows(front_of(m, direction));
	return exact;
}

static void
move(Migration *m, Direction direction, void *collected)
{
	Oid back = back_of(m, direction);
	Relation classes = table_open(RelationRelationId, RowExclusiveLock);
	Relation attributes = table_open(AttributeRelationId, RowExclusiveLock);
	ListCell *lc;

	foreach (lc, find_changes(front_of(m, direction), back, *(bool *) collected))
	{
		AclChange *change = lfirst(lc);

		make_change(classes, attributes, back, change);
		carry_tell(m, change->column == 0
						  ? "the privileges"
						  : psprintf("the privileges on column %s",
									 quote_identifier(get_attname(back, change->column, false))));
	}
	table_close(attributes, NoLock);
	table_close(classes, NoLock);
	CommandCounterIncrement();
}

/* "-- the privileges on column a of public.t become {shop=r/shop}" */
static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	Migration *m = plan->m;
	Oid back = m->target;
	ListCell *lc;

	if (part != CARRY_MOVE)
		return;
	foreach (lc, find_changes(m->source, back, carry_is_exact(m, DIRECTION_FORWARD)))
	{
		AclChange *change = lfirst(lc);
		char *object = plan_relation(plan, back);
		char *list = "those that its owner has by default";

		if (change->column != 0)
			object = psprintf("column %s of %s",
							  quote_identifier(get_attname(back, change->column, false)), object);
		if (change->wanted != NULL)
			list = OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(change->wanted));
		plan_add(plan, psprintf("-- the privileges on %s become %s", object, list),
				 plan_swap_lock(plan), PLAN_EQUIVALENT);
	}
}

const Carrier carry_grants = {
	.name = "grants", .collect = collect, .move = move, .plan = plan_part};
