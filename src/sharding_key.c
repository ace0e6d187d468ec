/*-------------------------------------------------------------------------
 *
 * sharding_key.c
 *	  add_sharding_key(): a new column that a table shall be partitioned by.
 *
 * All happens in the caller's transaction: the column is added without a
 * default, so no row is written and the table is locked (ACCESS EXCLUSIVE) for
 * a moment, until that transaction ends.  A column of that name and type that
 * is there already is taken over, without any lock but that of the trigger.
 *
 * "value" is looked up in the caller's search_path once.  Kept is a text made
 * from what was found, with every name qualified, which means the same in every
 * session.  That the owner may read what it reads is tried by a query of no row.
 *
 * Two calls for one table come one after the other, by the lock that
 * partition_by_*() take as well.  An error in any step leaves nothing, since it
 * ends the transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "arguments.h"
#include "attempt.h"
#include "catalog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "catalog_spi.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "compat.h"
#include "derive.h"
#include "fill_count.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parse_type.h"
#include "relinfo.h"
#include "run.h"
#include "sharding_key.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(migrate_ext_add_sharding_key);

/* What a call asks for. */
typedef struct KeyRequest
{
	/* as given */
	Oid source;
	char *column;
	char *value; /* or NULL; then in its qualified form */
	bool fill;

	/* worked out */
	Relation rel; /* NULL again before it is altered */
	char *table;
	Oid owner;
	Oid type;
	int32 typmod;
	AttrNumber attnum; /* 0: not there yet */
} KeyRequest;

/* ------------------------------------------------------------------------
 * Records
 * ------------------------------------------------------------------------
 */

static ShardingKey *
load(const char *where, int nargs, Oid *types, Datum *values)
{
	CatalogCall call = {.read_only = true};
	ShardingKey *key = NULL;

	PushActiveSnapshot(GetLatestSnapshot());
	if (catalog_begin(&call,
					  psprintf("SELECT id, relation, attnum, value, fill"
							   " FROM migrate_ext.sharding_key WHERE %s",
							   where),
					  nargs, types, values, NULL) > 0)
	{
		bool isnull;
		Datum value = catalog_value(&call, 0, 4, &isnull);

		key = MemoryContextAllocZero(call.outer, sizeof(ShardingKey));
		if (!isnull)
			key->value = MemoryContextStrdup(call.outer, TextDatumGetCString(value));
		key->id = DatumGetInt64(catalog_value(&call, 0, 1, &isnull));
		key->relation = DatumGetObjectId(catalog_value(&call, 0, 2, &isnull));
		key->attnum = DatumGetInt16(catalog_value(&call, 0, 3, &isnull));
		key->fill = DatumGetBool(catalog_value(&call, 0, 5, &isnull));
	}
	catalog_end(&call);
	PopActiveSnapshot();
	return key;
}

ShardingKey *
sharding_key_of_column(Oid relation, AttrNumber attnum)
{
	Oid types[] = {OIDOID, INT2OID};
	Datum values[] = {ObjectIdGetDatum(relation), Int16GetDatum(attnum)};

	return load("relation = $1 AND attnum = $2", lengthof(types), types, values);
}

ShardingKey *
sharding_key_by_id(int64 id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(id)};

	return load("id = $1", lengthof(types), types, values);
}

/* Record the request, and forget columns that are gone; returns the id. */
static int64
record(const KeyRequest *request)
{
	Oid types[] = {OIDOID, INT2OID, TEXTOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(request->source), Int16GetDatum(request->attnum),
					  request->value ? CStringGetTextDatum(request->value) : (Datum) 0,
					  BoolGetDatum(request->fill)};
	CatalogCall call = {0};
	bool isnull;
	int64 id;

	(void) catalog_exec("DELETE FROM migrate_ext.sharding_key k WHERE NOT EXISTS"
						" (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.relation"
						" AND a.attnum = k.attnum AND NOT a.attisdropped)",
						0, NULL, NULL, NULL);
	(void) catalog_begin(&call,
						 "INSERT INTO migrate_ext.sharding_key (relation, attnum, value, fill)"
						 " VALUES ($1, $2, $3, $4) RETURNING id",
						 lengthof(types), types, values, request->value ? NULL : "  n ");
	id = DatumGetInt64(catalog_value(&call, 0, 1, &isnull));
	catalog_end(&call);
	return id;
}

/* ------------------------------------------------------------------------
 * Checks
 * ------------------------------------------------------------------------
 */

static void
check_name(const char *name)
{
	if (*name == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME), errmsg("the name of a column must not be empty")));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG), errmsg("column name \"%s\" is too long", name),
				 errdetail("It has %zu bytes, %d are allowed.", strlen(name), NAMEDATALEN - 1)));
}

/*
 * The type, looked up in the caller's search_path.  42704 if it can't be
 * compared, 0A000 if adding a column of it would write every row.
 */
static void
read_type(KeyRequest *request, const char *text)
{
	char *name;

	parseTypeString(text, &request->type, &request->typmod, false);
	name = format_type_with_typemod(request->type, request->typmod);
	if (get_typtype(request->type) == TYPTYPE_PSEUDO)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						errmsg("column \"%s\" has pseudo-type %s", request->column, name)));
	if (!OidIsValid(GetDefaultOpClass(request->type, BTREE_AM_OID)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("column \"%s\" of type %s can't be the key of partitions", request->column,
						name),
				 errdetail("The type has no default operator class for access method \"btree\".")));
	if (request->attnum == 0 &&
		(DomainHasConstraints(request->type) || get_typdefault(request->type) != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a column of type %s can't be added without writing every row", name),
				 errdetail("The domain has constraints or a default."),
				 errhint("Use its base type, or add the column yourself: it is taken over then.")));
}

/* A column that is there already: 42804 if it has another type. */
static void
check_column(const KeyRequest *request)
{
	const char *table = request->table;
	Form_pg_attribute att;

	if (request->attnum == 0)
		return;
	if (request->attnum < 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_COLUMN),
						errmsg("column name \"%s\" conflicts with a system column name",
							   request->column)));
	att = TupleDescAttr(RelationGetDescr(request->rel), request->attnum - 1);
	if (att->atttypid != request->type || att->atttypmod != request->typmod)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("column \"%s\" of table \"%s\" already exists with another type",
							   request->column, table),
						errdetail("It is of type %s, asked for was %s.",
								  format_type_with_typemod(att->atttypid, att->atttypmod),
								  format_type_with_typemod(request->type, request->typmod))));
	if (att->attgenerated)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("generated column \"%s\" of table \"%s\" can't be the key of partitions",
						request->column, table),
				 errdetail("PostgreSQL does not partition by generated columns.")));
}

/*
 * Check the value and bring it into the form that is kept.  As the owner: first
 * with the caller's search_path, then with ours, which the kept text must mean
 * the same in.
 */
static void
check_value(KeyRequest *request)
{
	Derivation *derivation;
	UserSwitch save;
	Oid userid;
	int sec_context;

	if (request->value == NULL)
		return;
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(request->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE |
											   SECURITY_RESTRICTED_OPERATION |
											   SECURITY_NOFORCE_RLS);
	derivation = derive_analyze(request->rel, request->column, request->type, request->typmod,
								request->value);
	SetUserIdAndSecContext(userid, sec_context);

	user_switch_owner(&save, request->owner);
	request->value = derive_text(request->rel, derivation);
	(void) sql_run("SELECT (%s) FROM ONLY %s s LIMIT 0", request->value,
				   sql_relation(request->source));
	user_switch_back(&save);
}

/*
 * Has the column been recorded already?  True if as it is asked for, 42710 if
 * in another way.
 */
static bool
is_recorded(const KeyRequest *request)
{
	ShardingKey *key = NULL;
	bool same_value;

	if (request->attnum > 0)
		key = sharding_key_of_column(request->source, request->attnum);
	if (key == NULL)
		return false;
	same_value = key->value == NULL || request->value == NULL
					 ? key->value == request->value
					 : strcmp(key->value, request->value) == 0;
	if (same_value && key->fill == request->fill)
		return true;
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("column \"%s\" of table \"%s\" is a sharding key with another definition",
					request->column, request->table),
			 errdetail("Its value is %s, and it is %s.", key->value ? key->value : "not given",
					   key->fill ? "filled" : "not filled"),
			 errhint("Ask for the same, or drop the column first.")));
	return true; /* keep the compiler quiet */
}

/* ------------------------------------------------------------------------
 * Doing it
 * ------------------------------------------------------------------------
 */

/* ALTER TABLE ... ADD COLUMN, as the owner.  AccessExclusiveLock, by attempts. */
static void
add_column(KeyRequest *request)
{
	UserSwitch save;

	attempt_lock(request->source, AccessExclusiveLock);
	user_switch_owner(&save, request->owner);
	(void) sql_run("ALTER TABLE ONLY %s ADD COLUMN %s %s", sql_relation(request->source),
				   quote_identifier(request->column),
				   format_type_extended(request->type, request->typmod,
										FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	user_switch_back(&save);
	request->attnum = get_attnum(request->source, request->column);
}

/*
 * Is there a trigger of this name that fills another column?  One of a restored
 * dump has a number that is no column's of this table, and is replaced.
 */
static bool
fills_another(const KeyRequest *request, const char *name, int64 id)
{
	char *argument =
		sql_text("SELECT pg_catalog.encode(tgargs, 'escape') FROM pg_catalog.pg_trigger"
				 " WHERE tgrelid = %u AND tgname = %s",
				 request->source, quote_literal_cstr(name));
	ShardingKey *key;

	if (argument == NULL || strtoll(argument, NULL, 10) == id)
		return false;
	key = sharding_key_by_id(strtoll(argument, NULL, 10));
	return key != NULL && key->relation == request->source;
}

/*
 * The trigger that fills it.  ShareRowExclusiveLock, by attempts.  As superuser, who alone
 * may be sure of its function; it acts as the owner.
 */
static void
make_trigger(const KeyRequest *request, int64 id)
{
	char *table = sql_relation(request->source);
	char *name = FILL_TRIGGER_NAME;
	UserSwitch save;

	attempt_lock(request->source, ShareRowExclusiveLock);
	user_switch_superuser(&save);
	if (fills_another(request, name, id))
		name = psprintf("%s_%d", FILL_TRIGGER_NAME, request->attnum);
	(void) sql_run("CREATE OR REPLACE TRIGGER %s BEFORE INSERT OR UPDATE ON %s FOR EACH ROW"
				   " EXECUTE FUNCTION migrate_ext.fill_key('" INT64_FORMAT "')",
				   quote_identifier(name), table, id);
	(void) sql_run("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s", table, quote_identifier(name));
	fill_count_create(id, request->source);
	user_switch_back(&save);
}

static void
read_arguments(FunctionCallInfo fcinfo, KeyRequest *request)
{
	argument_require_writable("migrate_ext.add_sharding_key()");
	argument_require(fcinfo, 0, "source");
	request->source = PG_GETARG_OID(0);
	request->column = argument_text(fcinfo, 1, "column_name");
	check_name(request->column);
	if (!PG_ARGISNULL(3))
		request->value = argument_text(fcinfo, 3, "value");

	/* without a value there is nothing to fill it with */
	request->fill = argument_bool(fcinfo, 4, "fill") && request->value != NULL;
}

/*
 * A table that is being migrated may get a key as long as it is the one that the
 * application uses; the target must then follow.
 */
static void
check_migration(const KeyRequest *request)
{
	Migration *m = catalog_of_table(request->source);

	if (m == NULL || m->source != request->source || m->state >= STATE_SWAPPED ||
		!object_ownercheck(RelationRelationId, request->source, GetUserId()))
		relinfo_check_source(request->source);
	else
		ereport(NOTICE, (errmsg("table \"%s\" is being migrated", request->table),
						 errhint("Call migrate_ext.replace_sync(%s) in this transaction: the "
								 "target follows.",
								 quote_literal_cstr(m->name))));
}

/* add_sharding_key(source, column_name, column_type, value, fill) */
Datum
migrate_ext_add_sharding_key(PG_FUNCTION_ARGS)
{
	KeyRequest request = {0};
	int64 id;

	read_arguments(fcinfo, &request);
	LockDatabaseObject(RelationRelationId, request.source, 0, ExclusiveLock);
	request.rel = relinfo_open(request.source);
	request.table = pstrdup(RelationGetRelationName(request.rel));
	request.owner = request.rel->rd_rel->relowner;
	if (!object_ownercheck(RelationRelationId, request.source, GetUserId()) ||
		catalog_of_table(request.source) == NULL)
		relinfo_check_source(request.source);
	request.attnum = get_attnum(request.source, request.column);
	read_type(&request, argument_text(fcinfo, 2, "column_type"));
	check_column(&request);
	check_value(&request);
	relation_close(request.rel, NoLock);
	request.rel = NULL;
	if (is_recorded(&request))
	{
		ereport(NOTICE, (errmsg("column \"%s\" of table \"%s\" is a sharding key already, doing "
								"nothing",
								request.column, request.table)));
		PG_RETURN_VOID();
	}
	check_migration(&request);

	if (request.attnum == 0)
		add_column(&request);
	id = record(&request);
	if (request.fill)
		make_trigger(&request, id);
	PG_RETURN_VOID();
}
