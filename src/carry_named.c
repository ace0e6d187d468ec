/*-------------------------------------------------------------------------
 *
 * carry_named.c
 *	  What names the table in a stored expression or query, and what is of its
 *	  row type.
 *
 *		views, materialized views, rules of views and of other tables
 *		rules of the table itself
 *		functions with a body of SQL (BEGIN ATOMIC, RETURN), default arguments
 *		policies, defaults and checks of other tables
 *		functions and columns of views of the table's row type
 *
 * None of them is made anew: the stored tree is changed (retarget.h), so OID,
 * owner, privileges, comment, options and all that hangs on it stay.  A
 * materialized view keeps its rows.  Where that can't be done it is an error of
 * preflight(), which asks migrate_ext_carry_problem() below.
 *
 * Who uses a view reads the view's tree first and locks the table after that; if
 * he then waits for the swap, he goes on with the tree that names the old one.
 * So the swap locks the views as well, and before the tables.  With a function's
 * body it is the same, but functions can't be locked: a call that waited may
 * read the old table, which is as it was when his snapshot was taken, but
 * must not write there: where such functions are, a trigger refuses it
 * (straggler.h).  Nor must it lock rows there, which no trigger sees: such
 * functions are an error of preflight.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_publication_rel.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "rewrite/rewriteSupport.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "carry_named.h"
#include "carry_publications.h"
#include "relinfo.h"
#include "retarget.h"
#include "row_types.h"
#include "straggler.h"

PG_FUNCTION_INFO_V1(migrate_ext_carry_problem);

/* A catalog that keeps trees. */
typedef struct Store
{
	Oid catalog;
	Oid index;			 /* on its oid, which is the first column */
	AttrNumber trees[2]; /* up to two of them */
	AttrNumber relation; /* whose relation it is, or 0 */
} Store;

static const Store stores[] = {
	{RewriteRelationId,
	 RewriteOidIndexId,
	 {Anum_pg_rewrite_ev_action, Anum_pg_rewrite_ev_qual},
	 Anum_pg_rewrite_ev_class},
	{ProcedureRelationId,
	 ProcedureOidIndexId,
	 {Anum_pg_proc_prosqlbody, Anum_pg_proc_proargdefaults},
	 0},
	{PolicyRelationId,
	 PolicyOidIndexId,
	 {Anum_pg_policy_polqual, Anum_pg_policy_polwithcheck},
	 Anum_pg_policy_polrelid},
	{AttrDefaultRelationId,
	 AttrDefaultOidIndexId,
	 {Anum_pg_attrdef_adbin, 0},
	 Anum_pg_attrdef_adrelid},
	{ConstraintRelationId,
	 ConstraintOidIndexId,
	 {Anum_pg_constraint_conbin, 0},
	 Anum_pg_constraint_conrelid},
};

static const Store *
find_store(Oid catalog)
{
	for (int i = 0; i < lengthof(stores); i++)
	{
		if (stores[i].catalog == catalog)
			return &stores[i];
	}
	return NULL;
}

static HeapTuple
fetch(const Store *store, Relation catalog, Oid oid)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(catalog, store->index, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	systable_endscan(scan);
	return tuple;
}

static Oid
relation_of(const Store *store, Relation catalog, HeapTuple tuple)
{
	bool isnull;

	return store->relation == 0 ? InvalidOid
								: DatumGetObjectId(heap_getattr(
									  tuple, store->relation, RelationGetDescr(catalog), &isnull));
}

/* ------------------------------------------------------------------------
 * One object
 * ------------------------------------------------------------------------
 */

/*
 * Is it for us?  Policies, defaults and checks of the table itself have
 * carriers of their own or belong to its columns.
 */
static bool
is_ours(const Store *store, const Retarget *r, Relation catalog, HeapTuple tuple)
{
	bool isnull;

	if (store->catalog == ConstraintRelationId &&
		((Form_pg_constraint) GETSTRUCT(tuple))->contype != CONSTRAINT_CHECK)
		return false;
	if (store->catalog == ProcedureRelationId)
	{
		(void) heap_getattr(tuple, Anum_pg_proc_prosqlbody, RelationGetDescr(catalog), &isnull);
		if (!isnull)
			return true;
		(void) heap_getattr(tuple, Anum_pg_proc_proargdefaults, RelationGetDescr(catalog), &isnull);
		return !isnull;
	}
	return store->catalog == RewriteRelationId || relation_of(store, catalog, tuple) != r->from;
}

/*
 * The object as it is to be, or NULL: r->problem tells why.
 */
static HeapTuple
change(const Store *store, Retarget *r, Relation catalog, HeapTuple tuple)
{
	int natts = RelationGetNumberOfAttributes(catalog);
	Datum *values = palloc0(natts * sizeof(Datum));
	bool *nulls = palloc0(natts * sizeof(bool));
	bool *replaces = palloc0(natts * sizeof(bool));
	Oid relid = relation_of(store, catalog, tuple);
	Oid relations[] = {relid, relid}; /* of a rule: OLD and NEW */
	bool writes = false;
	bool locks = false;

	for (int i = 0; i < lengthof(store->trees) && store->trees[i] != 0; i++)
	{
		AttrNumber column = store->trees[i];
		bool isnull;
		Datum tree = heap_getattr(tuple, column, RelationGetDescr(catalog), &isnull);
		char *changed;

		if (isnull)
			continue;
		changed =
			retarget_tree(r, TextDatumGetCString(tree), store->relation == 0 ? 0 : 2, relations);
		if (changed == NULL)
			return NULL;
		writes |= r->writes;
		locks |= r->locks;
		values[column - 1] = CStringGetTextDatum(changed);
		replaces[column - 1] = true;
	}
	r->writes = writes;
	r->locks = locks;
	if (relid == r->from)
	{
		values[store->relation - 1] = ObjectIdGetDatum(r->to);
		replaces[store->relation - 1] = true;
	}
	return heap_modify_tuple(tuple, RelationGetDescr(catalog), values, nulls, replaces);
}

/* Who has the object in his cache is to read it again. */
static void
invalidate(Oid relid, const Retarget *r)
{
	if (relid == r->from)
	{
		SetRelationRuleStatus(r->to, true);
		CacheInvalidateRelcacheByRelid(r->from);
	}
	else if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

/* A view by its own name: "rule _RETURN on view v" is PostgreSQL's way to have one. */
static char *
described(Oid class, Oid oid, Oid relid, Oid from)
{
	ObjectAddress object = {class, oid, 0};

	if (class == RewriteRelationId && relid != from)
		ObjectAddressSet(object, RelationRelationId, relid);
	return getObjectDescription(&object, false);
}

static void
move_one(Migration *m, Retarget *r, Oid class, Oid oid)
{
	const Store *store = find_store(class);
	Relation catalog = table_open(class, RowExclusiveLock);
	HeapTuple tuple = fetch(store, catalog, oid);

	if (HeapTupleIsValid(tuple) && is_ours(store, r, catalog, tuple))
	{
		Oid relid = relation_of(store, catalog, tuple);
		HeapTuple changed = change(store, r, catalog, tuple);

		if (changed == NULL)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("%s can't be carried over: it %s",
								   getObjectDescription(&(ObjectAddress){class, oid, 0}, false),
								   r->problem)));
		CatalogTupleUpdate(catalog, &tuple->t_self, changed);
		retarget_dependencies(r, class, oid);
		invalidate(relid, r);
		carry_tell(m, described(class, oid, relid, r->from));
	}
	table_close(catalog, RowExclusiveLock);
}

/* ------------------------------------------------------------------------
 * All of them
 * ------------------------------------------------------------------------
 */

typedef struct Named
{
	Oid class;
	Oid oid;
} Named;

/* What depends on the table and stands in one of our stores. */
static List *
find_named(Oid relid)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	List *result = NIL;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);
		bool known = find_store(dep->classid) == NULL;
		ListCell *lc;

		foreach (lc, result)
		{
			Named *named = lfirst(lc);

			known |= named->class == dep->classid && named->oid == dep->objid;
		}
		if (!known)
		{
			Named *named = palloc(sizeof(Named));

			named->class = dep->classid;
			named->oid = dep->objid;
			result = lappend(result, named);
		}
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return result;
}

/* What has to stand still while a tree that belongs to the relation is changed. */
static LOCKMODE
lock_mode(Oid class, char relkind)
{
	if (class != RewriteRelationId || relkind == RELKIND_MATVIEW)
		return AccessShareLock; /* only against DDL: who reads it does not write */
	return relkind == RELKIND_VIEW ? AccessExclusiveLock : ShareRowExclusiveLock;
}

static List *
named_locks(Migration *m, Direction direction, bool ahead)
{
	Oid front = front_of(m, direction);
	List *locks = NIL;
	ListCell *lc;

	foreach (lc, find_named(front))
	{
		Named *named = lfirst(lc);
		const Store *store = find_store(named->class);
		Relation catalog = table_open(named->class, AccessShareLock);
		HeapTuple tuple = fetch(store, catalog, named->oid);
		Oid relid = HeapTupleIsValid(tuple) ? relation_of(store, catalog, tuple) : InvalidOid;

		table_close(catalog, AccessShareLock);
		if (OidIsValid(relid) && relid != front && relid != back_of(m, direction))
			locks = carry_add_lock(locks, relid, lock_mode(named->class, get_rel_relkind(relid)));
	}
	return locks;
}

/* Does a function's body write to the table? */
static bool
is_written(Retarget *r, const Named *named)
{
	const Store *store = find_store(named->class);
	Relation catalog;
	HeapTuple tuple;
	bool writes;

	if (named->class != ProcedureRelationId)
		return false;
	catalog = table_open(named->class, AccessShareLock);
	tuple = fetch(store, catalog, named->oid);
	writes = HeapTupleIsValid(tuple) && is_ours(store, r, catalog, tuple) &&
			 change(store, r, catalog, tuple) != NULL && r->writes;
	table_close(catalog, AccessShareLock);
	return writes;
}

/* Does any? */
static bool
is_written_by_functions(Oid front, Oid back)
{
	Retarget *r = NULL;
	ListCell *lc;

	foreach (lc, find_named(front))
	{
		if (r == NULL)
			r = retarget_create(front, back);
		if (is_written(r, lfirst(lc)))
			return true;
	}
	return false;
}

/* Where functions write to the table, a trigger on each of both. */
static bool
prepare_named(Migration *m, Direction direction, bool look_only)
{
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);

	if (straggler_is_in_place(front, false) && straggler_is_in_place(back, true))
		return true;
	if (!is_written_by_functions(front, back))
		return true;
	if (look_only)
		return false;
	if (!straggler_is_in_place(front, false))
		straggler_put(front, false);
	else
		straggler_put(back, true);
	return false;
}

static void
move_named(Migration *m, Direction direction, void *collected)
{
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	Retarget *r = retarget_create(front, back);
	ListCell *lc;

	straggler_switch(front, true);
	straggler_switch(back, false);
	if (retarget_exchanges_types(r))
		row_types_exchange(front, back);
	foreach (lc, find_named(front))
	{
		Named *named = lfirst(lc);

		move_one(m, r, named->class, named->oid);
		CommandCounterIncrement(); /* a table's next rule changes the same row of pg_class */
	}
}

/* ------------------------------------------------------------------------
 * For plan()
 * ------------------------------------------------------------------------
 */

bool
carry_named_has_straggler(const Migration *m)
{
	return relinfo_trigger_state(m->source, STRAGGLER_TRIGGER_NAME) != '\0' ||
		   (m->state < STATE_SWAPPED && is_written_by_functions(m->source, m->target));
}

static bool
is_moved(const Retarget *r, const Named *named)
{
	const Store *store = find_store(named->class);
	Relation catalog = table_open(named->class, AccessShareLock);
	HeapTuple tuple = fetch(store, catalog, named->oid);
	bool result = HeapTupleIsValid(tuple) && is_ours(store, r, catalog, tuple);

	table_close(catalog, AccessShareLock);
	return result;
}

static void
plan_moves(MigrationPlan *plan)
{
	Migration *m = plan->m;
	Retarget *r = retarget_create(m->source, m->target);
	ListCell *lc;

	if (retarget_exchanges_types(r))
		plan_add(plan,
				 psprintf("-- %s and %s exchange their row types", plan_relation(plan, m->target),
						  plan_relation(plan, m->source)),
				 plan_swap_lock(plan), PLAN_EQUIVALENT);
	foreach (lc, find_named(m->source))
	{
		Named *named = lfirst(lc);
		ObjectAddress object = {named->class, named->oid, 0};

		if (is_moved(r, named))
			carry_plan_follows(plan, getObjectDescription(&object, false), "names");
	}
}

static void
plan_part(MigrationPlan *plan, CarryPart part)
{
	Migration *m = plan->m;

	if (part == CARRY_PREPARE && is_written_by_functions(m->source, m->target))
	{
		plan_add_all_ddl(plan, straggler_put_sql(m->source, false), NULL);
		plan_add_all_ddl(
			plan, straggler_put_sql(m->target, true),
			"refuses what a function that waited for the swap writes to the table that "
			"is not in use");
	}
	if (part != CARRY_MOVE)
		return;
	if (carry_named_has_straggler(m))
	{
		plan_add_ddl(plan, straggler_switch_sql(plan_relation(plan, m->source), true),
					 PLAN_IN_SWAP);
		plan_add_ddl(plan, straggler_switch_sql(plan_relation(plan, m->target), false),
					 PLAN_IN_SWAP);
	}
	plan_moves(plan);
}

const Carrier carry_named = {.name = "named",
							 .prepare = prepare_named,
							 .locks = named_locks,
							 .move = move_named,
							 .plan = plan_part};

/* ------------------------------------------------------------------------
 * For preflight
 * ------------------------------------------------------------------------
 */

/* A rule of the table itself would meet one of the same name. */
static bool
meets_rule(const Retarget *r, HeapTuple tuple)
{
	Form_pg_rewrite rule = (Form_pg_rewrite) GETSTRUCT(tuple);

	return rule->ev_class == r->from && SearchSysCacheExists2(RULERELNAME, ObjectIdGetDatum(r->to),
															  NameGetDatum(&rule->rulename));
}

static char *
problem_of_object(Retarget *r, Oid class, Oid oid)
{
	const Store *store = find_store(class);
	Relation catalog;
	HeapTuple tuple;
	char *problem = NULL;

	if (store == NULL)
		return "belongs to the table that is swapped out, and would stay there";
	catalog = table_open(class, AccessShareLock);
	tuple = fetch(store, catalog, oid);
	if (HeapTupleIsValid(tuple) && is_ours(store, r, catalog, tuple))
	{
		if (change(store, r, catalog, tuple) == NULL)
			problem = r->problem;
		else if (class == ProcedureRelationId && r->locks)
			problem = "locks rows of the table in its body: a call that waits for the swap would "
					  "do so in the table that is swapped out";
		else if (class == RewriteRelationId && meets_rule(r, tuple))
			problem = "has the name of a rule of the other table";
	}
	table_close(catalog, AccessShareLock);
	return problem;
}

/*
 * Something that depends on the row type, or the type of arrays of it.  What is
 * stored as such a row was made by a table of other columns, as far as
 * PostgreSQL can tell.
 */
static char *
problem_of_type(Retarget *r, Oid class, Oid oid)
{
	if (class == TypeRelationId && oid == get_array_type(r->from_type))
		return NULL;
	if (!retarget_exchanges_types(r))
		return psprintf("uses the row type of the table, %s", r->type_reason);
	if (class == TypeRelationId ||
		(class == RelationRelationId && get_rel_relkind(oid) != RELKIND_VIEW))
		return "stores rows of the table's row type, which will be that of the other table and not "
			   "read them";
	return find_store(class) != NULL ? problem_of_object(r, class, oid) : NULL;
}

/*
 * carry_problem(class, object, refclass, front, back): why an object that
 * depends on the table (refclass pg_class) or on its row type (pg_type) can't
 * follow it at a swap; NULL if it can.  Takes no lock on the tables.
 */
Datum
migrate_ext_carry_problem(PG_FUNCTION_ARGS)
{
	Oid class = PG_GETARG_OID(0);
	Oid oid = PG_GETARG_OID(1);
	Oid front = PG_GETARG_OID(3);
	Oid back = PG_GETARG_OID(4);
	Retarget *r;
	char *problem;

	if (get_rel_relkind(front) == '\0' || get_rel_relkind(back) == '\0')
		PG_RETURN_NULL(); /* told elsewhere */
	r = retarget_create(front, back);
	if (PG_GETARG_OID(2) == TypeRelationId)
		problem = problem_of_type(r, class, oid);
	else if (class == PublicationRelRelationId)
		problem = publication_problem(r, oid);
	else
		problem = problem_of_object(r, class, oid);
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(CStringGetTextDatum(problem));
}
