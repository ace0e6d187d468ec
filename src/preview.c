/*-------------------------------------------------------------------------
 *
 * preview.c
 *	  preview(): what partitions there would be, from statistics.
 *
 * The partitions come from bounds.c, as those of the real thing do, but for the
 * data: least and greatest key, or the values, are what ANALYZE saw.  The share
 * of rows that falls into each comes from the most common values, which are
 * placed one by one (that shows where hash partitions are uneven), and from the
 * histogram, between whose bounds rows are taken to be spread evenly.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/hash.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "arguments.h"
#include "axis.h"
#include "bounds.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_statistic.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "optimizer/plancat.h"
#include "relinfo.h"
#include "run.h"
#include "sqlgen.h"
#include "target.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* The default of partition_by_range()'s parameter. */
#define DEFAULT_HEADROOM 6

/* What ANALYZE knows of the key. */
typedef struct KeyStatistics
{
	double rows; /* of the table */
	double bytes;
	bool analyzed;
	double distinct; /* values, NULL not counted */
	double rest;	 /* share of rows that no common value stands for */
	AttStatsSlot common;
	AttStatsSlot histogram;
} KeyStatistics;

/* A call, while rows are put out. */
typedef struct Preview
{
	BoundsInput input;
	Form_pg_attribute att;
	KeyStatistics statistics;
	ReturnSetInfo *result;
} Preview;

/* ------------------------------------------------------------------------
 * Statistics
 * ------------------------------------------------------------------------
 */

static void
read_statistics(Relation rel, Form_pg_attribute att, KeyStatistics *statistics)
{
	HeapTuple tuple;
	Form_pg_statistic form;
	BlockNumber pages;
	double visible;
	int i;

	memset(statistics, 0, sizeof(KeyStatistics));
	estimate_rel_size(rel, NULL, &pages, &statistics->rows, &visible);
	if (RelationGetNumberOfBlocks(rel) == 0)
		statistics->rows = 0;
	statistics->bytes =
		sql_int64("SELECT pg_catalog.pg_table_size(%u::pg_catalog.regclass)", rel->rd_id);
	statistics->rest = 1;

	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(rel->rd_id), Int16GetDatum(att->attnum),
							BoolGetDatum(false));
	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_statistic) GETSTRUCT(tuple);
	statistics->analyzed = true;
	statistics->distinct =
		form->stadistinct < 0 ? -form->stadistinct * statistics->rows : form->stadistinct;
	statistics->rest = 1 - form->stanullfrac;
	(void) get_attstatsslot(&statistics->common, tuple, STATISTIC_KIND_MCV, InvalidOid,
							ATTSTATSSLOT_VALUES | ATTSTATSSLOT_NUMBERS);
	(void) get_attstatsslot(&statistics->histogram, tuple, STATISTIC_KIND_HISTOGRAM, InvalidOid,
							ATTSTATSSLOT_VALUES);
	for (i = 0; i < statistics->common.nnumbers; i++)
		statistics->rest -= statistics->common.numbers[i];
	statistics->rest = Max(statistics->rest, 0);
	ReleaseSysCache(tuple);
}

/* A table without rows needs none, and gets what an empty one would. */
static void
require_statistics(const Preview *preview)
{
	if (!preview->statistics.analyzed && preview->statistics.rows > 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("there are no statistics of column \"%s\" of table \"%s\"",
							   preview->input.key, get_rel_name(preview->input.source)),
						errhint("Use ANALYZE.")));
}

/*
 * Does the histogram name every value that is not a common one?  So it is with
 * few values, all of them rare.
 */
static bool
histogram_is_complete(const KeyStatistics *statistics)
{
	return statistics->common.nvalues + statistics->histogram.nvalues >= statistics->distinct - 0.5;
}

/* ------------------------------------------------------------------------
 * Output
 * ------------------------------------------------------------------------
 */

static void
put(Preview *preview, const char *partition, double share)
{
	Datum values[3];
	bool nulls[3] = {false, false, false};

	values[0] = CStringGetTextDatum(partition);
	values[1] = Int64GetDatum((int64) rint(preview->statistics.rows * share));
	values[2] = Int64GetDatum((int64) rint(preview->statistics.bytes * share));
	tuplestore_putvalues(preview->result->setResult, preview->result->setDesc, values, nulls);
}

/* ------------------------------------------------------------------------
 * Range
 * ------------------------------------------------------------------------
 */

/* Positions of a slot's values, in its order; those without one are left out. */
static int
slot_positions(const Axis *axis, const AttStatsSlot *slot, int64 **positions, float4 *numbers)
{
	int count = 0;
	int i;

	*positions = palloc(sizeof(int64) * (slot->nvalues + 1));
	for (i = 0; i < slot->nvalues; i++)
	{
		if (!axis_position(axis, slot->values[i], &(*positions)[count]))
			continue;
		if (numbers != NULL)
			numbers[count] = slot->numbers[i];
		count++;
	}
	return count;
}

/* The share of the histogram's rows that is below a position. */
static double
share_below(const int64 *bounds, int nbounds, int64 position)
{
	int i;

	if (nbounds == 0 || position <= bounds[0])
		return 0;
	for (i = 0; i < nbounds - 1; i++)
	{
		double width = (double) bounds[i + 1] - (double) bounds[i];

		if (position <= bounds[i + 1] && width > 0)
			return (i + ((double) position - (double) bounds[i]) / width) / (nbounds - 1);
	}
	return 1;
}

static void
preview_range(Preview *preview, Datum step)
{
	KeyStatistics *statistics = &preview->statistics;
	RangeInput range = {.headroom = DEFAULT_HEADROOM};
	float4 *shares = palloc(sizeof(float4) * (statistics->common.nvalues + 1));
	int64 *common;
	int64 *bounds;
	int64 least = PG_INT64_MAX;
	int64 greatest = PG_INT64_MIN;
	double left = 1;
	Axis *axis;
	ListCell *lc;
	int ncommon;
	int nbounds;
	int i;

	require_statistics(preview);
	axis = axis_create(preview->input.key, preview->input.type, ARG_TEXT, step, "UTC");
	ncommon = slot_positions(axis, &statistics->common, &common, shares);
	nbounds = slot_positions(axis, &statistics->histogram, &bounds, NULL);
	for (i = 0; i < ncommon; i++)
	{
		least = Min(least, common[i]);
		greatest = Max(greatest, common[i]);
	}
	if (nbounds > 0)
	{
		least = Min(least, bounds[0]);
		greatest = Max(greatest, bounds[nbounds - 1]);
	}

	foreach (lc,
			 bounds_range_of(&preview->input, axis, &range, ncommon + nbounds > 0, least, greatest))
	{
		Partition *partition = lfirst(lc);
		double share;

		if (strcmp(partition->bound, "DEFAULT") == 0)
			break;
		share = statistics->rest * (share_below(bounds, nbounds, partition->to) -
									share_below(bounds, nbounds, partition->from));
		for (i = 0; i < ncommon; i++)
		{
			if (common[i] >= partition->from && common[i] < partition->to)
				share += shares[i];
		}
		put(preview, partition->name, share);
		left -= share;
	}
	put(preview, ((Partition *) lfirst(lc))->name,
		ncommon < statistics->common.nvalues ? Max(left, 0) : 0);
}

/* ------------------------------------------------------------------------
 * List
 * ------------------------------------------------------------------------
 */

static List *
append_values(List *values, const AttStatsSlot *slot, Oid type)
{
	Oid typoutput;
	bool varlena;
	int i;

	getTypeOutputInfo(type, &typoutput, &varlena);
	for (i = 0; i < slot->nvalues; i++)
		values = lappend(values, OidOutputFunctionCall(typoutput, slot->values[i]));
	return values;
}

/*
 * The most common values first.  Values that the statistics count but don't
 * name are put together in a row that says how many they are.
 */
static void
preview_list(Preview *preview)
{
	KeyStatistics *statistics = &preview->statistics;
	bool complete = histogram_is_complete(statistics);
	int ncommon = statistics->common.nvalues;
	List *values;
	ListCell *lc;

	require_statistics(preview);
	bounds_check_values(&preview->input, statistics->distinct);
	values = append_values(NIL, &statistics->common, preview->input.type);
	if (complete)
		values = append_values(values, &statistics->histogram, preview->input.type);

	foreach (lc, bounds_list_of(&preview->input, values))
	{
		int i = foreach_current_index (lc);
		double share = 0;

		if (i < ncommon)
			share = statistics->common.numbers[i];
		else if (i < list_length(values))
			share = statistics->rest / statistics->histogram.nvalues;
		else if (!complete)
			put(preview, psprintf("(%.0f other values)", rint(statistics->distinct) - ncommon),
				statistics->rest);
		put(preview, ((Partition *) lfirst(lc))->name, share);
	}
}

/* ------------------------------------------------------------------------
 * Hash
 * ------------------------------------------------------------------------
 */

/* As compute_partition_hash_value() does it for a key of one column. */
static int
hash_partition_of(FmgrInfo *hash, Oid collation, Datum value, int partitions)
{
	Datum hashed = FunctionCall2Coll(hash, collation, value, UInt64GetDatum(HASH_PARTITION_SEED));

	return hash_combine64(0, DatumGetUInt64(hashed)) % (uint64) partitions;
}

/* 42704 as target_check_key() has it, for a type that hashes to 32 bits only. */
static void
find_hash(Form_pg_attribute att, FmgrInfo *hash)
{
	Oid opclass = GetDefaultOpClass(att->atttypid, HASH_AM_OID);
	Oid type = get_opclass_input_type(opclass);
	Oid proc = get_opfamily_proc(get_opclass_family(opclass), type, type, HASHEXTENDED_PROC);

	if (!OidIsValid(proc))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("column \"%s\" of type %s can't be the key of partitions",
							   NameStr(att->attname), format_type_be(att->atttypid)),
						errdetail("The type has no extended hash function.")));
	fmgr_info(proc, hash);
}

static void
preview_hash(Preview *preview, int partitions)
{
	KeyStatistics *statistics = &preview->statistics;
	bool complete = histogram_is_complete(statistics) && statistics->histogram.nvalues > 0;
	List *planned = bounds_hash(&preview->input, partitions);
	double *shares = palloc0(sizeof(double) * partitions);
	Oid collation = preview->att->attcollation;
	FmgrInfo hash;
	ListCell *lc;
	int i;

	find_hash(preview->att, &hash);
	for (i = 0; i < statistics->common.nvalues; i++)
		shares[hash_partition_of(&hash, collation, statistics->common.values[i], partitions)] +=
			statistics->common.numbers[i];
	for (i = 0; complete && i < statistics->histogram.nvalues; i++)
		shares[hash_partition_of(&hash, collation, statistics->histogram.values[i], partitions)] +=
			statistics->rest / statistics->histogram.nvalues;
	foreach (lc, planned)
	{
		double even = complete ? 0 : statistics->rest / partitions;

		put(preview, ((Partition *) lfirst(lc))->name, shares[foreach_current_index (lc)] + even);
	}
}

/* ------------------------------------------------------------------------
 * SQL function
 * ------------------------------------------------------------------------
 */

PG_FUNCTION_INFO_V1(migrate_ext_preview);

/* preview(source regclass, key text, partitions integer, step text) */
Datum
migrate_ext_preview(PG_FUNCTION_ARGS)
{
	Preview preview = {{0}};
	bool by_hash = !PG_ARGISNULL(2);
	bool by_range = !PG_ARGISNULL(3);
	Strategy strategy = by_range ? STRATEGY_RANGE : by_hash ? STRATEGY_HASH : STRATEGY_LIST;
	Relation rel;
	UserSwitch save;

	argument_require(fcinfo, 0, "source");
	preview.input.key = argument_text(fcinfo, 1, "key");
	if (by_hash && by_range)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("partitions and step can't both be given"),
						errhint("Partitions by hash have a number, those by range a step.")));
	preview.input.source = PG_GETARG_OID(0);
	relinfo_check_source(preview.input.source);
	InitMaterializedSRF(fcinfo, 0);
	preview.result = (ReturnSetInfo *) fcinfo->resultinfo;

	rel = relation_open(preview.input.source, AccessShareLock);
	user_switch_owner(&save, rel->rd_rel->relowner);
	preview.input.type = target_check_key(rel, preview.input.key, strategy);
	preview.input.table = RelationGetRelationName(rel);
	preview.input.schema = RelationGetNamespace(rel);
	preview.att = TupleDescAttr(RelationGetDescr(rel),
								get_attnum(preview.input.source, preview.input.key) - 1);
	read_statistics(rel, preview.att, &preview.statistics);

	if (by_range)
		preview_range(&preview, PG_GETARG_DATUM(3));
	else if (by_hash)
		preview_hash(&preview, PG_GETARG_INT32(2));
	else
		preview_list(&preview);

	user_switch_back(&save);
	relation_close(rel, AccessShareLock);
	return (Datum) 0;
}
