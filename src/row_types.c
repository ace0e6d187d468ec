/*-------------------------------------------------------------------------
 *
 * row_types.c
 *	  Two tables exchange their row types; see row_types.h.
 *
 * A function f(accounts) is declared by the OID of the type.  After the swap
 * f(a) is to be called with rows of the partitioned table, so that table takes
 * over the type.  What is changed: pg_class.reltype, pg_type.typrelid, the
 * types' names and those of their array types, and the dependency by which a
 * type goes with its table.  Everybody's caches follow: pg_class is changed,
 * which invalidates relations and the tuple descriptors of their types.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "row_types.h"
#include "sqlgen.h"

/* Set pg_class.reltype and pg_type.typrelid. */
static void
join_type(Oid relid, Oid type, Oid old_relid)
{
	Relation classes = table_open(RelationRelationId, RowExclusiveLock);
	Relation types = table_open(TypeRelationId, RowExclusiveLock);
	HeapTuple class = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));
	HeapTuple typ = SearchSysCacheCopy1(TYPEOID, ObjectIdGetDatum(type));

	if (!HeapTupleIsValid(class) || !HeapTupleIsValid(typ))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u has been dropped", relid)));
	((Form_pg_class) GETSTRUCT(class))->reltype = type;
	((Form_pg_type) GETSTRUCT(typ))->typrelid = relid;
	CatalogTupleUpdate(classes, &class->t_self, class);
	CatalogTupleUpdate(types, &typ->t_self, typ);
	(void) changeDependencyFor(TypeRelationId, type, RelationRelationId, old_relid, relid);
	table_close(types, RowExclusiveLock);
	table_close(classes, RowExclusiveLock);
}

static void
rename_type(Oid type, const char *name, Oid schema)
{
	RenameTypeInternal(type, name, schema);
	CommandCounterIncrement();
}

void
row_types_exchange(Oid a, Oid b)
{
	Oid type_a = get_rel_type_id(a);
	Oid type_b = get_rel_type_id(b);
	Oid schema = get_rel_namespace(a);
	char *name_a = get_rel_name(a);
	char *name_b = get_rel_name(b);

	join_type(a, type_b, b);
	join_type(b, type_a, a);
	CommandCounterIncrement();
	rename_type(type_a, name_free(name_a, "_row", schema), schema);
	rename_type(type_b, name_a, schema);
	rename_type(type_a, name_b, schema);
}
