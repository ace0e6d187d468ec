/*-------------------------------------------------------------------------
 *
 * plan_index.c
 *	  plan(): the indexes that will be built.  The order is that of index.c: on
 *	  the leaves, the identity's first; then each partitioned table's from the
 *	  bottom up, attaching those below it.
 *
 * The texts are made by index_def.c, as those that are run.  Names are free
 * ones as of now; what is planned here counts as taken.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "commands/comment.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "index_def.h"
#include "plan.h"
#include "relinfo.h"
#include "sqlgen.h"

/* An index that will be there. */
typedef struct PlannedIndex
{
	IndexDef *def;
	Oid table;
	char *name;
} PlannedIndex;

typedef struct IndexPlan
{
	MigrationPlan *plan;
	List *indexes; /* of PlannedIndex */
} IndexPlan;

static char *
qualified(const PlannedIndex *index)
{
	return sql_qualified(get_namespace_name(get_rel_namespace(index->table)), index->name);
}

static PlannedIndex *
find_planned(IndexPlan *ip, IndexDef *def, Oid table)
{
	ListCell *lc;

	foreach (lc, ip->indexes)
	{
		PlannedIndex *index = lfirst(lc);

		if (index->def == def && index->table == table)
			return index;
	}
	return NULL;
}

static bool
is_planned(IndexPlan *ip, const char *name, Oid schema)
{
	ListCell *lc;

	foreach (lc, ip->indexes)
	{
		PlannedIndex *index = lfirst(lc);

		if (strcmp(index->name, name) == 0 && get_rel_namespace(index->table) == schema)
			return true;
	}
	return false;
}

static PlannedIndex *
remember(IndexPlan *ip, IndexDef *def, Oid table, const char *name)
{
	PlannedIndex *index = palloc(sizeof(PlannedIndex));

	index->def = def;
	index->table = table;
	index->name = pstrdup(name);
	ip->indexes = lappend(ip->indexes, index);
	return index;
}

/* As name_free() will have it, once those planned before are there. */
static char *
leaf_index_name(IndexPlan *ip, IndexDef *def, Oid leaf)
{
	Oid schema = get_rel_namespace(leaf);
	char *name = index_def_leaf_name(def, leaf);
	int number;

	for (number = 1; is_planned(ip, name, schema); number++)
		name = name_free(get_rel_name(leaf), psprintf("%d%s", number, def->suffix), schema);
	return name;
}

static void
plan_leaf(IndexPlan *ip, IndexDef *def, Oid leaf)
{
	char *table = sql_relation(leaf);
	Oid existing = index_def_serving(def, leaf);
	PlannedIndex *index;

	if (OidIsValid(existing))
	{
		(void) remember(ip, def, leaf, get_rel_name(existing));
		return;
	}
	index = remember(ip, def, leaf, leaf_index_name(ip, def, leaf));
	plan_add(ip->plan, index_def_sql(def, index->name, leaf, false),
			 psprintf("%s on %s", def->contype != 0 ? "ACCESS EXCLUSIVE" : "SHARE", table),
			 "on a partition that nobody reads yet; several at a time, by helpers");
	plan_add_all(ip->plan, index_def_statistics_sql(def, qualified(index)),
				 psprintf("SHARE UPDATE EXCLUSIVE on %s", qualified(index)), NULL);
}

static List *
direct_partitions(Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(rel, false);
	List *children = NIL;
	int i;

	for (i = 0; i < desc->nparts; i++)
		children = lappend_oid(children, desc->oids[i]);
	table_close(rel, NoLock);
	return children;
}

/* As copy_comments() in index.c has it. */
static void
plan_comments(IndexPlan *ip, const PlannedIndex *index)
{
	char *note = "equivalent; at once with what precedes";
	Oid from = index->def->source;
	Oid constraint;
	char *comment;

	if (!OidIsValid(from))
		return;
	constraint = get_index_constraint(from);
	comment = GetComment(from, RelationRelationId, 0);
	if (comment != NULL)
		plan_add(
			ip->plan,
			psprintf("COMMENT ON INDEX %s IS %s", qualified(index), quote_literal_cstr(comment)),
			NULL, note);
	comment = OidIsValid(constraint) ? GetComment(constraint, ConstraintRelationId, 0) : NULL;
	if (comment != NULL)
		plan_add(ip->plan,
				 psprintf("COMMENT ON CONSTRAINT %s ON %s IS %s", quote_identifier(index->name),
						  sql_relation(index->table), quote_literal_cstr(comment)),
				 NULL, note);
}

static PlannedIndex *
plan_partitioned(IndexPlan *ip, IndexDef *def, Oid relid, const char *name)
{
	List *children = direct_partitions(relid);
	PlannedIndex *index;
	ListCell *lc;

	foreach (lc, children)
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_PARTITIONED_TABLE)
			(void) plan_partitioned(ip, def, lfirst_oid(lc),
									leaf_index_name(ip, def, lfirst_oid(lc)));
	}
	index = remember(ip, def, relid, name);
	plan_add(
		ip->plan, index_def_sql(def, name, relid, true),
		psprintf("%s on %s", def->contype != 0 ? "ACCESS EXCLUSIVE" : "SHARE", sql_relation(relid)),
		"on the partitioned table, which nobody reads yet; at once with what follows");
	foreach (lc, children)
	{
		char *child = qualified(find_planned(ip, def, lfirst_oid(lc)));

		plan_add(ip->plan, psprintf("ALTER INDEX %s ATTACH PARTITION %s", qualified(index), child),
				 psprintf("SHARE UPDATE EXCLUSIVE on %s, ACCESS EXCLUSIVE on %s", qualified(index),
						  child),
				 NULL);
	}
	plan_add_all(ip->plan, index_def_statistics_sql(def, qualified(index)),
				 psprintf("SHARE UPDATE EXCLUSIVE on %s", qualified(index)), NULL);
	return index;
}

/* As set_replica_identity() in index.c: FULL until there is an index. */
static void
plan_identity(IndexPlan *ip, Oid relid, char wanted, IndexDef *like)
{
	char *table = sql_relation(relid);
	char *what = wanted == REPLICA_IDENTITY_FULL	  ? "FULL"
				 : wanted == REPLICA_IDENTITY_NOTHING ? "NOTHING"
													  : "DEFAULT";

	if (wanted == REPLICA_IDENTITY_INDEX)
		what = psprintf("USING INDEX %s", quote_identifier(find_planned(ip, like, relid)->name));
	else
	{
		Relation rel = table_open(relid, AccessShareLock);
		bool same = rel->rd_rel->relreplident == wanted;

		table_close(rel, AccessShareLock);
		if (same)
			return;
	}
	plan_add(ip->plan, psprintf("ALTER TABLE ONLY %s REPLICA IDENTITY %s", table, what),
			 psprintf("ACCESS EXCLUSIVE on %s", table), NULL);
}

static void
plan_identities(IndexPlan *ip, List *defs, List *leaves)
{
	Migration *m = ip->plan->m;
	Relation source = table_open(m->source, AccessShareLock);
	char wanted = source->rd_rel->relreplident;
	IndexDef *like = NULL;
	ListCell *lc;

	list_free(RelationGetIndexList(source)); /* sets the field */
	foreach (lc, defs)
	{
		IndexDef *def = lfirst(lc);

		if (OidIsValid(def->source) && def->source == source->rd_replidindex && !def->leaf_only)
			like = def;
	}
	table_close(source, AccessShareLock);
	if (!m->made_target || (wanted == REPLICA_IDENTITY_INDEX && like == NULL))
		return;
	foreach (lc, lcons_oid(m->target, list_copy(leaves)))
		plan_identity(ip, lfirst_oid(lc), wanted, like);
}

void
plan_indexes(MigrationPlan *plan)
{
	Migration *m = plan->m;
	IndexPlan ip = {.plan = plan};
	List *leaves = relinfo_leaves(m->target);
	List *defs = NIL;
	ListCell *lc;
	ListCell *leaf;

	foreach (lc, index_def_wanted(m))
	{
		IndexDef *def = index_def(m, lfirst_oid(lc));

		if (def != NULL)
			defs = lappend(defs, def);
	}
	foreach (lc, defs)
	{
		foreach (leaf, leaves)
			plan_leaf(&ip, lfirst(lc), lfirst_oid(leaf));
	}
	foreach (lc, defs)
	{
		IndexDef *def = lfirst(lc);

		if (!def->leaf_only)
			plan_comments(&ip,
						  plan_partitioned(&ip, def, m->target,
										   index_def_new_name(def, get_rel_namespace(m->target))));
	}
	plan_identities(&ip, defs, leaves);
}
