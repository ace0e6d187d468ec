/*-------------------------------------------------------------------------
 *
 * swap_catalog.c
 *	  What a swap changes in PostgreSQL's catalogs; see swap_catalog.h.
 *
 *		accounts            -> accounts_orig			the table
 *		accounts_new        -> accounts
 *		accounts_pkey       -> accounts_pkey_orig		each index, and with it
 *		accounts_pkey_new   -> accounts_pkey			its constraint
 *		accounts_id_seq		owned by accounts_orig.id -> by accounts.id
 *
 * All this happens under the swap's lock, so it is done by the functions behind
 * ALTER TABLE instead of by commands: nothing is parsed, no event trigger runs.
 * Partitions and their indexes got their final names when they were made.
 *
 * A change is remembered by the object's OID and both of its names, and undone
 * only where the object still has the name that we gave it: what somebody
 * renamed in the meantime is his.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog_spi.h"
#include "compat.h"
#include "index_def.h"
#include "run.h"
#include "sqlgen.h"
#include "swap_catalog.h"

/* ------------------------------------------------------------------------
 * Names
 * ------------------------------------------------------------------------
 */

static bool
is_index(Oid relid)
{
	char relkind = get_rel_relkind(relid);

	return relkind == RELKIND_INDEX || relkind == RELKIND_PARTITIONED_INDEX;
}

/*
 * Rename a relation; an index's constraint and a table's row type go with it.
 * The next one may want the name that this one had, hence the counter.
 */
static CatalogChange *
rename_relation(Oid relid, const char *name)
{
	CatalogChange *change = palloc0(sizeof(CatalogChange));

	change->oid = relid;
	change->before = get_rel_name(relid);
	change->after = pstrdup(name);
	RenameRelationInternal(relid, name, true, is_index(relid));
	CommandCounterIncrement();
	return change;
}

/* As the owner: reading the target's partition key may run his functions. */
static List *
find_index_pairs(Migration *m)
{
	UserSwitch user;
	List *pairs;

	user_switch_owner(&user, m->owner);
	pairs = index_def_pairs(m);
	user_switch_back(&user);
	return pairs;
}

/*
 * Indexes that have no counterpart keep their names: on the original because
 * nothing wants them, on an adopted target because they are its owner's.
 */
static List *
exchange_index_names(Migration *m, List *changes)
{
	List *pairs = find_index_pairs(m);
	Oid schema = get_rel_namespace(m->source);
	ListCell *lc;

	foreach (lc, pairs)
	{
		IndexPair *pair = lfirst(lc);

		if (!OidIsValid(pair->target))
			continue;
		changes =
			lappend(changes, rename_relation(pair->source,
											 swap_catalog_original_name(pair->def->name, schema)));
		changes = lappend(changes, rename_relation(pair->target, pair->def->name));
	}
	return changes;
}

/* ------------------------------------------------------------------------
 * Sequences
 * ------------------------------------------------------------------------
 */

/*
 * Scan pg_depend for sequences owned by columns of relid: automatic dependency
 * for a serial column, internal for an identity column.
 */
static SysScanDesc
scan_dependents(Relation depend, Oid relid)
{
	ScanKeyData key[2];

	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	return systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, key);
}

static bool
is_owned_sequence(Form_pg_depend dep)
{
	return dep->classid == RelationRelationId && dep->objsubid == 0 && dep->refobjsubid > 0 &&
		   (dep->deptype == DEPENDENCY_AUTO || dep->deptype == DEPENDENCY_INTERNAL) &&
		   get_rel_relkind(dep->objid) == RELKIND_SEQUENCE;
}

/* Has the column a sequence of its own, or a default that would be masked by one? */
static bool
column_is_numbered(Oid relid, AttrNumber attnum, bool identity)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	SysScanDesc scan = scan_dependents(depend, relid);
	bool found = false;
	HeapTuple tuple;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);

		found = dep->refobjsubid == attnum && is_owned_sequence(dep);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);

	if (!found && identity)
	{
		HeapTuple att = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));

		found = HeapTupleIsValid(att) && ((Form_pg_attribute) GETSTRUCT(att))->atthasdef;
		if (HeapTupleIsValid(att))
			ReleaseSysCache(att);
	}
	return found;
}

/*
 * What there is to move: the source's sequences whose column the target has,
 * too.  A column that a target of the user's own numbers itself is left alone.
 */
List *
swap_catalog_sequences(const Migration *m)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	SysScanDesc scan = scan_dependents(depend, m->source);
	List *moves = NIL;
	HeapTuple tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);
		bool identity = dep->deptype == DEPENDENCY_INTERNAL;
		CatalogChange *move;
		AttrNumber target_attnum;

		if (!is_owned_sequence(dep))
			continue;
		target_attnum = get_attnum(m->target, get_attname(m->source, dep->refobjsubid, false));
		if (target_attnum <= 0 || column_is_numbered(m->target, target_attnum, identity))
			continue;
		move = palloc0(sizeof(CatalogChange));
		move->oid = dep->objid;
		move->source_attnum = dep->refobjsubid;
		move->target_attnum = target_attnum;
		move->identity = identity ? ATTRIBUTE_IDENTITY_BY_DEFAULT : '\0';
		moves = lappend(moves, move);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return moves;
}

/* Set attidentity of a column; returns what it was. */
static char
set_identity(Oid relid, AttrNumber attnum, char identity)
{
	Relation attributes = table_open(AttributeRelationId, RowExclusiveLock);
	HeapTuple tuple = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));
	Form_pg_attribute att;
	char before;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column number %d of table \"%s\" does not exist", attnum,
							   get_rel_name(relid))));
	att = (Form_pg_attribute) GETSTRUCT(tuple);
	before = att->attidentity;
	att->attidentity = identity;
	CatalogTupleUpdate(attributes, &tuple->t_self, tuple);
	heap_freetuple(tuple);
	table_close(attributes, RowExclusiveLock);
	return before;
}

/*
 * Partitions share their table's identity columns since 17, where ALTER TABLE ...
 * DROP IDENTITY fails if one doesn't.  Without a lock on them: who writes a row
 * straight into one has its number now, or asks for it.
 */
static void
set_identity_of_partitions(Oid relid, AttrNumber attnum, char identity)
{
	char *column = get_attname(relid, attnum, false);
	ListCell *cell;

	if (!PARTITIONS_HAVE_IDENTITY)
		return;
	foreach (cell, list_delete_first(find_all_inheritors(relid, NoLock, NULL)))
		(void) set_identity(lfirst_oid(cell), get_attnum(lfirst_oid(cell), column), identity);
}

/*
 * Let the sequence depend on another column.  The dependency can't be deleted
 * and recorded anew, since a deleted one is not told from others of its kind.
 */
static bool
move_dependency(Oid sequence, Oid from, AttrNumber from_attnum, Oid to, AttrNumber to_attnum)
{
	Relation depend = table_open(DependRelationId, RowExclusiveLock);
	SysScanDesc scan = scan_dependents(depend, from);
	bool moved = false;
	HeapTuple tuple;

	while (!moved && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);

		if (dep->objid != sequence || dep->refobjsubid != from_attnum || !is_owned_sequence(dep))
			continue;
		tuple = heap_copytuple(tuple);
		dep = (Form_pg_depend) GETSTRUCT(tuple);
		dep->refobjid = to;
		dep->refobjsubid = to_attnum;
		CatalogTupleUpdate(depend, &tuple->t_self, tuple);
		heap_freetuple(tuple);
		moved = true;
	}
	systable_endscan(scan);
	table_close(depend, RowExclusiveLock);
	return moved;
}

/*
 * Move one sequence.  The lock keeps an ALTER SEQUENCE ... OWNED BY out; nextval()
 * takes a weaker one and isn't held up.
 */
static void
move_sequence(CatalogChange *move, Oid from, AttrNumber from_attnum, Oid to, AttrNumber to_attnum)
{
	LockRelationOid(move->oid, ShareUpdateExclusiveLock);
	if (!move_dependency(move->oid, from, from_attnum, to, to_attnum))
		return;
	if (move->identity)
	{
		move->identity = set_identity(from, from_attnum, '\0');
		(void) set_identity(to, to_attnum, move->identity);
		set_identity_of_partitions(from, from_attnum, '\0');
		set_identity_of_partitions(to, to_attnum, move->identity);
	}
	CommandCounterIncrement();
}

/* ------------------------------------------------------------------------
 * Forth and back
 * ------------------------------------------------------------------------
 */

char *
swap_catalog_original_name(const char *name, Oid schema)
{
	return name_free(name, ORIGINAL_SUFFIX, schema);
}

List *
swap_catalog_forth(Migration *m)
{
	char *name = get_rel_name(m->source);
	Oid schema = get_rel_namespace(m->source);
	List *changes = NIL;
	List *moves;
	ListCell *lc;

	changes =
		lappend(changes, rename_relation(m->source, swap_catalog_original_name(name, schema)));
	changes = lappend(changes, rename_relation(m->target, name));
	changes = exchange_index_names(m, changes);

	moves = swap_catalog_sequences(m);
	foreach (lc, moves)
	{
		CatalogChange *move = lfirst(lc);

		move_sequence(move, m->source, move->source_attnum, m->target, move->target_attnum);
	}
	return list_concat(changes, moves);
}

/*
 * The tables themselves change names whatever those are by now: it is their
 * roles that are exchanged.  The target gets its old name back, or a free one
 * like it; the original the one that the target had until now.
 */
static void
restore_table_names(Migration *m, const CatalogChange *target)
{
	char *name = get_rel_name(m->target);
	Oid schema = get_rel_namespace(m->target);

	if (target != NULL && !OidIsValid(get_relname_relid(target->before, schema)))
		(void) rename_relation(m->target, target->before);
	else
		(void) rename_relation(m->target, name_free(name, TARGET_SUFFIX, schema));
	(void) rename_relation(m->source, name);
}

static void
restore_name(const CatalogChange *change)
{
	char *name = get_rel_name(change->oid);

	if (name == NULL || strcmp(name, change->after) != 0 ||
		OidIsValid(get_relname_relid(change->before, get_rel_namespace(change->oid))))
		return;
	(void) rename_relation(change->oid, change->before);
}

void
swap_catalog_back(Migration *m, List *changes)
{
	CatalogChange *target = NULL;
	int i;

	for (i = list_length(changes) - 1; i >= 0; i--)
	{
		CatalogChange *change = list_nth(changes, i);

		if (change->before == NULL)
			move_sequence(change, m->target, change->target_attnum, m->source,
						  change->source_attnum);
		else if (change->oid == m->target)
			target = change;
		else if (change->oid != m->source)
			restore_name(change);
	}
	restore_table_names(m, target);
}

/* ------------------------------------------------------------------------
 * As text
 * ------------------------------------------------------------------------
 */

/* [{"oid": .., "before": .., "after": ..}, {"oid": .., "source_attnum": .., ..}] */
char *
swap_changes_text(List *changes)
{
	StringInfoData buf;
	ListCell *lc;

	initStringInfo(&buf);
	foreach (lc, changes)
	{
		CatalogChange *change = lfirst(lc);

		appendStringInfo(&buf, "%s{\"oid\": %u, ", buf.len == 0 ? "[" : ", ", change->oid);
		if (change->before)
			appendStringInfo(&buf, "\"before\": %s, \"after\": %s}", json_quote(change->before),
							 json_quote(change->after));
		else
			appendStringInfo(&buf,
							 "\"sequence\": %s, \"source_attnum\": %d, \"target_attnum\": %d, "
							 "\"identity\": \"%.1s\"}",
							 json_quote(get_rel_name(change->oid)), change->source_attnum,
							 change->target_attnum, &change->identity);
	}
	appendStringInfoChar(&buf, ']');
	return buf.data;
}

List *
swap_changes_read(const char *json)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(json)};
	CatalogCall call = {0};
	List *changes = NIL;
	uint64 n;
	uint64 i;

	n = catalog_begin(&call,
					  "SELECT oid, before, after, COALESCE(source_attnum, 0::int2),"
					  " COALESCE(target_attnum, 0::int2), COALESCE(identity, '')"
					  " FROM pg_catalog.jsonb_to_recordset($1::pg_catalog.jsonb) AS c"
					  " (oid oid, before text, after text, source_attnum int2,"
					  " target_attnum int2, identity text)",
					  1, types, values, NULL);
	for (i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);
		CatalogChange *change = palloc0(sizeof(CatalogChange));
		bool no_before;
		bool isnull;
		Datum before = catalog_value(&call, i, 2, &no_before);

		change->oid = DatumGetObjectId(catalog_value(&call, i, 1, &isnull));
		change->before = no_before ? NULL : TextDatumGetCString(before);
		if (!no_before)
			change->after = TextDatumGetCString(catalog_value(&call, i, 3, &isnull));
		change->source_attnum = DatumGetInt16(catalog_value(&call, i, 4, &isnull));
		change->target_attnum = DatumGetInt16(catalog_value(&call, i, 5, &isnull));
		change->identity = *TextDatumGetCString(catalog_value(&call, i, 6, &isnull));
		changes = lappend(changes, change);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return changes;
}
