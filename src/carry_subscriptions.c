/*-------------------------------------------------------------------------
 *
 * carry_subscriptions.c
 *	  Subscriptions that feed the table.
 *
 * The entry in pg_subscription_rel keeps its state and position and names the
 * other table.  An apply worker finds its table by name, once: it remembers the
 * OID until the relation is invalidated, which a rename does, and checks that
 * after it has got the lock.  So one that waits for the swap comes out at the
 * table of that name; and after its next restart it finds the entry of that
 * table, without which it would pass over all changes in silence.  Entries that
 * are not ready yet have a worker of their own, by OID: an error of preflight.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "carry_subscriptions.h"
#include "catalog.h"
#include "compat.h"
#include "relinfo.h"
#include "sqlgen.h"

/* Copies of the entries of a table; List of HeapTuple. */
static List *
find_entries(Relation entries, Oid relid)
{
	return relinfo_catalog_rows(entries, SubscriptionRelSrrelidSrsubidIndexId,
								Anum_pg_subscription_rel_srrelid, relid);
}

static const char *
name_of(const Form_pg_subscription_rel entry)
{
	return quote_identifier(get_subscription_name(entry->srsubid, false));
}

/* Against ALTER and DROP SUBSCRIPTION, which may be changing the entries. */
static void
move_entry(Migration *m, Relation entries, HeapTuple tuple, Oid to)
{
	Form_pg_subscription_rel entry = (Form_pg_subscription_rel) GETSTRUCT(tuple);

	LockSharedObject(SubscriptionRelationId, entry->srsubid, 0, AccessShareLock);
	entry->srrelid = to;
	CatalogTupleUpdate(entries, &tuple->t_self, tuple);
	event_add(m, "subscribed", NULL, "subscription %s feeds %s from now on", name_of(entry),
			  sql_relation(to));
}

static void
move_subscriptions(Migration *m, Direction direction, void *collected)
{
	Relation entries = table_open(SubscriptionRelRelationId, RowExclusiveLock);
	ListCell *lc;

	foreach (lc, find_entries(entries, front_of(m, direction)))
		move_entry(m, entries, lfirst(lc), back_of(m, direction));
	table_close(entries, RowExclusiveLock);
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	Relation entries;
	ListCell *lc;

	if (part != CARRY_MOVE)
		return;
	entries = table_open(SubscriptionRelRelationId, AccessShareLock);
	foreach (lc, find_entries(entries, plan->m->source))
		carry_plan_follows(plan,
						   psprintf("subscription %s", name_of((Form_pg_subscription_rel) GETSTRUCT(
														   (HeapTuple) lfirst(lc)))),
						   "feeds");
	table_close(entries, AccessShareLock);
}

const Carrier carry_subscriptions = {
	.name = "subscriptions", .move = move_subscriptions, .plan = plan_part};
