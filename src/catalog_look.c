/*-------------------------------------------------------------------------
 *
 * catalog_look.c
 *	  Have the catalogs changed since? See catalog_look.h.
 *
 * The questions that stand before a swap compare two tables in all that may hang
 * on a table: they take ten times as long as the swap itself.  They are asked
 * without locks until the answer is good, and must be asked again under the
 * swap's locks, or whatever came in between would be lost.  What has come, though,
 * every process is told: whoever changes a catalog sends messages to those who
 * may have its rows in their caches, before he lets go of his locks.  So where no
 * message has come, nothing has changed that a question would read.
 *
 * Each message counts, whatever it is about.  One too many, of a temporary table
 * somewhere, costs the time of asking again and nothing else.  Our own changes
 * count as well, at the end of each command and when they are rolled back.
 *
 * Three catalogs are in no cache, and nobody is told of changes there:
 * dependencies, comments and security labels.  Their rows about our tables, and
 * about what belongs to them, are looked at each time: where they are and who
 * wrote them.  That is the whole of the mark, with what the answer depends on of
 * the migration itself.  What its events tell was written together with a change
 * of a catalog.
 *
 * An answer counts only if the mark was taken before the question was asked: what
 * changed meanwhile has a message that raises the count after that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_description.h"
#include "catalog/pg_seclabel.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog_look.h"
#include "lock_queue.h"
#include "sqlgen.h"

/*
 * Where tables, columns, indexes, triggers, policies, rules and partitions change
 * the relation cache is told as well.  One cache of each other catalog that a
 * question reads: all caches of a catalog are told.
 */
static const int other_caches[] = {
	CONSTROID,		 PROCOID,
	TYPEOID,		 RULERELNAME,
	STATEXTOID,		 PUBLICATIONOID,
	PUBLICATIONREL,	 PUBLICATIONNAMESPACE,
	SUBSCRIPTIONOID, SUBSCRIPTIONRELMAP,
	AUTHOID,		 AUTHMEMROLEMEM,
	NAMESPACEOID,	 AMOPOPID,
};

static uint64 messages = 0;
static uint64 missed = 0;

static void
count_relation_message(Datum arg, Oid relid)
{
	messages++;
}

static void
count_cache_message(Datum arg, int cache, uint32 hash)
{
	messages++;
}

/* From the first question on: what came before it, it sees. */
static void
begin_counting(void)
{
	static bool counting = false;

	if (counting)
		return;
	CacheRegisterRelcacheCallback(count_relation_message, (Datum) 0);
	for (int i = 0; i < lengthof(other_caches); i++)
		CacheRegisterSyscacheCallback(other_caches[i], count_cache_message, (Datum) 0);
	counting = true;
}

static uint64
add(uint64 mark, const void *bytes, size_t length)
{
	return hash_combine64(mark, hash_bytes_extended(bytes, (int) length, 0));
}

/* ------------------------------------------------------------------------
 * Rows of the catalogs that nobody is told of
 * ------------------------------------------------------------------------
 */

/* A catalog, and how its rows are found by two OIDs. */
typedef struct Lookup
{
	Oid catalog;
	Oid index;
	AttrNumber columns[2];
} Lookup;

static const Lookup dependents_of = {
	DependRelationId, DependReferenceIndexId, {Anum_pg_depend_refclassid, Anum_pg_depend_refobjid}};
static const Lookup dependencies_of = {
	DependRelationId, DependDependerIndexId, {Anum_pg_depend_classid, Anum_pg_depend_objid}};
static const Lookup comments_on = {DescriptionRelationId,
								   DescriptionObjIndexId,
								   {Anum_pg_description_objoid, Anum_pg_description_classoid}};
static const Lookup labels_on = {SecLabelRelationId,
								 SecLabelObjectIndexId,
								 {Anum_pg_seclabel_objoid, Anum_pg_seclabel_classoid}};

/* Objects that have comments of their own, a List of ObjectAddress *, with one more. */
static List *
add_object(List *objects, Oid class, Oid oid)
{
	ObjectAddress *last = objects != NIL ? llast(objects) : NULL;

	if (last != NULL && last->classId == class && last->objectId == oid)
		return objects;
	last = palloc(sizeof(ObjectAddress));
	ObjectAddressSet(*last, class, oid);
	return lappend(objects, last);
}

/* objects: of pg_depend, what is found there is added; or NULL. */
static uint64
add_rows(uint64 mark, const Lookup *lookup, Oid first, Oid second, List **objects)
{
	Relation catalog = table_open(lookup->catalog, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key[0], lookup->columns[0], BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(first));
	ScanKeyInit(&key[1], lookup->columns[1], BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(second));
	scan = systable_beginscan(catalog, lookup->index, true, NULL, lengthof(key), key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TransactionId xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);

		mark = add(mark, &tuple->t_self, sizeof(ItemPointerData));
		mark = add(mark, &xmin, sizeof(xmin));
		/* of relations only the indexes matter, and those are added by add_table() */
		if (objects != NULL && dep->classid != RelationRelationId)
			*objects = add_object(*objects, dep->classid, dep->objid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return mark;
}

static uint64
add_table(uint64 mark, Oid relid)
{
	Relation rel = try_relation_open(relid, NoLock);
	Oid type = get_rel_type_id(relid);
	List *objects = NIL;
	ListCell *lc;

	if (rel == NULL)
		return mark; /* who dropped it has told us */
	mark = add_rows(mark, &dependents_of, RelationRelationId, relid, &objects);
	mark = add_rows(mark, &dependents_of, TypeRelationId, type, NULL);
	mark = add_rows(mark, &dependents_of, TypeRelationId, get_array_type(type), NULL);
	mark = add_rows(mark, &dependencies_of, RelationRelationId, relid, NULL);
	mark = add_rows(mark, &labels_on, relid, RelationRelationId, NULL);
	objects = add_object(objects, RelationRelationId, relid);
	foreach (lc, RelationGetIndexList(rel))
		objects = add_object(objects, RelationRelationId, lfirst_oid(lc));
	foreach (lc, objects)
	{
		ObjectAddress *object = lfirst(lc);

		mark = add_rows(mark, &comments_on, object->objectId, object->classId, NULL);
	}
	relation_close(rel, NoLock);
	return mark;
}

/* ------------------------------------------------------------------------
 * A question
 * ------------------------------------------------------------------------
 */

static uint64
current_mark(const Migration *m, Direction direction)
{
	uint64 mark = 1;
	char *asked = m->request != NULL ? json_field(m->request, "options") : NULL;

	AcceptInvalidationMessages();
	mark = add(mark, &messages, sizeof(messages));
	mark = add(mark, &m->id, sizeof(m->id));
	mark = add(mark, &m->state, sizeof(m->state));
	mark = add(mark, &direction, sizeof(direction));
	if (m->options != NULL)
		mark = add(mark, m->options, VARSIZE(m->options));
	if (asked != NULL)
		mark = add(mark, asked, strlen(asked));
	mark = add_table(mark, m->source);
	return add_table(mark, m->target);
}

static bool
lock_both(const Migration *m)
{
	if (!ConditionalLockRelationOid(m->source, AccessShareLock))
		return false;
	if (ConditionalLockRelationOid(m->target, AccessShareLock))
		return true;
	UnlockRelationOid(m->source, AccessShareLock);
	return false;
}

static void
unlock_both(const Migration *m)
{
	UnlockRelationOid(m->target, AccessShareLock);
	UnlockRelationOid(m->source, AccessShareLock);
}

bool
catalog_look_begin(CatalogLook *look, const Migration *m, Direction direction, uint64 *good)
{
	Assert(!IsolationUsesXactSnapshot());
	begin_counting();
	look->m = m;
	look->good = good;
	look->missed = missed;
	look->mark = 0;
	if (lock_both(m))
	{
		look->mark = current_mark(m, direction);
		unlock_both(m);
	}
	return look->mark == 0 || look->mark != *good;
}

/* A part of the answer is missing: somebody held a lock on a table. */
void
catalog_look_missed(void)
{
	missed++;
}

void
catalog_look_end(CatalogLook *look, bool is_good)
{
	/* under the swap's locks partitions aren't looked at: that is less than a good answer else tells */
	if (is_good && look->mark != 0 && look->missed == missed &&
		!lock_queue_holds(look->m->source, AccessExclusiveLock))
		*look->good = look->mark;
}
