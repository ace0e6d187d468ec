/*-------------------------------------------------------------------------
 *
 * preflight.c
 *	  What stands in the way of a swap.  What is looked for, and how it is
 *	  called, is in sql/30_preflight.sql; this asks.
 *
 * The same question is asked when a person calls preflight(), before the swap,
 * and under its lock: something that depends on the table may have been made a
 * moment ago.  Under the lock every millisecond counts, so the statement's plan
 * is kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

#include "arguments.h"
#include "catalog.h"
#include "catalog_look.h"
#include "catalog_spi.h"
#include "index_def.h"
#include "preflight_key.h"
#include "run.h"
#include "sqlgen.h"
#include "stages.h"
#include "standby.h"

PG_FUNCTION_INFO_V1(migrate_ext_preflight);

#define ERRORS_SQL                                                                      \
	"SELECT 'error', object, problem, remedy FROM migrate_ext.preflight_errors($1, $2)" \
	" ORDER BY object COLLATE \"C\", problem COLLATE \"C\""
#define NOTES_SQL                                                                   \
	"SELECT severity, object, problem, remedy FROM migrate_ext.preflight_notes($1)" \
	" UNION ALL SELECT severity, object, problem, remedy"                           \
	" FROM migrate_ext.preflight_key_notes($1, $2::pg_catalog.jsonb, $3)"           \
	" UNION ALL SELECT severity, object, problem, remedy"                           \
	" FROM migrate_ext.preflight_resources($1)"                                     \
	" UNION ALL SELECT severity, object, problem, remedy"                           \
	" FROM migrate_ext.preflight_reads($1, $3)"
#define KEY_NOTES_SQL "SELECT severity, object, problem, remedy FROM migrate_ext.preflight_key($1)"

typedef void (*RowFunction)(char **row, void *arg);

static SPIPlanPtr errors_plan = NULL;
static SPIPlanPtr notes_plan = NULL;
static SPIPlanPtr key_notes_plan = NULL;

/* Call f for each row of a result. */
static void
each_row(CatalogCall *call, uint64 count, RowFunction f, void *arg)
{
	for (uint64 i = 0; i < count; i++)
	{
		char *row[PREFLIGHT_COLUMNS];

		for (int j = 0; j < PREFLIGHT_COLUMNS; j++)
			row[j] = catalog_value_text(call, i, j + 1);
		f(row, arg);
	}
}

/*
 * Indexes that the source got after those of the target were built: the
 * application would miss them after the swap.
 */
static void
each_missing_index(Migration *m, RowFunction f, void *arg)
{
	UserSwitch user;
	ListCell *cell;

	if ((m->state != STATE_CATCHING_UP && m->state != STATE_LIVE) ||
		!preflight_begin_looking(m, &user))
		return;
	foreach (cell, index_def_pairs(m))
	{
		IndexPair *pair = lfirst(cell);
		char *row[PREFLIGHT_COLUMNS] = {"error"};
		char *name;

		if (OidIsValid(pair->target))
			continue;
		name = index_def_new_name(pair->def, get_rel_namespace(m->target));
		row[1] = psprintf("index %s", sql_relation(pair->source));
		row[2] = "was made after the target's indexes, and is missing there";
		row[3] = psprintf("drop it, or make the same on the target (which blocks writes): %s",
						  index_def_sql(pair->def, name, m->target, false));
		f(row, arg);
	}
	preflight_end_looking(m, &user);
}

/* Indexes that an adopted target can't have. */
static void
each_impossible_index(Migration *m, RowFunction f, void *arg)
{
	UserSwitch user;
	ListCell *cell;

	if (m->state > STATE_LIVE || !preflight_begin_looking(m, &user))
		return;
	foreach (cell, index_def_impossible(m))
	{
		char *row[PREFLIGHT_COLUMNS] = {"warning"};

		row[1] = psprintf("index %s", sql_relation(lfirst_oid(cell)));
		row[2] = "reads a column that the target does not have, and will be missing there";
		row[3] = "make the index that the application needs on the target when it is live";
		f(row, arg);
	}
	preflight_end_looking(m, &user);
}

/* A standby that commits would wait for, and that may not come back. */
static void
each_missing_standby(RowFunction f, void *arg)
{
	char *row[PREFLIGHT_COLUMNS] = {"warning", "synchronous standbys"};
	int wanted;
	int missing = standby_missing(&wanted);

	if (missing == 0)
		return;
	row[2] = psprintf("%d of %d that a COMMIT waits for %s away: every call waits for them too, "
					  "and swap() and unswap() would hold their locks meanwhile",
					  missing, wanted, missing == 1 ? "is" : "are");
	row[3] = "bring them back, or change synchronous_standby_names";
	f(row, arg);
}

/*
 * Call f for each thing that stops a swap of m from its present state.  The
 * application's table is the source, or after a swap the target.
 */
static void
each_error(Migration *m, RowFunction f, void *arg)
{
	Direction direction = direction_of(m);
	Oid types[] = {OIDOID, OIDOID};
	Datum values[] = {ObjectIdGetDatum(front_of(m, direction)),
					  ObjectIdGetDatum(back_of(m, direction))};
	CatalogCall call = {.plan = &errors_plan};
	uint64 count = catalog_begin(&call, ERRORS_SQL, lengthof(types), types, values, NULL);

	each_row(&call, count, f, arg);
	each_missing_index(m, f, arg);
	catalog_end(&call);
}

static void
each_note(Migration *m, KeyLook *look, RowFunction f, void *arg)
{
	Oid types[] = {INT8OID, TEXTOID, TEXTARRAYOID};
	Datum values[3] = {Int64GetDatum(m->id)};
	CatalogCall call = {.plan = look != NULL ? &notes_plan : &key_notes_plan};
	uint64 count;

	if (look != NULL)
	{
		values[1] = CStringGetTextDatum(look->greatest);
		values[2] = preflight_key_statements(m);
	}
	count = catalog_begin(&call, look != NULL ? NOTES_SQL : KEY_NOTES_SQL,
						  look != NULL ? lengthof(types) : 1, types, values, NULL);
	each_row(&call, count, f, arg);
	catalog_end(&call);
}

/* ------------------------------------------------------------------------
 * For the swap
 * ------------------------------------------------------------------------
 */

typedef struct ErrorList
{
	StringInfoData text; /* in the caller's memory */
	int count;
} ErrorList;

static void
append_error(char **row, void *arg)
{
	ErrorList *list = arg;

	appendStringInfo(&list->text, "%s%s: %s", list->count++ > 0 ? "\n" : "", row[1], row[2]);
}

/*
 * How many things stop the swap; *text gets a line for each of them, or "".
 * Takes no lock on the tables.
 */
int
preflight_errors(Migration *m, char **text)
{
	static uint64 good = 0;
	ErrorList list = {.count = 0};
	CatalogLook look;

	initStringInfo(&list.text);
	*text = list.text.data;
	if (!catalog_look_begin(&look, m, direction_of(m), &good))
		return 0;
	each_error(m, append_error, &list);
	catalog_look_end(&look, list.count == 0);
	*text = list.text.data;
	return list.count;
}

/* ------------------------------------------------------------------------
 * For people
 * ------------------------------------------------------------------------
 */

/* Rows until they are sorted, in the caller's memory. */
typedef struct RowList
{
	MemoryContext memory;
	List *rows; /* of char *[PREFLIGHT_COLUMNS] */
} RowList;

static void
collect_row(char **row, void *arg)
{
	RowList *list = arg;
	MemoryContext old_context = MemoryContextSwitchTo(list->memory);
	char **copy = palloc(PREFLIGHT_COLUMNS * sizeof(char *));
	int i;

	for (i = 0; i < PREFLIGHT_COLUMNS; i++)
		copy[i] = pstrdup(row[i] ? row[i] : "");
	list->rows = lappend(list->rows, copy);
	MemoryContextSwitchTo(old_context);
}

static int
severity_rank(const char *severity)
{
	return strcmp(severity, "error") == 0 ? 0 : strcmp(severity, "warning") == 0 ? 1 : 2;
}

/* Errors first, then by object and problem. */
static int
compare_rows(const ListCell *a, const ListCell *b)
{
	char **row_a = lfirst(a);
	char **row_b = lfirst(b);
	int result = severity_rank(row_a[0]) - severity_rank(row_b[0]);
	int i;

	for (i = 1; result == 0 && i < PREFLIGHT_COLUMNS; i++)
		result = strcmp(row_a[i], row_b[i]);
	return result;
}

static void
put_row(ReturnSetInfo *result, char **row)
{
	Datum values[PREFLIGHT_COLUMNS];
	bool isnull[PREFLIGHT_COLUMNS] = {false};
	int i;

	for (i = 0; i < PREFLIGHT_COLUMNS; i++)
		values[i] = CStringGetTextDatum(row[i]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
}

/* preflight(migration): errors first; nothing for one that is finished */
Datum
migrate_ext_preflight(PG_FUNCTION_ARGS)
{
	Migration *m = catalog_find(argument_text(fcinfo, 0, "migration"), false);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RowList list = {CurrentMemoryContext, NIL};
	KeyLook *look;
	ListCell *cell;

	InitMaterializedSRF(fcinfo, 0);
	if (!migration_is_key(m) && m->state > STATE_SWAPPED)
		return (Datum) 0;
	if (migration_is_key(m))
		each_note(m, NULL, collect_row, &list);
	else
	{
		look = preflight_key_look(m);
		list.rows = look->rows;
		each_error(m, collect_row, &list);
		each_note(m, look, collect_row, &list);
		each_impossible_index(m, collect_row, &list);
		each_missing_standby(collect_row, &list);
	}
	list_sort(list.rows, compare_rows);
	foreach (cell, list.rows)
		put_row(result, lfirst(cell));
	return (Datum) 0;
}
