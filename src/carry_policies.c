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
#include "utils/rel.h"
#include "utils/syscache.h"

#include "carry_kinds.h"
#include "carry_statements.h"
#include "relinfo.h"

static bool
prepare(Migration *m, Direction direction, bool look_only)
{
	static SPIPlanPtr plan = NULL;

	return carry_by_statements(m, direction, "carry_policies", &plan, look_only);
}

typedef struct Collected
{
	bool exact;
	List *statements; /* "CREATE POLICY ..." for those that read the table itself; of char * */
} Collected;

static void *
collect(Migration *m, Direction direction)
{
	static SPIPlanPtr plan = NULL;
	Collected *collected = palloc(sizeof(Collected));

	collected->exact = carry_is_exact(m, direction);
	collected->statements =
		carry_texts(&plan, "SELECT statement FROM migrate_ext.carry_own_policies($1, $2)",
					front_of(m, direction), back_of(m, direction));
	return collected;
}

/* Set the flags in a copy of the back table's row; true if they were others. */
static bool
set_flags(Oid front, Form_pg_class back, bool exact)
{
	HeapTuple from = SearchSysCache1(RELOID, ObjectIdGetDatum(front));
	Form_pg_class wanted = (Form_pg_class) GETSTRUCT(from);
	bool enabled = wanted->relrowsecurity || (!exact && back->relrowsecurity);
	bool forced = wanted->relforcerowsecurity || (!exact && back->relforcerowsecurity);
	bool others = back->relrowsecurity != enabled || back->relforcerowsecurity != forced;

	back->relrowsecurity = enabled;
	back->relforcerowsecurity = forced;
	ReleaseSysCache(from);
	return others;
}

static void
copy_flags(Migration *m, Oid front, Oid back, bool exact)
{
	Relation classes = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple to = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(back));

	if (set_flags(front, (Form_pg_class) GETSTRUCT(to), exact))
	{
		CatalogTupleUpdate(classes, &to->t_self, to);
		carry_tell(m, "row-level security");
	}
	heap_freetuple(to);
	table_close(classes, NoLock);
	CommandCounterIncrement();
}

static void
move(Migration *m, Direction direction, void *arg)
{
	Collected *collected = arg;
	Oid back = back_of(m, direction);
	ListCell *lc;

	foreach (lc, collected->statements)
	{
		carry_run(relinfo_owner(back), lfirst(lc));
		carry_tell(m, lfirst(lc));
	}
	copy_flags(m, front_of(m, direction), back, collected->exact);
}

static void
plan_flags(MigrationPlan *plan, bool exact)
{
	Migration *m = plan->m;
	HeapTuple to = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(m->target));
	Form_pg_class class = (Form_pg_class) GETSTRUCT(to);

	if (set_flags(m->source, class, exact))
		plan_add(plan,
				 psprintf("ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY",
						  plan_relation(plan, m->target),
						  class->relrowsecurity ? "ENABLE" : "DISABLE",
						  class->relforcerowsecurity ? "FORCE" : "NO FORCE"),
				 plan_swap_lock(plan), PLAN_EQUIVALENT);
	heap_freetuple(to);
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	Collected *collected;

	if (part == CARRY_PREPARE)
		carry_plan_statements(plan, "carry_policies");
	if (part != CARRY_MOVE)
		return;
	collected = collect(plan->m, DIRECTION_FORWARD);
	plan_add_all_ddl(plan, collected->statements, PLAN_IN_SWAP);
	plan_flags(plan, collected->exact);
}

const Carrier carry_policies = {
	.name = "policies", .prepare = prepare, .collect = collect, .move = move, .plan = plan_part};
