/*-------------------------------------------------------------------------
 *
 * monitor.c
 *	  What the views show and SQL can't tell by itself.
 *
 * A function in a view runs with the rights of whoever reads the view.  So each
 * of these looks for itself whether the caller may see the migration, and
 * returns NULL if not, as the view would leave out its row.
 *
 * Who looks at a view must never have to wait: where a table is locked
 * exclusively, its count is NULL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "batch.h"
#include "catalog.h"
#include "catalog_spi.h"
#include "changelog.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"

PG_FUNCTION_INFO_V1(migrate_ext_log_entries);
PG_FUNCTION_INFO_V1(migrate_ext_default_rows);
PG_FUNCTION_INFO_V1(migrate_ext_leader);
PG_FUNCTION_INFO_V1(migrate_ext_workers);
PG_FUNCTION_INFO_V1(migrate_ext_is_granted);

/*
 * Counting rows one by one ends here, a few milliseconds; beyond it the
 * planner's estimate is told.
 */
#define MAX_COUNTED 100000

/*
 * Is SELECT on this view of ours granted to the caller, or to a role whose rights he
 * has, by name?  PUBLIC has it as well, so that owners see their own migrations there.
 */
static bool
is_granted(const char *view)
{
	Oid schema = get_namespace_oid("migrate_ext", true);
	Oid relid = OidIsValid(schema) ? get_relname_relid(view, schema) : InvalidOid;
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Datum grants;
	bool granted = false;
	bool isnull = true;

	if (!HeapTupleIsValid(tuple))
		return false;
	grants = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	if (!isnull)
	{
		Acl *acl = DatumGetAclPCopy(grants);
		AclItem *item = ACL_DAT(acl);

		for (int i = 0; i < ACL_NUM(acl) && !granted; i++)
			granted = item[i].ai_grantee != ACL_ID_PUBLIC &&
					  (ACLITEM_GET_PRIVS(item[i]) & ACL_SELECT) != 0 &&
					  has_privs_of_role(GetUserId(), item[i].ai_grantee);
	}
	ReleaseSysCache(tuple);
	return granted;
}

/* The migration, or NULL if the caller may not see it: these functions stand in "progress". */
static Migration *
visible_migration(FunctionCallInfo fcinfo)
{
	Migration *m = PG_ARGISNULL(0) ? NULL : catalog_load(PG_GETARG_INT64(0), false);

	return m != NULL && (catalog_is_visible(m) || is_granted("progress")) ? m : NULL;
}

/* A lock that lets us count, if it can be had at once. */
static bool
try_lock(Oid relid)
{
	return OidIsValid(relid) && ConditionalLockRelationOid(relid, AccessShareLock) &&
		   get_rel_name(relid) != NULL;
}

static int64
estimated_rows(Oid relid)
{
	return sql_int64("SELECT GREATEST(reltuples, 0)::int8 FROM pg_catalog.pg_class WHERE oid = %u",
					 relid);
}

/* ------------------------------------------------------------------------
 * Functions
 * ------------------------------------------------------------------------
 */

/* is_granted(view): see above */
Datum
migrate_ext_is_granted(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!PG_ARGISNULL(0) && is_granted(TextDatumGetCString(PG_GETARG_DATUM(0))));
}

/* log_entries(migration id): not drained yet, up to 100,000 */
Datum
migrate_ext_log_entries(PG_FUNCTION_ARGS)
{
	Migration *m = visible_migration(fcinfo);
	UserSwitch user;
	int64 entries;

	if (m == NULL)
		PG_RETURN_NULL();
	if (!OidIsValid(m->log))
		PG_RETURN_INT64(0);
	if (!try_lock(m->log))
		PG_RETURN_NULL();
	user_switch_superuser(&user);
	entries = changelog_pending(m, MAX_COUNTED);
	user_switch_back(&user);
	PG_RETURN_INT64(entries);
}

/* Count one partition: exactly as far as that is cheap. */
static int64
count_rows(Oid relid)
{
	int64 rows = relinfo_rows(relid, MAX_COUNTED);

	return rows < MAX_COUNTED ? rows : Max(rows, estimated_rows(relid));
}

/*
 * Default partitions below relid, of all levels; false if one can't be looked
 * at now.  Told by catalogs alone, and counted without a query: no expression
 * of the owner's is evaluated for whoever looks, and none can fail.
 */
static bool
count_default_rows(Oid relid, int64 *rows)
{
	Oid default_partition;
	ListCell *lc;

	if (!try_lock(relid))
		return false;
	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return true;
	default_partition = get_default_partition_oid(relid);
	if (OidIsValid(default_partition) && get_rel_relkind(default_partition) == RELKIND_RELATION)
	{
		if (!try_lock(default_partition))
			return false;
		*rows += count_rows(default_partition);
	}
	foreach (lc, find_inheritance_children_extended(relid, false, NoLock, NULL, NULL))
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_PARTITIONED_TABLE &&
			!count_default_rows(lfirst_oid(lc), rows))
			return false;
	return true;
}

/* default_rows(migration id): rows in the target's default partitions */
Datum
migrate_ext_default_rows(PG_FUNCTION_ARGS)
{
	Migration *m = visible_migration(fcinfo);
	UserSwitch user;
	int64 rows = 0;
	bool counted;

	if (m == NULL)
		PG_RETURN_NULL();
	user_switch_superuser(&user);
	counted = count_default_rows(m->target, &rows);
	user_switch_back(&user);
	if (!counted)
		PG_RETURN_NULL();
	PG_RETURN_INT64(rows);
}

/* leader(migration id): its process id, NULL if there is none */
Datum
migrate_ext_leader(PG_FUNCTION_ARGS)
{
	Migration *m = visible_migration(fcinfo);
	int pid = m ? leader_pid(m->id) : 0;

	if (pid == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(pid);
}

/*
 * workers(migration id): processes that are at work on it: the leader, and
 * those that hold the lease of a batch.
 */
Datum
migrate_ext_workers(PG_FUNCTION_ARGS)
{
	Migration *m = visible_migration(fcinfo);
	Oid types[] = {INT8OID, INT4OID};
	Datum values[2];
	Datum helpers;
	int leader;
	bool isnull;

	if (m == NULL)
		PG_RETURN_NULL();
	leader = leader_pid(m->id);
	values[0] = Int64GetDatum(m->id);
	values[1] = Int32GetDatum(leader);
	helpers = catalog_scalar("SELECT pg_catalog.count(DISTINCT b.pid) FROM migrate_ext.batch b"
							 " JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid"
							 " WHERE b.migration = $1 AND b.state = 'running' AND b.pid <> $2"
							 " AND a.backend_start <= b.started_at",
							 2, types, values, &isnull);
	PG_RETURN_INT32((leader != 0 ? 1 : 0) + (int32) DatumGetInt64(helpers));
}
