/*-------------------------------------------------------------------------
 *
 * changelog.c
 *	  The change log: making it, appending to it; reading is changelog_read.c.
 *
 * An entry says "something happened to the row of this identity", and no more:
 * who drains it reads the row again.  So an entry too many is harmless, one
 * missing is a lost write.
 *
 * Appending is done in a writer's transaction, below the executor: a heap
 * insert and an index insert, no expression, no trigger, no privilege.  Two
 * writers never meet in it: the key is the writer's own transaction id and a
 * counter of its process.  An entry is seen by others when its transaction
 * commits, with the change that it tells of; a rollback to a savepoint takes
 * both back.
 *
 * xid is the top-level transaction's, whatever subtransaction appended: what
 * is drained is told by snapshots that know nothing of subtransactions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "changelog.h"
#include "columns.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "relinfo.h"
#include "sqlgen.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/xid8.h"

/* Columns of the log before those of the source. */
#define LOG_FIXED_COLUMNS 2

/*
 * Entries live for seconds, and each that is drained is a dead row: vacuum by
 * number, whatever the size, and without the delays made for large tables.
 */
#define LOG_STORAGE                                                               \
	"autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, "   \
	"autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 10000, " \
	"autovacuum_vacuum_cost_delay = 0"

struct ChangeLog
{
	Relation rel;
	Relation index;
	IndexInfo *index_info;
	TupleTableSlot *slot;
	int natts; /* without the fixed ones */
};

/* The second half of an entry's key; never reset, so no two are equal. */
static int64 entry_counter = 0;

static LogColumns *
wanted_columns(Migration *m)
{
	LogColumns *columns = palloc0(sizeof(LogColumns));
	Identity *identity = relinfo_identity(m->source, false);
	bool complete;
	List *hint = columns_of_partition_key(m, &complete);
	ListCell *cell;
	int i;

	for (i = 0; i < identity->natts; i++)
		columns->attnums[columns->natts++] = identity->attnums[i];
	columns->nidentity = columns->natts;
	foreach (cell, hint)
	{
		AttrNumber attnum = (AttrNumber) lfirst_int(cell);

		for (i = 0; i < columns->nidentity && columns->attnums[i] != attnum; i++)
			/* search */;
		if (i == columns->nidentity)
			columns->attnums[columns->natts++] = attnum;
	}
	return columns;
}

/*
 * What the columns of a log are, told by their names.  Locks the log
 * (AccessShareLock) for the moment; 42P01 if it is gone.
 */
void
changelog_columns(Oid log, LogColumns *columns)
{
	Relation rel = table_open(log, AccessShareLock);
	TupleDesc desc = RelationGetDescr(rel);
	int i;

	columns->natts = 0;
	columns->nidentity = 0;
	for (i = LOG_FIXED_COLUMNS; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		/* DROP TYPE ... CASCADE takes the log's columns along: 0, and the log doesn't fit */
		Assert(NameStr(att->attname)[0] == 'c' || att->attisdropped);
		columns->attnums[columns->natts++] =
			att->attisdropped ? 0 : (AttrNumber) atoi(NameStr(att->attname) + 1);
		if (att->attnotnull)
			columns->nidentity++;
	}
	table_close(rel, AccessShareLock);
}

bool
changelog_is_whole(const LogColumns *columns)
{
	int i;

	for (i = 0; i < columns->natts; i++)
		if (columns->attnums[i] == 0)
			return false;
	return true;
}

/*
 * CREATE TABLE migrate_ext.log_1 (xid xid8 NOT NULL, n bigint NOT NULL,
 *	   c1 bigint NOT NULL, c3 date, PRIMARY KEY (xid, n)) WITH (...)
 */
static char *
create_statement(Migration *m, const char *name, LogColumns *columns)
{
	Relation source = table_open(m->source, NoLock);
	StringInfoData sql;
	int i;

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "CREATE TABLE %s (xid pg_catalog.xid8 NOT NULL,"
					 " n pg_catalog.int8 NOT NULL",
					 name);
	for (i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), columns->attnums[i] - 1);
		char *type = format_type_extended(att->atttypid, att->atttypmod,
										  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);

		appendStringInfo(&sql, ", c%d %s%s", att->attnum, type,
						 i < columns->nidentity ? " NOT NULL" : "");
	}
	appendStringInfoString(&sql, ", PRIMARY KEY (xid, n)) WITH (" LOG_STORAGE ")");
	table_close(source, NoLock);
	return sql.data;
}

/*
 * A member of the extension: pg_dump leaves it out, DROP EXTENSION drops it.
 */
static void
join_extension(Oid log)
{
	ObjectAddress table;
	ObjectAddress extension;

	ObjectAddressSet(table, RelationRelationId, log);
	ObjectAddressSet(extension, ExtensionRelationId, get_extension_oid("migrate_ext", false));
	recordDependencyOn(&table, &extension, DEPENDENCY_EXTENSION);
}

/*
 * ALTER TABLE migrate_ext.log_1 ALTER c1 SET STATISTICS 0, ALTER c3 ...
 *
 * Nobody plans with them, and to gather them would call functions of the types'
 * owners (a range's subtype_diff) as the owner of the log, a superuser.
 */
static char *
statistics_statement(const char *name, LogColumns *columns)
{
	StringInfoData sql;
	int i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "ALTER TABLE %s", name);
	for (i = 0; i < columns->natts; i++)
		appendStringInfo(&sql, "%s ALTER c%d SET STATISTICS 0", i > 0 ? "," : "",
						 columns->attnums[i]);
	return sql.data;
}

/* See changelog.h. */
List *
changelog_create_sql(Migration *m)
{
	LogColumns *columns = wanted_columns(m);
	char *name = sql_qualified("migrate_ext", psprintf("log_" INT64_FORMAT, m->id));

	return list_make3(
		create_statement(m, name, columns), statistics_statement(name, columns),
		psprintf("COMMENT ON TABLE %s IS %s", name,
				 quote_literal_cstr(psprintf("rows of %s changed since its migration began",
											 sql_qualified(m->schema_name, m->table_name)))));
}

static bool
log_fits(Oid log, LogColumns *wanted)
{
	LogColumns *there = palloc0(sizeof(LogColumns));

	changelog_columns(log, there);
	return there->natts == wanted->natts && there->nidentity == wanted->nidentity &&
		   memcmp(there->attnums, wanted->attnums, wanted->natts * sizeof(AttrNumber)) == 0;
}

/*
 * Create the log of m and set m->log; an existing one is emptied where it has
 * the right columns.  The caller is superuser and holds a lock on source and
 * target.  A column of another type (the source's may have changed) makes a
 * new log as well: the old one is dropped, which fails while a trigger uses it.
 */
void
changelog_create(Migration *m)
{
	LogColumns *columns = wanted_columns(m);
	char *base = psprintf("log_" INT64_FORMAT, m->id);
	Oid schema = get_namespace_oid("migrate_ext", false);
	Oid log = get_relname_relid(base, schema);
	ListCell *cell;

	if (OidIsValid(log))
	{
		m->log = log;
		if (log_fits(log, columns) && changelog_types_fit(log, m->source))
		{
			changelog_truncate(m);
			return;
		}
		changelog_drop(m);
	}
	foreach (cell, changelog_create_sql(m))
		(void) sql_run("%s", (char *) lfirst(cell));
	m->log = get_relname_relid(base, schema);
	join_extension(m->log);
	CommandCounterIncrement();
}

/*
 * Has each column of the log still the type of the source's?  If not, a value
 * of the source must not be put into it.  Both relations exist.
 */
bool
changelog_types_fit(Oid log, Oid source)
{
	LogColumns *columns = palloc0(sizeof(LogColumns));
	Relation rel = table_open(log, AccessShareLock);
	Relation source_rel = table_open(source, AccessShareLock);
	bool fit = true;
	int i;

	changelog_columns(log, columns);
	for (i = 0; i < columns->natts && fit; i++)
	{
		AttrNumber attnum = columns->attnums[i];
		TupleDesc desc = RelationGetDescr(source_rel);

		fit = attnum > 0 && attnum <= desc->natts &&
			  !TupleDescAttr(desc, attnum - 1)->attisdropped &&
			  TupleDescAttr(desc, attnum - 1)->atttypid ==
				  TupleDescAttr(RelationGetDescr(rel), i + LOG_FIXED_COLUMNS)->atttypid;
	}
	table_close(source_rel, AccessShareLock);
	table_close(rel, AccessShareLock);
	pfree(columns);
	return fit;
}

/* Empty the log.  AccessExclusiveLock on it: no writer must be about. */
void
changelog_truncate(Migration *m)
{
	(void) sql_run("TRUNCATE TABLE %s", sql_relation(m->log));
}

/*
 * Drop the log, if it is there.  AccessExclusiveLock on it; 2BP01 while a sync
 * trigger still uses it.
 */
void
changelog_drop(Migration *m)
{
	if (OidIsValid(m->log) && get_rel_name(m->log) != NULL)
	{
		(void) deleteDependencyRecordsForClass(RelationRelationId, m->log, ExtensionRelationId,
											   DEPENDENCY_EXTENSION);
		CommandCounterIncrement();
		(void) sql_run("DROP TABLE %s", sql_relation(m->log));
	}
	m->log = InvalidOid;
}

/* ------------------------------------------------------------------------
 * Appending
 * ------------------------------------------------------------------------
 */

/*
 * Open a log (RowExclusiveLock) in CurrentMemoryContext, under
 * CurrentResourceOwner.  NULL if the table is gone, or isn't a log.
 */
ChangeLog *
changelog_open(Oid relid)
{
	ChangeLog *log;
	Relation rel;
	List *indexes;

	if (!OidIsValid(relid))
		return NULL;
	rel = try_table_open(relid, RowExclusiveLock);
	if (rel == NULL)
		return NULL;
	indexes = RelationGetIndexList(rel);
	if (list_length(indexes) != 1)
	{
		table_close(rel, RowExclusiveLock);
		return NULL;
	}
	log = palloc0(sizeof(ChangeLog));
	log->rel = rel;
	log->index = index_open(linitial_oid(indexes), RowExclusiveLock);
	log->index_info = BuildIndexInfo(log->index);
	log->natts = RelationGetDescr(rel)->natts - LOG_FIXED_COLUMNS;
	/* a copy of the descriptor: no reference that a resource owner counts */
	log->slot =
		MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)), &TTSOpsVirtual);
	list_free(indexes);
	return log;
}

/* The locks stay until the transaction ends. */
void
changelog_close(ChangeLog *log)
{
	ExecDropSingleTupleTableSlot(log->slot);
	index_close(log->index, NoLock);
	table_close(log->rel, NoLock);
	pfree(log);
}

/*
 * A log that is drained uses its blocks again.  One that reaches so many (8 MB, some
 * 100,000 changes), and then each time that it has doubled, is worth a look.
 */
#define FIRST_LARGE_BLOCK 1024

/* Is this the first entry of such a block? */
static bool
is_milestone(ItemPointer tid)
{
	BlockNumber block = ItemPointerGetBlockNumberNoCheck(tid);

	return ItemPointerGetOffsetNumberNoCheck(tid) == FirstOffsetNumber &&
		   block >= FIRST_LARGE_BLOCK && (block & (block - 1)) == 0;
}

/*
 * Append an entry; natts values as LogColumns says.  Memory that this takes is
 * CurrentMemoryContext's: the caller's, of one row.
 */
bool
changelog_append(ChangeLog *log, Datum *values, bool *isnull)
{
	TupleTableSlot *slot = log->slot;
	bool milestone;

	ExecClearTuple(slot);
	slot->tts_values[0] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	slot->tts_values[1] = Int64GetDatum(++entry_counter);
	slot->tts_isnull[0] = false;
	slot->tts_isnull[1] = false;
	memcpy(slot->tts_values + LOG_FIXED_COLUMNS, values, log->natts * sizeof(Datum));
	memcpy(slot->tts_isnull + LOG_FIXED_COLUMNS, isnull, log->natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);

	table_tuple_insert(log->rel, slot, GetCurrentCommandId(true), 0, NULL);

	/* unique by construction: nothing to check, and so nothing to wait for */
	(void) index_insert(log->index, slot->tts_values, slot->tts_isnull, &slot->tts_tid, log->rel,
						UNIQUE_CHECK_NO, false, log->index_info);
	milestone = is_milestone(&slot->tts_tid);
	ExecClearTuple(slot);
	return milestone;
}

/* ------------------------------------------------------------------------
 * For others
 * ------------------------------------------------------------------------
 */

/*
 * {"id": 1, "day": "2026-01-01"}: as row_to_json() gives it.  Runs the output
 * functions of the columns' types.
 */
Jsonb *
changelog_identity(Oid relid, int natts, const AttrNumber *attnums, const Datum *values)
{
	Relation rel = table_open(relid, AccessShareLock);
	TupleDesc desc = CreateTemplateTupleDesc(natts);
	bool *isnull = palloc0(natts * sizeof(bool));
	HeapTuple tuple;
	Datum json;
	int i;

	for (i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnums[i] - 1);

		TupleDescInitEntry(desc, i + 1, NameStr(att->attname), att->atttypid, att->atttypmod, 0);
	}
	table_close(rel, AccessShareLock);
	desc = BlessTupleDesc(desc);
	tuple = heap_form_tuple(desc, (Datum *) values, isnull);
	json = DirectFunctionCall1(row_to_json, HeapTupleGetDatum(tuple));
	return json_parse(TextDatumGetCString(json));
}
