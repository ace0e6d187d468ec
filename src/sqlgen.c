/*-------------------------------------------------------------------------
 *
 * sqlgen.c
 *	  Names and generated SQL: quoting, shortening, small helpers around SPI.
 *
 * Every name that enters a statement goes through sql_relation(),
 * sql_qualified() or sql_columns(), so it is always quoted and qualified; the
 * statements run with whatever user and search_path are in force.
 *
 * Names made from other names keep their suffix whole, since the suffix is
 * what tells siblings apart: only the base is cut, at a character boundary.
 * Two long tables may so come to the same name; name_free() sees that the name
 * is taken and puts a number between base and suffix.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "parser/parse_coerce.h"
#include "sqlgen.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* ------------------------------------------------------------------------
 * Names in SQL
 * ------------------------------------------------------------------------
 */

char *
sql_qualified(const char *schema, const char *name)
{
	return quote_qualified_identifier(schema, name);
}

/*
 * schema.table of a relation.  The caller holds a lock on it, or can live with
 * a rename in between.
 */
char *
sql_relation(Oid relid)
{
	char *name = get_rel_name(relid);
	char *schema = name ? get_namespace_name(get_rel_namespace(relid)) : NULL;

	if (schema == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table with OID %u does not exist", relid),
						errdetail("It was dropped meanwhile.")));
	return sql_qualified(schema, name);
}

char *
sql_columns(Oid relid, int natts, const AttrNumber *attnums, const char *alias)
{
	StringInfoData buf;
	int i;

	initStringInfo(&buf);
	for (i = 0; i < natts; i++)
	{
		if (i > 0)
			appendStringInfoString(&buf, ", ");
		if (alias != NULL)
			appendStringInfo(&buf, "%s.", alias);
		appendStringInfoString(&buf, quote_identifier(get_attname(relid, attnums[i], false)));
	}
	return buf.data;
}

/*
 * Functions that fit a value to a length know whether a cast was asked for only
 * if they have a third argument; the others do the same in both cases.
 */
static bool
tells_cast_from_assignment(Oid type, int32 typmod, Oid *function)
{
	return typmod >= 0 && find_typmod_coercion_function(type, function) == COERCION_PATH_FUNC &&
		   get_func_nargs(*function) == 3;
}

/*
 * (value)::type, or where that would cut
 *
 *		pg_catalog."varchar"((value)::character varying, 7, false)
 *
 * and of a domain over such a type that, cast to the domain.
 */
char *
sql_assignment(const char *value, Oid type, int32 typmod)
{
	bits16 flags = FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY;
	int32 base_typmod = typmod;
	Oid base = getBaseTypeAndTypmod(type, &base_typmod);
	char *name = format_type_extended(type, typmod, flags);
	char *fitted;
	Oid function;

	if (!tells_cast_from_assignment(base, base_typmod, &function))
		return psprintf("(%s)::%s", value, name);
	fitted = psprintf(
		"%s((%s)::%s, %d, false)",
		sql_qualified(get_namespace_name(get_func_namespace(function)), get_func_name(function)),
		value, format_type_extended(base, -1, flags), base_typmod);
	return base == type ? fitted : psprintf("(%s)::%s", fitted, name);
}

/* ------------------------------------------------------------------------
 * New names
 * ------------------------------------------------------------------------
 */

char *
name_make(const char *base, const char *suffix)
{
	int room = NAMEDATALEN - 1 - strlen(suffix);
	int len = strlen(base);

	/* a suffix as long as a name leaves nothing of the base */
	if (room < 0)
		return pnstrdup(suffix, pg_mbcliplen(suffix, strlen(suffix), NAMEDATALEN - 1));
	if (len > room)
		len = pg_mbcliplen(base, len, room);
	return psprintf("%.*s%s", len, base, suffix);
}

/* A relation's name must be free among relations and, for its row type, types. */
static bool
name_is_taken(const char *name, Oid schema)
{
	return OidIsValid(get_relname_relid(name, schema)) ||
		   SearchSysCacheExists2(TYPENAMENSP, CStringGetDatum(name), ObjectIdGetDatum(schema));
}

/*
 * Somebody else may take the name before our CREATE commits: that is a
 * duplicate_table or unique_violation of the CREATE, which nothing can prevent.
 */
char *
name_free(const char *base, const char *suffix, Oid schema)
{
	char *name = name_make(base, suffix);
	int number;

	for (number = 1; name_is_taken(name, schema); number++)
		name = name_make(base, psprintf("%d%s", number, suffix));
	return name;
}

/* ------------------------------------------------------------------------
 * Statements
 * ------------------------------------------------------------------------
 */

/*
 * Connect, run with a new snapshot, and leave SPI connected for the caller to
 * read the result.
 */
static void
execute(const char *sql)
{
	int code;

	Assert(ActiveSnapshotSet());
	if (SPI_connect() != SPI_OK_CONNECT)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not connect to the SPI manager")));
	code = SPI_execute(sql, false, 0);
	if (code < 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not execute a statement: %s", SPI_result_code_string(code)),
						errdetail("The statement is: %s", sql)));
}

static void
finish(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not disconnect from the SPI manager")));
}

/* psprintf for a caller that is variadic itself. */
static char *format(const char *fmt, va_list args) pg_attribute_printf(1, 0);

static char *
format(const char *fmt, va_list args)
{
	size_t len = 256;

	for (;;)
	{
		char *sql = palloc(len);
		va_list again;
		size_t needed;

		va_copy(again, args);
		needed = pvsnprintf(sql, len, fmt, again);
		va_end(again);
		if (needed < len)
			return sql;
		pfree(sql);
		len = needed;
	}
}

uint64
sql_run(const char *fmt, ...)
{
	char *sql;
	va_list args;
	uint64 rows;

	va_start(args, fmt);
	sql = format(fmt, args);
	va_end(args);
	execute(sql);
	rows = SPI_processed;
	finish();
	pfree(sql);
	return rows;
}

void
sql_read_into(const char *sql, DestReceiver *receiver, const char *what)
{
	SPIExecuteOptions execute = {.read_only = true, .dest = receiver};
	SPIPlanPtr plan;
	int code;

	SPI_connect();
	plan = SPI_prepare(sql, 0, NULL);
	code = plan != NULL ? SPI_execute_plan_extended(plan, &execute) : SPI_result;
	if (code != SPI_OK_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not read the rows to %s: %s", what, SPI_result_code_string(code)),
				 errdetail("The statement is: %s", sql)));
	SPI_finish();
}

/*
 * The first column of the first row, in the caller's memory.  All rows are
 * fetched, so that a statement with RETURNING runs to its end.
 */
static char *
first_value(const char *sql)
{
	MemoryContext caller = CurrentMemoryContext;
	char *value = NULL;

	execute(sql);
	if (SPI_tuptable != NULL && SPI_processed > 0)
	{
		value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		if (value != NULL)
			value = MemoryContextStrdup(caller, value);
	}
	finish();
	return value;
}

char *
sql_text(const char *fmt, ...)
{
	char *sql;
	va_list args;
	char *value;

	va_start(args, fmt);
	sql = format(fmt, args);
	va_end(args);
	value = first_value(sql);
	pfree(sql);
	return value;
}

/* No row, or NULL, is 0: what a count or a sum of nothing comes to. */
int64
sql_int64(const char *fmt, ...)
{
	char *sql;
	va_list args;
	char *value;

	va_start(args, fmt);
	sql = format(fmt, args);
	va_end(args);
	value = first_value(sql);
	pfree(sql);
	return value ? pg_strtoint64(value) : 0;
}

/* ------------------------------------------------------------------------
 * JSON
 * ------------------------------------------------------------------------
 */

/*
 * A top-level field as text: strings without their quotes, objects and arrays
 * as JSON.  NULL if object is NULL, not an object, or the field is not there
 * or null.
 */
char *
json_field(Jsonb *object, const char *field)
{
	JsonbValue value;

	if (object == NULL || !JB_ROOT_IS_OBJECT(object) ||
		getKeyJsonValueFromContainer(&object->root, field, strlen(field), &value) == NULL)
		return NULL;

	switch (value.type)
	{
		case jbvString:
			return pnstrdup(value.val.string.val, value.val.string.len);
		case jbvNumeric:
			return DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));
		case jbvBool:
			return pstrdup(value.val.boolean ? "true" : "false");
		case jbvBinary:
			return JsonbToCString(NULL, value.val.binary.data, value.val.binary.len);
		default:
			return NULL; /* jbvNull; nothing else can stand in an object */
	}
}

/* 22P02 if the text is no JSON. */
Jsonb *
json_parse(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

char *
json_text(Jsonb *object)
{
	return JsonbToCString(NULL, &object->root, VARSIZE(object));
}

char *
json_quote(const char *text)
{
	StringInfoData buf;

	initStringInfo(&buf);
	escape_json(&buf, text);
	return buf.data;
}

void
json_append(StringInfo list, const char *text)
{
	appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", json_quote(text));
}
