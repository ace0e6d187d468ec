/*-------------------------------------------------------------------------
 *
 * retarget.c
 *	  What names one table is made to name another: columns, keys, dependencies.
 *
 * Which column of one table is which of the other, and what comes of it for keys
 * and dependencies; the trees are in retarget_tree.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_index.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "retarget.h"

/* ------------------------------------------------------------------------
 * The columns of both tables
 * ------------------------------------------------------------------------
 */

static HeapTuple
get_column(Oid relid, AttrNumber attnum)
{
	HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column number %d of relation with OID %u does not exist", attnum, relid)));
	return tuple;
}

static int
count_columns(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	int natts;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u has been dropped", relid)));
	natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
	ReleaseSysCache(tuple);
	return natts;
}

static bool
same_type(Form_pg_attribute a, Form_pg_attribute b)
{
	return a->atttypid == b->atttypid && a->atttypmod == b->atttypmod &&
		   a->attcollation == b->attcollation;
}

/* Do dropped columns take up the same room in a row? */
static bool
same_room(Form_pg_attribute a, Form_pg_attribute b)
{
	return a->attisdropped && b->attisdropped && a->attlen == b->attlen &&
		   a->attalign == b->attalign && a->attbyval == b->attbyval;
}

/* A column of from: its number in to, by name. */
static AttrNumber
match_column(Retarget *r, AttrNumber attnum, int to_natts)
{
	HeapTuple tuple = get_column(r->from, attnum);
	Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);
	AttrNumber result = RETARGET_MISSING;

	if (att->attisdropped)
	{
		bool same = false;

		if (attnum <= to_natts)
		{
			HeapTuple other = get_column(r->to, attnum);

			same = same_room(att, (Form_pg_attribute) GETSTRUCT(other));
			ReleaseSysCache(other);
		}
		r->identical &= same;
	}
	else
	{
		result = get_attnum(r->to, NameStr(att->attname));
		r->identical &= result == attnum;
		if (result > 0)
		{
			HeapTuple other = get_column(r->to, result);

			if (!same_type(att, (Form_pg_attribute) GETSTRUCT(other)))
				result = RETARGET_OTHER_TYPE;
			ReleaseSysCache(other);
		}
		else
			result = RETARGET_MISSING;
		r->same_columns &= result > 0;
	}
	ReleaseSysCache(tuple);
	return result;
}

/* Columns that only `to` has; those before a common one are in the way. */
static void
look_at_rest(Retarget *r, int to_natts, AttrNumber last)
{
	for (AttrNumber attnum = 1; attnum <= to_natts; attnum++)
	{
		HeapTuple tuple = get_column(r->to, attnum);
		Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);

		if (!att->attisdropped && get_attnum(r->from, NameStr(att->attname)) <= 0)
		{
			r->same_columns = false;
			r->in_order &= attnum > last;
		}
		ReleaseSysCache(tuple);
	}
}

/* Does anything but its own array type depend on a row type? */
static bool
type_is_used(Oid type)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	Oid types[] = {type, get_array_type(type)};
	bool used = false;

	for (int i = 0; i < lengthof(types) && OidIsValid(types[i]); i++)
	{
		ScanKeyData key[2];
		SysScanDesc scan;
		HeapTuple tuple;

		ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(TypeRelationId));
		ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(types[i]));
		scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, key);
		while (!used && HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);

			used = !(dep->classid == TypeRelationId && dep->objid == types[1]);
		}
		systable_endscan(scan);
	}
	table_close(depend, AccessShareLock);
	return used;
}

/* Catalogs of what belongs to a table, triggers aside, and has expressions over its rows. */
static const struct
{
	Oid catalog;
	Oid index;
	AttrNumber relation;
	AttrNumber trees[2];
} own_trees[] = {
	{ConstraintRelationId,
	 ConstraintRelidTypidNameIndexId,
	 Anum_pg_constraint_conrelid,
	 {Anum_pg_constraint_conbin, 0}},
	{AttrDefaultRelationId,
	 AttrDefaultIndexId,
	 Anum_pg_attrdef_adrelid,
	 {Anum_pg_attrdef_adbin, 0}},
	{IndexRelationId,
	 IndexIndrelidIndexId,
	 Anum_pg_index_indrelid,
	 {Anum_pg_index_indexprs, Anum_pg_index_indpred}},
	{PolicyRelationId,
	 PolicyPolrelidPolnameIndexId,
	 Anum_pg_policy_polrelid,
	 {Anum_pg_policy_polqual, Anum_pg_policy_polwithcheck}},
	{StatisticExtRelationId,
	 StatisticExtRelidIndexId,
	 Anum_pg_statistic_ext_stxrelid,
	 {Anum_pg_statistic_ext_stxexprs, 0}},
};

/* Does a stored tree speak of values of this type, in ":vartype 16400 " or the like? */
static bool
mentions_type(Relation catalog, HeapTuple tuple, AttrNumber attnum, const char *mention)
{
	bool isnull;
	Datum tree = heap_getattr(tuple, attnum, RelationGetDescr(catalog), &isnull);

	return !isnull && strstr(TextDatumGetCString(tree), mention) != NULL;
}

/*
 * Do expressions of the table's own (a CHECK, a policy, an index) use whole rows?  They would have to follow an exchange of the types, and pg_depend
 * doesn't tell of them.
 */
static bool
own_whole_rows(Oid relid, Oid type)
{
	char *mention = psprintf("type %u ", type);
	bool found = false;

	for (int i = 0; i < lengthof(own_trees) && !found; i++)
	{
		Relation catalog = table_open(own_trees[i].catalog, AccessShareLock);
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple tuple;

		ScanKeyInit(&key, own_trees[i].relation, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(relid));
		scan = systable_beginscan(catalog, own_trees[i].index, true, NULL, 1, &key);
		while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		{
			for (int k = 0; k < 2 && own_trees[i].trees[k] != 0; k++)
				found |= mentions_type(catalog, tuple, own_trees[i].trees[k], mention);
		}
		systable_endscan(scan);
		table_close(catalog, AccessShareLock);
	}
	return found;
}

/*
 * Has the table triggers of a user's?  What a procedural language has compiled for
 * one keeps the row type of its table, and fails with another.
 */
static bool
has_triggers(Oid relid)
{
	Relation catalog = table_open(TriggerRelationId, AccessShareLock);
	bool found = false;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		found = !trigger->tgisinternal && strncmp(NameStr(trigger->tgname), OUR_TRIGGER_PREFIX,
												  strlen(OUR_TRIGGER_PREFIX)) != 0;
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

Retarget *
retarget_create(Oid from, Oid to)
{
	Retarget *r = palloc0(sizeof(Retarget));
	int to_natts = count_columns(to);
	AttrNumber last = 0;

	r->from = from;
	r->to = to;
	r->from_type = get_rel_type_id(from);
	r->to_type = get_rel_type_id(to);
	r->to_kind = get_rel_relkind(to);
	r->natts = count_columns(from);
	r->columns = palloc0(Max(r->natts, 1) * sizeof(AttrNumber));
	r->identical = r->natts == to_natts;
	r->in_order = true;
	r->same_columns = true;
	for (int i = 0; i < r->natts; i++)
	{
		r->columns[i] = match_column(r, i + 1, to_natts);
		if (r->columns[i] > 0)
		{
			r->in_order &= r->columns[i] > last;
			last = Max(last, r->columns[i]);
		}
	}
	look_at_rest(r, to_natts, last);
	r->same_columns &= r->in_order;
	return r;
}

/* Why the two tables' row types can't change places, or NULL. */
static const char *
type_reason(const Retarget *r)
{
	if (!r->same_columns)
		return "whose columns the other table does not have in the same order and of the same "
			   "types";
	if (type_is_used(r->to_type))
		return "and something uses the row type of the other table, too";
	if (has_triggers(r->from) || has_triggers(r->to))
		return "which has triggers: functions of theirs that have run know the type of its rows";
	if (own_whole_rows(r->from, r->from_type) || own_whole_rows(r->to, r->to_type))
		return "and so does a check, policy, default or index of its own, which stays with its "
			   "table";
	return NULL;
}

bool
retarget_exchanges_types(Retarget *r)
{
	if (!r->types_looked)
	{
		r->type_reason = type_reason(r);
		r->types_looked = true;
	}
	return r->type_reason == NULL;
}

AttrNumber
retarget_column(const Retarget *r, AttrNumber attnum)
{
	if (attnum <= 0 || attnum > r->natts)
		return attnum;
	return Max(r->columns[attnum - 1], 0);
}

/* ------------------------------------------------------------------------
 * Keys that a GROUP BY relies on
 * ------------------------------------------------------------------------
 */

/* The columns of a constraint as a set of names' numbers in `from`. */
static Bitmapset *
key_columns(HeapTuple tuple)
{
	Bitmapset *result = NULL;
	bool isnull;
	Datum keys = SysCacheGetAttr(CONSTROID, tuple, Anum_pg_constraint_conkey, &isnull);
	ArrayType *array;

	if (isnull)
		return NULL;
	array = DatumGetArrayTypeP(keys);
	for (int i = 0; i < ARR_DIMS(array)[0]; i++)
		result = bms_add_member(result, ((int16 *) ARR_DATA_PTR(array))[i]);
	return result;
}

/*
 * What is grouped by a key of from is grouped by each key of to that has no
 * further columns.
 */
Oid
retarget_key(const Retarget *r, Oid constraint)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Bitmapset *columns = NULL;
	Bitmapset *mapped = NULL;
	Oid result = constraint;
	int column = -1;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	if (((Form_pg_constraint) GETSTRUCT(tuple))->conrelid == r->from)
	{
		columns = key_columns(tuple);
		while ((column = bms_next_member(columns, column)) >= 0)
			mapped = bms_add_member(mapped, retarget_column(r, column));
		result =
			get_primary_key_attnos(r->to, false, &constraint) == NULL ? InvalidOid : constraint;
	}
	ReleaseSysCache(tuple);
	if (columns != NULL && OidIsValid(result))
	{
		tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(result));
		if (!HeapTupleIsValid(tuple) || !bms_is_subset(key_columns(tuple), mapped))
			result = InvalidOid;
		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
	}
	return result;
}

/* ------------------------------------------------------------------------
 * Dependencies
 * ------------------------------------------------------------------------
 */

/* What an object depends on: the table and its columns, and keys. */
void
retarget_dependencies(const Retarget *r, Oid class, Oid oid)
{
	Relation depend = table_open(DependRelationId, RowExclusiveLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(class));
	ScanKeyInit(&key[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(oid));
	scan = systable_beginscan(depend, DependDependerIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend dep;

		tuple = heap_copytuple(tuple);
		dep = (Form_pg_depend) GETSTRUCT(tuple);
		if (dep->refclassid == RelationRelationId && dep->refobjid == r->from)
		{
			dep->refobjid = r->to;
			dep->refobjsubid = retarget_column(r, dep->refobjsubid);
			CatalogTupleUpdate(depend, &tuple->t_self, tuple);
		}
		else if (dep->refclassid == ConstraintRelationId &&
				 OidIsValid(retarget_key(r, dep->refobjid)) &&
				 retarget_key(r, dep->refobjid) != dep->refobjid)
		{
			dep->refobjid = retarget_key(r, dep->refobjid);
			CatalogTupleUpdate(depend, &tuple->t_self, tuple);
		}
		heap_freetuple(tuple);
	}
	systable_endscan(scan);
	table_close(depend, RowExclusiveLock);
}
