/*-------------------------------------------------------------------------
 *
 * key_sql.c
 *	  A table whose sharding key is filled in place: is it as it was, and the
 *	  pieces of SQL that name it; see key_sql.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "columns.h"
#include "derive.h"
#include "errors.h"
#include "expression.h"
#include "key_sql.h"
#include "relinfo.h"
#include "run.h"
#include "sharding_key.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

static void
refuse(const char *problem, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_MIGRATION_TAMPERED), errmsg("%s", problem),
					errhint("%s or call migrate_ext.cancel: rows that are filled stay so.", hint)));
}

/* See key_sql.h. */
void
key_guard(Run *run, LOCKMODE lockmode)
{
	Migration *m = run->m;
	char *column = json_field(m->definition, "column");
	char *table = sql_qualified(m->schema_name, m->table_name);
	AttrNumber attnum;
	ShardingKey *key;
	Migration *other;
	Oid named;

	run_limit_lock_waits(run);
	LockRelationOid(m->source, lockmode);
	if (get_rel_name(m->source) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MIGRATION_TAMPERED), errmsg("table %s has been dropped", table),
				 errhint("Call migrate_ext.cancel to end the migration.")));
	attnum = get_attnum(m->source, column);
	if (attnum <= 0)
		refuse(psprintf("column %s of table %s has been dropped or renamed",
						quote_identifier(column), table),
			   "Bring it back and call migrate_ext.resume,");
	key = sharding_key_of_column(m->source, attnum);
	if (key == NULL || key->value == NULL ||
		strcmp(key->value, json_field(m->definition, "value")) != 0)
		refuse(psprintf("column %s of table %s is no sharding key with that value any more",
						quote_identifier(column), table),
			   "Record it as before by migrate_ext.add_sharding_key and call migrate_ext.resume,");
	other = catalog_of_table(m->source);
	if (other != NULL && other->state == STATE_SWAPPED)
		refuse(psprintf("table %s is the original of migration \"%s\" now, which is swapped", table,
						other->name),
			   "Undo that and call migrate_ext.resume,");
	named = get_relname_relid(m->table_name, get_namespace_oid(m->schema_name, true));
	if (OidIsValid(named) && named != m->source)
		refuse(psprintf("table %s is another one by now; the one to fill is %s", table,
						sql_relation(m->source)),
			   "Give it its name again and call migrate_ext.resume,");
}

/* ", s.a, s.b" of these columns, or "" */
static char *
column_list(Relation rel, const Bitmapset *attnums)
{
	StringInfoData list;
	int attnum = -1;

	initStringInfo(&list);
	while ((attnum = bms_next_member(attnums, attnum)) >= 0)
		appendStringInfo(
			&list, ", s.%s",
			quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname)));
	return list.data;
}

/* "pg_catalog.jsonb_build_object('id', s.id)" */
static char *
identity_object(Relation rel, const Identity *identity)
{
	StringInfoData object;

	initStringInfo(&object);
	for (int i = 0; i < identity->natts; i++)
	{
		char *name =
			NameStr(TupleDescAttr(RelationGetDescr(rel), identity->attnums[i] - 1)->attname);

		appendStringInfo(&object, "%s%s, s.%s", i == 0 ? "pg_catalog.jsonb_build_object(" : ", ",
						 quote_literal_cstr(name), quote_identifier(name));
	}
	appendStringInfoChar(&object, ')');
	return object.data;
}

/* The place after the last one is written as its block's, beyond all line pointers. */
static char *
place_text(uint64 place)
{
	return psprintf("'(%u,%u)'::pg_catalog.tid", (BlockNumber) (place / KEY_PLACES),
					(unsigned) (place % KEY_PLACES));
}

/* See key_sql.h. */
char *
key_places(const char *alias, KeyRange range)
{
	return psprintf("%s.ctid OPERATOR(pg_catalog.>=) %s AND %s.ctid OPERATOR(pg_catalog.<) %s",
					alias, place_text(range.first), alias, place_text(range.end));
}

/*
 * An update of a column that a foreign key could point at needs the stronger
 * lock; to have it from the start means that it isn't waited for later.
 */
static char *
lock_clause(Relation rel, AttrNumber attnum)
{
	Bitmapset *keys = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);

	return bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, keys) ? "FOR UPDATE"
																			: "FOR NO KEY UPDATE";
}

/* See key_sql.h. */
KeySql *
key_sql(Run *run, Relation rel, KeyRange range)
{
	Migration *m = run->m;
	KeySql *sql = palloc0(sizeof(KeySql));
	char *column = json_field(m->definition, "column");
	AttrNumber attnum = get_attnum(m->source, column);
	Identity *identity = relinfo_identity(m->source, false);
	Derivation *derivation =
		derive_analyze(rel, column, TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid, -1,
					   json_field(m->definition, "value"));
	Bitmapset *attnums = NULL;

	for (int i = 0; i < derivation->nargs; i++)
		attnums = bms_add_member(attnums, derivation->attnums[i]);
	for (int i = 0; i < identity->natts; i++)
		attnums = bms_add_member(attnums, identity->attnums[i]);
	sql->table = sql_relation(m->source);
	sql->column = pstrdup(quote_identifier(column));
	sql->places = key_places(ROW_ALIAS, range);
	sql->lock = lock_clause(rel, attnum);
	sql->columns = column_list(rel, attnums);
	sql->value = columns_value_sql(rel, derivation, &sql->joins);
	sql->identity = identity_object(rel, identity);
	return sql;
}
