/*-------------------------------------------------------------------------
 *
 * enforce_key.c
 *	  enforce_key(): a column becomes NOT NULL without a long lock.
 *
 *	1. rows without a value are counted: there must be none;
 *	2. a check constraint is added NOT VALID: from then on none can come
 *	   (ACCESS EXCLUSIVE for a moment);
 *	3. it is validated, which reads the table (SHARE UPDATE EXCLUSIVE: everybody
 *	   reads and writes);
 *	4. SET NOT NULL, which reads nothing since the check proves it, and the check
 *	   goes again (ACCESS EXCLUSIVE for a moment).
 *
 * Each step is a transaction of its own, in bounded attempts at its lock, and is
 * passed over where it has been done: by a call that was interrupted, or by the
 * user, whose own check serves as well and stays.  Two calls at a time find each
 * other's work.  The check is known again by its name and definition.
 *
 * Should validation find a row that came between 1. and 2., the check goes again
 * and the call says so.
 *
 * A migration to a partitioned table compares the columns with what they were: so
 * the new shape is recorded in the transaction that makes it.  The migration's row
 * is locked before the table, for the reason told in swap_transaction.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "arguments.h"
#include "attempt.h"
#include "catalog.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "debug_point.h"
#include "errors.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(migrate_ext_enforce_key);

/* Attempts at a lock go on for so long. */
#define ENFORCE_TIMEOUT_MS (5 * 60 * 1000)

/* After the column's name: what our check is called. */
#define CHECK_SUFFIX "_migrate_ext_not_null"

/* A call under way. */
typedef struct Enforcement
{
	Run *run; /* of no migration */
	Oid relid;
	char *table; /* for messages */
	char *column;
	char *check;	  /* the name of ours */
	char *definition; /* as the catalog tells it */
	TimestampTz deadline;
	int attempts;

	/* as last seen, see look() */
	bool not_null;
	bool proven; /* there is a valid check */
	bool ours;	 /* ours is there */
	int64 nulls;
} Enforcement;

/* ------------------------------------------------------------------------
 * Transactions
 * ------------------------------------------------------------------------
 */

/* The limits of the table's migration, or those of the server. */
static void
limit_locks(Oid relid)
{
	Migration none = {.settings = NULL};
	Migration *m = catalog_of_table(relid);

	limit_lock_waits(m != NULL ? m : &none);
}

/* The column's number; 42703 if there is none. */
static AttrNumber
find_column(const Enforcement *e)
{
	AttrNumber attnum = get_attnum(e->relid, e->column);

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", e->column, e->table),
				 errhint("The name is that of the column as it is stored, without quotes.")));
	return attnum;
}

static void
lock_table(Enforcement *e, LOCKMODE lockmode)
{
	limit_locks(e->relid);
	LockRelationOid(e->relid, lockmode);
	if (get_rel_name(e->relid) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table \"%s\" has been dropped meanwhile", e->table)));
	(void) find_column(e);
}

/* One statement on the table with its owner's rights. */
static void
alter(Enforcement *e, const char *action)
{
	UserSwitch save;

	user_switch_owner(&save, relinfo_owner(e->relid));
	limit_locks(e->relid); /* of partitions, which are locked on the way */
	(void) sql_run("ALTER TABLE %s %s", sql_relation(e->relid), action);
	user_switch_back(&save);
}

/* What has been done already; the table is locked. */
static void
look(Enforcement *e)
{
	HeapTuple tuple = SearchSysCacheAttName(e->relid, e->column);
	char *found;

	e->not_null = HeapTupleIsValid(tuple) && ((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	e->proven =
		sql_int64("SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint WHERE conrelid = %u"
				  " AND contype = 'c' AND convalidated AND NOT connoinherit"
				  " AND pg_catalog.pg_get_expr(conbin, conrelid) = %s",
				  e->relid, quote_literal_cstr(e->definition)) > 0;
	found = sql_text("SELECT CASE WHEN contype = 'c' THEN pg_catalog.pg_get_expr(conbin, conrelid)"
					 " ELSE '' END FROM pg_catalog.pg_constraint WHERE conrelid = %u"
					 " AND conname = %s",
					 e->relid, quote_literal_cstr(e->check));
	e->ours = found != NULL && strcmp(found, e->definition) == 0;
	if (found != NULL && !e->ours)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("constraint \"%s\" of table \"%s\" is in the way", e->check, e->table),
				 errdetail("It is not CHECK %s.", e->definition), errhint("Rename or drop it.")));
}

/* The body of an attempt; as are those that follow. */
static void
look_body(Run *run, void *arg)
{
	Enforcement *e = arg;

	lock_table(e, AccessShareLock);
	look(e);
}

static void
count_body(Run *run, void *arg)
{
	Enforcement *e = arg;
	UserSwitch save;

	lock_table(e, AccessShareLock);
	user_switch_owner(&save, relinfo_owner(e->relid));
	e->nulls = sql_int64("SELECT pg_catalog.count(*) FROM %s WHERE %s IS NULL",
						 sql_relation(e->relid), quote_identifier(e->column));
	user_switch_back(&save);
}

static void
add_body(Run *run, void *arg)
{
	Enforcement *e = arg;

	lock_table(e, AccessExclusiveLock);
	look(e);
	if (!e->ours && !e->proven && !e->not_null)
		alter(e, psprintf("ADD CONSTRAINT %s CHECK (%s IS NOT NULL) NOT VALID",
						  quote_identifier(e->check), quote_identifier(e->column)));
}

static void
validate_body(Run *run, void *arg)
{
	Enforcement *e = arg;

	lock_table(e, ShareUpdateExclusiveLock);
	look(e);
	if (e->ours && !e->proven)
		alter(e, psprintf("VALIDATE CONSTRAINT %s", quote_identifier(e->check)));
}

static void
drop_body(Run *run, void *arg)
{
	Enforcement *e = arg;

	lock_table(e, AccessExclusiveLock);
	look(e);
	if (e->ours)
		alter(e, psprintf("DROP CONSTRAINT %s", quote_identifier(e->check)));
}

/* The unfinished migration of the table, its row locked; or NULL. */
static Migration *
lock_migration(Oid relid)
{
	Migration *m = catalog_of_table(relid);

	return m != NULL ? catalog_load(m->id, true) : NULL;
}

/* Its other table may stay as it is: the column isn't what that is partitioned by. */
static void
tell_other_side(Enforcement *e, Migration *m)
{
	Oid other = m->source == e->relid ? m->target : m->source;
	HeapTuple tuple = SearchSysCacheAttName(other, e->column);
	bool nullable = HeapTupleIsValid(tuple) && !((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (nullable)
		ereport(NOTICE, (errmsg("column \"%s\" of table \"%s\" may still be null", e->column,
								get_rel_name(other)),
						 errdetail("It is the other table of migration \"%s\".", m->name)));
}

/*
 * SET NOT NULL where a valid check proves it, and the end of ours; else nothing,
 * and the caller sees so.  A migration that somebody begins while we wait for the
 * lock is found only after it: then everything is tried again.
 */
static void
set_body(Run *run, void *arg)
{
	Enforcement *e = arg;
	Migration *m = lock_migration(e->relid);
	Migration *now;
	bool source_same;
	bool target_same;

	lock_table(e, AccessExclusiveLock);
	now = catalog_of_table(e->relid);
	if ((now == NULL) != (m == NULL) || (now != NULL && now->id != m->id))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("a migration of table \"%s\" was begun or ended meanwhile", e->table)));
	look(e);
	if (!e->proven || e->not_null)
		return;
	source_same = m != NULL && m->source == e->relid && m->source_shape != NULL &&
				  strcmp(m->source_shape, relinfo_shape(e->relid)) == 0;
	target_same = m != NULL && m->target == e->relid && m->target_shape != NULL &&
				  strcmp(m->target_shape, relinfo_target_shape(e->relid)) == 0;
	alter(e, psprintf("ALTER COLUMN %s SET NOT NULL", quote_identifier(e->column)));
	if (e->ours)
		alter(e, psprintf("DROP CONSTRAINT %s", quote_identifier(e->check)));
	CommandCounterIncrement();
	if (source_same)
		m->source_shape = relinfo_shape(e->relid);
	if (target_same)
		m->target_shape = relinfo_target_shape(e->relid);
	if (source_same || target_same)
		catalog_save_shapes(m);
	e->not_null = true;
	if (m != NULL)
		tell_other_side(e, m);
	ME_DEBUG_POINT("enforce_before_commit");
}

/* ------------------------------------------------------------------------
 * Steps
 * ------------------------------------------------------------------------
 */

static void
check_deadline(Enforcement *e, const char *why)
{
	if (GetCurrentTimestamp() < e->deadline)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_MIGRATION_TIMEOUT),
		 errmsg("time is up: column \"%s\" of table \"%s\" may still be null", e->column, e->table),
		 errdetail("%s%s", why,
				   e->ours ? "The check that forbids new ones stays." : "Nothing has changed."),
		 errhint("Call migrate_ext.enforce_key again at a quieter time: it goes on "
				 "from there.")));
}

/*
 * Attempts until the lock is had; MX002 after the deadline.  Any other error is
 * returned, NULL if there was none.
 */
static ErrorData *
try_step(Enforcement *e, RunBody body)
{
	for (;;)
	{
		ErrorData *error = NULL;

		if (run_attempt(e->run, body, e, &error))
			return NULL;
		if (!attempt_is_lock_failure(error))
			return error;
		check_deadline(e, psprintf("Last error: %s. ", error->message));
		attempt_back_off(e->run, e->attempts++, e->deadline);
		MemoryContextReset(e->run->scratch);
	}
}

static void
do_step(Enforcement *e, RunBody body)
{
	ErrorData *error = try_step(e, body);

	if (error != NULL)
		ReThrowError(error);
}

static void
refuse_nulls(Enforcement *e, bool came_meanwhile)
{
	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 errmsg("column \"%s\" of table \"%s\" contains null values", e->column, e->table),
			 came_meanwhile
				 ? errdetail(INT64_FORMAT " row%s without a value, written meanwhile; the check "
										  "constraint was removed again.",
							 e->nulls, e->nulls == 1 ? " is" : "s are")
				 : errdetail(INT64_FORMAT " row%s no value.", e->nulls,
							 e->nulls == 1 ? " has" : "s have"),
			 errhint("migrate_ext.backfill_key fills a sharding key, and add_sharding_key with "
					 "fill keeps it filled.")));
}

/* 1. to 3. of the file's head. */
static void
prove(Enforcement *e)
{
	ErrorData *error;

	do_step(e, count_body);
	if (e->nulls > 0)
	{
		if (e->ours)
			do_step(e, drop_body);
		refuse_nulls(e, false);
	}
	ME_DEBUG_POINT("enforce_after_count");
	do_step(e, add_body);
	ME_DEBUG_POINT("enforce_after_add");
	error = try_step(e, validate_body);
	if (error == NULL)
		return;
	if (error->sqlerrcode != ERRCODE_CHECK_VIOLATION)
		ReThrowError(error);
	do_step(e, drop_body);
	do_step(e, count_body);
	refuse_nulls(e, true);
}

static void
enforce(Enforcement *e)
{
	do_step(e, look_body);
	if (e->not_null)
		ereport(NOTICE,
				(errmsg("column \"%s\" of table \"%s\" is NOT NULL already", e->column, e->table)));
	/* again where somebody takes away what was made */
	while (!e->not_null)
	{
		check_deadline(e, "");
		if (!e->proven)
			prove(e);
		ME_DEBUG_POINT("enforce_after_validate");
		do_step(e, set_body);
		MemoryContextReset(e->run->scratch);
	}
	if (e->ours)
		do_step(e, drop_body);
}

/* 42P01, 42809, 42501, 42703, 0A000: in the CALL's own transaction. */
static void
check_request(Enforcement *e)
{
	Relation rel = relinfo_open(e->relid);

	e->table = pstrdup(RelationGetRelationName(rel));
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a table", e->table),
				 errdetail_relkind_not_supported(rel->rd_rel->relkind)));
	if (!object_ownercheck(RelationRelationId, e->relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, e->table);
	if (type_is_rowtype(get_atttype(e->relid, find_column(e))))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("column \"%s\" of table \"%s\" is of a composite type", e->column,
							   e->table),
						errdetail("For those, IS NOT NULL says more than NOT NULL.")));
	relation_close(rel, NoLock);
}

/* CALL enforce_key(source, column_name) */
Datum
migrate_ext_enforce_key(PG_FUNCTION_ARGS)
{
	Enforcement e = {.relid = InvalidOid};
	MemoryContext context;

	argument_require(fcinfo, 0, "source");
	e.relid = PG_GETARG_OID(0);
	e.column = argument_text(fcinfo, 1, "column_name");
	argument_require_nonatomic(fcinfo, "migrate_ext.enforce_key()");
	argument_require_writable("migrate_ext.enforce_key()");
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not connect to the server programming interface")));
	context = AllocSetContextCreate(PortalContext, "migrate_ext call", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	e.column = pstrdup(e.column);
	check_request(&e);
	e.check = name_make(e.column, CHECK_SUFFIX);
	e.definition = psprintf("(%s IS NOT NULL)", quote_identifier(e.column));
	e.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ENFORCE_TIMEOUT_MS);
	e.run = run_create(0, true);
	SPI_commit();
	enforce(&e);
	SPI_finish();
	PG_RETURN_VOID();
}
