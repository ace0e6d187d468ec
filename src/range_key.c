/*-------------------------------------------------------------------------
 *
 * range_key.c
 *	  Ranges of the identity told by values; see range_key.h.
 *
 * A table is read by a range through an index whose first columns are the
 * identity's, in its order, ascending, and compared as SQL compares them without
 * being told how: the default operator class, the column's collation.  Then what
 * the index calls a range is what the statements of compare.c call so.
 *
 * Sides may have integers of different size.  A bound has the front's type, and
 * is compared by the operators of two types.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "parser/parse_coerce.h"
#include "range_key.h"
#include "relinfo.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

void
range_identity(const Migration *m, RangeIdentity *identity)
{
	Identity *source = relinfo_identity(m->source, false);
	Oid front = front_of(m, direction_of(m));

	identity->n = source->natts;
	for (int i = 0; i < source->natts; i++)
	{
		identity->names[i] = get_attname(m->source, source->attnums[i], false);
		identity->types[i] = getBaseType(get_atttype(front, get_attnum(front, identity->names[i])));
	}
}

Datum *
range_bound(const RangeIdentity *identity, const char *text)
{
	MemoryContext outer = CurrentMemoryContext;
	Datum *values;
	int code;

	if (text == NULL)
		return NULL;
	values = palloc(identity->n * sizeof(Datum));
	SPI_connect();
	code = SPI_execute(psprintf("SELECT %s", text), true, 1);
	if (code != SPI_OK_SELECT || SPI_processed != 1 || SPI_tuptable->tupdesc->natts != identity->n)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not read a bound: %s", SPI_result_code_string(code)),
						errdetail("The bound is: %s", text)));
	for (int i = 0; i < identity->n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(SPI_tuptable->tupdesc, i);
		bool isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(outer);

		Assert(!isnull); /* the identity's columns are NOT NULL */
		values[i] = att->attlen == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(value))
									  : datumCopy(value, att->attbyval, att->attlen);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return values;
}

/* Describe column i by an index's column i; false if it orders otherwise than SQL does. */
static bool
describe_column(RangeKey *key, int i, Relation rel, Relation index, Oid bound_type)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), key->attnums[i] - 1);
	Oid family = index->rd_opfamily[i];
	Oid type = index->rd_opcintype[i];
	Oid default_class = GetDefaultOpClass(att->atttypid, BTREE_AM_OID);
	Oid procedure;

	if (index->rd_index->indkey.values[i] != att->attnum || index->rd_indoption[i] != 0 ||
		index->rd_indcollation[i] != att->attcollation || !OidIsValid(default_class) ||
		get_opclass_family(default_class) != family)
		return false;
	procedure = get_opfamily_proc(family, type, bound_type, BTORDER_PROC);
	if (!OidIsValid(procedure) && IsBinaryCoercible(bound_type, type))
	{
		bound_type = type;
		procedure = get_opfamily_proc(family, type, type, BTORDER_PROC);
	}
	if (!OidIsValid(procedure))
		return false;
	key->families[i] = family;
	key->column_types[i] = type;
	key->bound_types[i] = bound_type;
	key->collations[i] = att->attcollation;
	fmgr_info(procedure, &key->order[i]);
	return true;
}

static bool
describe_by_index(RangeKey *key, Relation rel, Relation index, const RangeIdentity *identity)
{
	if (index->rd_rel->relam != BTREE_AM_OID || !index->rd_index->indisvalid ||
		IndexRelationGetNumberOfKeyAttributes(index) < identity->n ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < identity->n; i++)
	{
		if (!describe_column(key, i, rel, index, identity->types[i]))
			return false;
	}
	key->index = RelationGetRelid(index);
	return true;
}

bool
range_key(RangeKey *key, Relation rel, const RangeIdentity *identity)
{
	List *indexes = RelationGetIndexList(rel);
	bool found = false;
	ListCell *cell;

	key->n = identity->n;
	for (int i = 0; i < identity->n; i++)
	{
		key->attnums[i] = get_attnum(RelationGetRelid(rel), identity->names[i]);
		if (key->attnums[i] <= 0)
			return false;
	}
	foreach (cell, indexes)
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		found = describe_by_index(key, rel, index, identity);
		index_close(index, AccessShareLock);
		if (found)
			break;
	}
	list_free(indexes);
	return found;
}

/* (k0, k1) > bound or (k0, k1) <= bound: of one column a plain key, else a comparison of rows */
static void
scan_key(RangeScanKeys *keys, const RangeKey *key, StrategyNumber strategy, Datum *bound)
{
	ScanKey header = &keys->keys[keys->n];
	ScanKey members = keys->members[keys->n++];

	if (key->n == 1)
	{
		Oid operator= get_opfamily_member(key->families[0], key->column_types[0],
										  key->bound_types[0], strategy);

		ScanKeyEntryInitialize(header, 0, 1, strategy, key->bound_types[0], key->collations[0],
							   get_opcode(operator), bound[0]);
		return;
	}
	for (int i = 0; i < key->n; i++)
		ScanKeyEntryInitialize(&members[i], SK_ROW_MEMBER, i + 1, strategy, key->bound_types[i],
							   key->collations[i], key->order[i].fn_oid, bound[i]);
	members[key->n - 1].sk_flags |= SK_ROW_END;
	MemSet(header, 0, sizeof(ScanKeyData));
	header->sk_flags = SK_ROW_HEADER;
	header->sk_attno = 1;
	header->sk_strategy = strategy;
	header->sk_argument = PointerGetDatum(members);
}

void
range_scan_keys(RangeScanKeys *keys, const RangeKey *key, Datum *low, Datum *high)
{
	keys->n = 0;
	if (low != NULL)
		scan_key(keys, key, BTGreaterStrategyNumber, low);
	if (high != NULL)
		scan_key(keys, key, BTLessEqualStrategyNumber, high);
}

int
range_key_compare(RangeKey *key, const Datum *values, const Datum *bound)
{
	for (int i = 0; i < key->n; i++)
	{
		int result = DatumGetInt32(
			FunctionCall2Coll(&key->order[i], key->collations[i], values[i], bound[i]));

		if (result != 0)
			return result;
	}
	return 0;
}
