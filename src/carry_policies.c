/*-------------------------------------------------------------------------
 *
 * carry_policies.c
 *	  Row-level security: policies, and whether it is enabled and forced.
 *
 * Policies stand on both tables and are made on the back table before the swap.
 * One whose expressions read the table itself, in a subquery, can't be: its text
 * would mean the front table.  It is read before the renames and made after them,
 * when the name is the back table's.
 *
 * The flags are copied in the swap, with the privileges: before it nobody has
 * any on the back table.  Partitions get neither: who goes by the partitioned
 * table meets its policies alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "carry_statements.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	return carry_by_statements(m, direction, "carry_policies", look_only);
}

typedef struct Collected
{
	bool exact;
	char *statements; /* "CREATE POLICY ...; ..." for those that read the table itself, or NULL */
} Collected;

static void *
collect(Migration *m, Direction direction)
{
	Collected *collected = palloc(sizeof(Collected));
	UserSwitch user;

	collected->exact = carry_is_exact(m, direction);
	user_switch_superuser(&user);
	collected->statements = sql_text("SELECT pg_catalog.string_agg(statement, '; ')"
									 " FROM migrate_ext.carry_own_policies(%u, %u)",
									 front_of(m, direction), back_of(m, direction));
	user_switch_back(&user);
	return collected;
}

static void
copy_flags(Oid front, Oid back, bool exact)
{
	Relation classes = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple from = SearchSysCache1(RELOID, ObjectIdGetDatum(front));
	HeapTuple to = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(back));
	Form_pg_class is = (Form_pg_class) GETSTRUCT(to);
	Form_pg_class wanted = (Form_pg_class) GETSTRUCT(from);
	bool enabled = wanted->relrowsecurity || (!exact && is->relrowsecurity);
	bool forced = wanted->relforcerowsecurity || (!exact && is->relforcerowsecurity);

	if (is->relrowsecurity != enabled || is->relforcerowsecurity != forced)
	{
		is->relrowsecurity = enabled;
		is->relforcerowsecurity = forced;
		CatalogTupleUpdate(classes, &to->t_self, to);
	}
	ReleaseSysCache(from);
	heap_freetuple(to);
	table_close(classes, NoLock);
	CommandCounterIncrement();
}

static void
move(Migration *m, Direction direction, void *arg)
{
	Collected *collected = arg;
	Oid back = back_of(m, direction);
	UserSwitch user;

	if (collected->statements != NULL)
	{
		user_switch_owner(&user, relinfo_owner(back));
		(void) sql_run("%s", collected->statements);
		user_switch_back(&user);
	}
	copy_flags(front_of(m, direction), back, collected->exact);
}

const Carrier carry_policies = {"policies", prepare, collect, move};
