/*-------------------------------------------------------------------------
 *
 * carry_publications.c
 *	  Publications FOR TABLE, with column lists and row filters.
 *
 * The publication's entry is made to name the other table.  Who decodes reads
 * the catalogs as they were at each change: what was written before the swap is
 * published from the one table, what comes after it from the other, under the
 * same name, and nothing twice, since nobody publishes what sync writes to the
 * table that is not in use.  A partitioned table is published under its name
 * only with publish_via_partition_root; preflight asks for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_publication_rel.h"
#include "commands/publicationcmds.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "carry_publications.h"
#include "catalog.h"
#include "compat.h"
#include "relinfo.h"
#include "sqlgen.h"

/* ------------------------------------------------------------------------
 * An entry
 * ------------------------------------------------------------------------
 */

static int
compare_int16(const void *a, const void *b)
{
	return (int) *(const int16 *) a - (int) *(const int16 *) b;
}

/* The column list by the other table's numbers, in their order; problem: a column is missing. */
static int2vector *
change_list(Retarget *r, Datum list)
{
	int2vector *old = (int2vector *) DatumGetPointer(list);
	int2vector *changed = buildint2vector(old->values, old->dim1);

	for (int i = 0; i < changed->dim1; i++)
	{
		changed->values[i] = retarget_column(r, changed->values[i]);
		if (changed->values[i] == 0 && r->problem == NULL)
			r->problem =
				"has a column in its list that the other table does not have, or of another "
				"type";
	}
	qsort(changed->values, changed->dim1, sizeof(int16), compare_int16);
	return changed;
}

/* The entry as it is to be, or NULL: r->problem tells why. */
static HeapTuple
change(Retarget *r, Relation entries, HeapTuple tuple)
{
	Datum values[Natts_pg_publication_rel] = {0};
	bool nulls[Natts_pg_publication_rel] = {false};
	bool replaces[Natts_pg_publication_rel] = {false};
	bool no_filter;
	bool no_list;
	Datum filter =
		heap_getattr(tuple, Anum_pg_publication_rel_prqual, RelationGetDescr(entries), &no_filter);
	Datum list =
		heap_getattr(tuple, Anum_pg_publication_rel_prattrs, RelationGetDescr(entries), &no_list);

	r->problem = NULL;
	values[Anum_pg_publication_rel_prrelid - 1] = ObjectIdGetDatum(r->to);
	replaces[Anum_pg_publication_rel_prrelid - 1] = true;
	if (!no_filter)
	{
		char *changed = retarget_tree(r, TextDatumGetCString(filter), 1, &r->from);

		if (changed == NULL)
			return NULL;
		values[Anum_pg_publication_rel_prqual - 1] = CStringGetTextDatum(changed);
		replaces[Anum_pg_publication_rel_prqual - 1] = true;
	}
	if (!no_list)
	{
		values[Anum_pg_publication_rel_prattrs - 1] = PointerGetDatum(change_list(r, list));
		replaces[Anum_pg_publication_rel_prattrs - 1] = true;
	}
	return r->problem
			   ? NULL
			   : heap_modify_tuple(tuple, RelationGetDescr(entries), values, nulls, replaces);
}

/* ------------------------------------------------------------------------
 * For preflight
 * ------------------------------------------------------------------------
 */

static char
replica_identity(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	char result = REPLICA_IDENTITY_NOTHING;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_class) GETSTRUCT(tuple))->relreplident;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The columns by which UPDATE and DELETE are published, as the catalog has them now. */
static Bitmapset *
identity_columns(Oid relid, char identity)
{
	Relation indexes = table_open(IndexRelationId, AccessShareLock);
	Bitmapset *result = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(indexes, IndexIndrelidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		if (identity == REPLICA_IDENTITY_INDEX ? !index->indisreplident : !index->indisprimary)
			continue;
		for (int i = 0; i < index->indnkeyatts; i++)
			result = bms_add_member(result, index->indkey.values[i]);
	}
	systable_endscan(scan);
	table_close(indexes, AccessShareLock);
	return result;
}

static bool
publishes_changes(Oid publication)
{
	Publication *p = GetPublication(publication);

	return p->pubactions.pubupdate || p->pubactions.pubdelete;
}

/*
 * What an UPDATE of a published table checks, before it fails: the column list
 * has all columns of the identity, the row filter no others.
 */
static char *
problem_of_identity(Relation entries, HeapTuple changed, Oid relid)
{
	char identity = replica_identity(relid);
	Bitmapset *columns = identity_columns(relid, identity);
	Bitmapset *used = NULL;
	bool isnull;
	Datum value;

	if (identity == REPLICA_IDENTITY_NOTHING ||
		(identity != REPLICA_IDENTITY_FULL && columns == NULL))
		return "publishes UPDATE or DELETE, for which the other table has no replica identity";
	value =
		heap_getattr(changed, Anum_pg_publication_rel_prattrs, RelationGetDescr(entries), &isnull);
	if (!isnull)
	{
		int2vector *list = (int2vector *) DatumGetPointer(value);

		for (int i = 0; i < list->dim1; i++)
			used = bms_add_member(used, list->values[i]);
		if (identity == REPLICA_IDENTITY_FULL || !bms_is_subset(columns, used))
			return "has a column list that lacks a column of the other table's key: UPDATE and "
				   "DELETE would fail";
	}
	value =
		heap_getattr(changed, Anum_pg_publication_rel_prqual, RelationGetDescr(entries), &isnull);
	if (isnull || identity == REPLICA_IDENTITY_FULL)
		return NULL;
	used = NULL;
	pull_varattnos(stringToNode(TextDatumGetCString(value)), 1, &used);
	for (int i = -1; (i = bms_next_member(used, i)) >= 0;)
	{
		if (!bms_is_member(i + FirstLowInvalidHeapAttributeNumber, columns))
			return "filters rows by a column that is not in the other table's key: UPDATE and "
				   "DELETE would fail";
	}
	return NULL;
}

char *
publication_problem(Retarget *r, Oid oid)
{
	Relation entries = table_open(PublicationRelRelationId, AccessShareLock);
	HeapTuple tuple = SearchSysCache1(PUBLICATIONREL, ObjectIdGetDatum(oid));
	char *problem = NULL;

	if (HeapTupleIsValid(tuple))
	{
		HeapTuple changed = change(r, entries, tuple);

		if (changed == NULL)
			problem = r->problem;
		else if (publishes_changes(((Form_pg_publication_rel) GETSTRUCT(tuple))->prpubid))
			problem = problem_of_identity(entries, changed, r->to);
		ReleaseSysCache(tuple);
	}
	table_close(entries, AccessShareLock);
	return problem;
}

/* ------------------------------------------------------------------------
 * The swap
 * ------------------------------------------------------------------------
 */

static void
move_entry(Migration *m, Retarget *r, Relation entries, HeapTuple tuple)
{
	Form_pg_publication_rel entry = (Form_pg_publication_rel) GETSTRUCT(tuple);
	HeapTuple changed = change(r, entries, tuple);
	char *name = get_publication_name(entry->prpubid, false);

	if (changed == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("publication \"%s\" can't be carried over: it %s", name, r->problem)));
	CatalogTupleUpdate(entries, &tuple->t_self, changed);
	retarget_dependencies(r, PublicationRelRelationId, entry->oid);
	event_add(m, "published", NULL, "publication %s publishes %s from now on",
			  quote_identifier(name), sql_relation(r->to));
}

/* Everybody reads anew what is published of a table and its partitions. */
static void
invalidate(Oid relid)
{
	InvalidatePublicationRels(GetPubPartitionOptionRelations(NIL, PUBLICATION_PART_ALL, relid));
}

/* Copies of the entries of a table; List of HeapTuple. */
static List *
find_entries(Relation entries, Oid relid)
{
	return relinfo_catalog_rows(entries, PublicationRelPrrelidPrpubidIndexId,
								Anum_pg_publication_rel_prrelid, relid);
}

static void
move_publications(Migration *m, Direction direction, void *collected)
{
	Relation entries = table_open(PublicationRelRelationId, RowExclusiveLock);
	List *found = find_entries(entries, front_of(m, direction));
	ListCell *lc;

	if (found != NIL)
	{
		Retarget *r = retarget_create(front_of(m, direction), back_of(m, direction));

		foreach (lc, found)
			move_entry(m, r, entries, lfirst(lc));
		invalidate(r->from);
		invalidate(r->to);
	}
	table_close(entries, RowExclusiveLock);
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	Relation entries;
	ListCell *lc;

	if (part != CARRY_MOVE)
		return;
	entries = table_open(PublicationRelRelationId, AccessShareLock);
	foreach (lc, find_entries(entries, plan->m->source))
	{
		Form_pg_publication_rel entry = (Form_pg_publication_rel) GETSTRUCT((HeapTuple) lfirst(lc));

		carry_plan_follows(plan,
						   psprintf("publication %s",
									quote_identifier(get_publication_name(entry->prpubid, false))),
						   "publishes");
	}
	table_close(entries, AccessShareLock);
}

const Carrier carry_publications = {
	.name = "publications", .move = move_publications, .plan = plan_part};
