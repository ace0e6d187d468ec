/*-------------------------------------------------------------------------
 *
 * copy_receiver.c
 *	  Reads the rows of a batch, and does with each what becomes of it: copied,
 *	  logged, left out; see copy.c for why.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog.h"
#include "copy_receiver.h"
#include "derive.h"
#include "errors.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "run.h"
#include "sqlgen.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/*
 * Look-ups that the planner thinks costlier than this aren't tried: some index
 * scans cost less, reading a table for want of an index costs more.
 */
#define MAX_LOOKUP_COST 100.0

/* ------------------------------------------------------------------------
 * The query
 * ------------------------------------------------------------------------
 */

/*
 * All columns of the source, in order.  The block after the last one fits in
 * the text: there is always one number left that no block has.
 *
 *		SELECT s.xmin, s.a, s.b FROM ONLY public.t s
 *		 WHERE s.ctid >= '(0,0)'::pg_catalog.tid AND s.ctid < '(128,0)'::pg_catalog.tid
 *
 * Where it derives keys, by joins, the row's ctid and their values come along.
 */
static char *
range_query(const Batch *batch, Relation source, CopyReceiver *receiver)
{
	char *columns =
		sql_columns(RelationGetRelid(source), receiver->ncolumns, receiver->attnums, "s");
	StringInfoData sql;
	ListCell *cell;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT s.xmin, %s%s", receiver->derived != NIL ? "s.ctid, " : "",
					 columns);
	foreach (cell, receiver->derived)
	{
		DerivedColumn *derived = receiver->eval->map->derived[lfirst_int(cell)];

		appendStringInfo(&sql, ", %s", derived->assigned);
	}
	appendStringInfo(&sql,
					 " FROM ONLY %s s%s WHERE s.ctid >= '(%u,0)'::pg_catalog.tid"
					 " AND s.ctid < '(%u,0)'::pg_catalog.tid",
					 sql_relation(RelationGetRelid(source)), receiver->joins, batch->first_block,
					 batch->last_block + 1);
	return sql.data;
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/* Was this version written after the trigger came? */
static inline bool
is_recent(CopyReceiver *receiver, TransactionId xmin)
{
	return TransactionIdIsNormal(xmin) && (uint32) (xmin - receiver->horizon) < receiver->window;
}

static void
log_identity(CopyReceiver *receiver)
{
	TupleTableSlot *slot = receiver->source_slot;

	for (int i = 0; i < receiver->log_columns.natts; i++)
	{
		AttrNumber attnum = receiver->log_columns.attnums[i];

		receiver->log_values[i] = slot->tts_values[attnum - 1];
		receiver->log_isnull[i] = slot->tts_isnull[attnum - 1];
	}
	(void) changelog_append(receiver->log, receiver->log_values, receiver->log_isnull);
	receiver->logged++;
}

/*
 * A join that derives a key may find more than one row, where a scalar subquery
 * would fail.  So would this batch; the careful way then tells whose fault it is.
 */
static void
check_not_seen(CopyReceiver *receiver, ItemPointer tid)
{
	Size bit =
		(Size) (ItemPointerGetBlockNumber(tid) - receiver->first_block) * MaxHeapTuplesPerPage +
		ItemPointerGetOffsetNumber(tid) - 1;

	if (receiver->seen[bit / 8] & (1 << (bit % 8)))
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("more than one row returned by a subquery used as an expression")));
	receiver->seen[bit / 8] |= 1 << (bit % 8);
}

/* Take the derived keys from a row of the query. */
static void
take_derived(CopyReceiver *receiver, TupleTableSlot *slot)
{
	int column = receiver->first_column + receiver->ncolumns;
	ListCell *cell;

	check_not_seen(receiver, (ItemPointer) DatumGetPointer(slot->tts_values[1]));
	foreach (cell, receiver->derived)
	{
		receiver->eval->given[lfirst_int(cell)].value = slot->tts_values[column];
		receiver->eval->given[lfirst_int(cell)].isnull = slot->tts_isnull[column];
		column++;
	}
}

/* Is the row to be left out, as options.on_null_key says? */
static bool
is_skipped(CopyReceiver *receiver)
{
	int attnum = -1;

	while ((attnum = bms_next_member(receiver->skip_key, attnum)) >= 0)
	{
		if (receiver->target_slot->tts_isnull[attnum - 1])
			return true;
	}
	return false;
}

/* What becomes of a row. */
typedef enum Fate
{
	FATE_COPY,
	FATE_SKIP,
	FATE_MISFIT /* receiver->misfit tells why */
} Fate;

/* The row in the source slot as a row of the target: where does it go? */
static Fate
place_row(CopyReceiver *receiver)
{
	columns_eval(receiver->eval, receiver->source_slot, receiver->target_slot, receiver->econtext);
	if (is_skipped(receiver))
		return FATE_SKIP;
	return tuple_writer_fits(receiver->writer, receiver->target_slot, &receiver->misfit)
			   ? FATE_COPY
			   : FATE_MISFIT;
}

static void
create_writer(CopyReceiver *receiver)
{
	receiver->writer = tuple_writer_create(receiver->target, !receiver->m->made_target);
}

/* With a writer of its own, which an error takes along, whatever it had open. */
static Fate
write_alone(CopyReceiver *receiver)
{
	Fate fate;

	create_writer(receiver);
	fate = place_row(receiver);
	if (fate == FATE_COPY)
		tuple_writer_put(receiver->writer);
	tuple_writer_finish(receiver->writer);
	return fate;
}

/* In the guard's PG_CATCH: end the subtransaction; the error may be the row's. */
static void
catch_row(CopyReceiver *receiver, MemoryContext context, ResourceOwner owner)
{
	ErrorKind kind = error_kind(geterrcode());
	bool keep = kind == ERROR_DEFINITION && receiver->broken == NULL;
	ErrorData *error;

	MemoryContextSwitchTo(keep ? receiver->estate->es_query_cxt : context);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;

	if (kind < ERROR_DEFINITION || tuple_writer_is_opening(receiver->writer))
		ReThrowError(error);
	if (keep)
		receiver->broken = error;
	receiver->misfit.sqlerrcode = error->sqlerrcode;
	receiver->misfit.message = error->message;
}

/* Do that to the row in a subtransaction. */
static Fate
guard_row(CopyReceiver *receiver, Fate (*work)(CopyReceiver *))
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile Fate fate = FATE_MISFIT;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		fate = work(receiver);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		catch_row(receiver, context, owner);
		fate = FATE_MISFIT;
	}
	PG_END_TRY();
	return fate;
}

/*
 * Copy the row in the source slot.  One that doesn't fit is set aside at once, to be seen
 * and counted, and logged as well: the drain tries it once more.
 */
static void
copy_row(CopyReceiver *receiver)
{
	Fate fate = receiver->care == COPY_FAST		 ? place_row(receiver)
				: receiver->care == COPY_CAREFUL ? guard_row(receiver, place_row)
												 : guard_row(receiver, write_alone);

	if (fate == FATE_COPY && receiver->care != COPY_ALONE)
		tuple_writer_put(receiver->writer);
	if (fate == FATE_COPY)
		receiver->rows++;
	else if (fate == FATE_SKIP)
		receiver->skipped++;
	else
	{
		log_identity(receiver);
		failed_row_add(receiver->m->id, DIRECTION_FORWARD,
					   changelog_identity(receiver->m->source, receiver->log_columns.nidentity,
										  receiver->log_columns.attnums, receiver->log_values),
					   receiver->misfit.sqlerrcode, receiver->misfit.message);
		receiver->failed++;
	}
}

/* One row of the query: copy it, or log it. */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CopyReceiver *receiver = (CopyReceiver *) self;
	TupleTableSlot *row = receiver->source_slot;
	MemoryContext old_context = MemoryContextSwitchTo(receiver->econtext->ecxt_per_tuple_memory);

	slot_getallattrs(slot);
	ExecClearTuple(row);
	for (int i = 0; i < receiver->ncolumns; i++)
	{
		AttrNumber attnum = receiver->attnums[i];

		row->tts_values[attnum - 1] = slot->tts_values[i + receiver->first_column];
		row->tts_isnull[attnum - 1] = slot->tts_isnull[i + receiver->first_column];
	}
	ExecStoreVirtualTuple(row);
	if (receiver->derived != NIL)
		take_derived(receiver, slot);

	if (is_recent(receiver, DatumGetTransactionId(slot->tts_values[0])))
		log_identity(receiver);
	else
		copy_row(receiver);
	MemoryContextSwitchTo(old_context);
	ResetExprContext(receiver->econtext);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	CopyReceiver *receiver PG_USED_FOR_ASSERTS_ONLY = (CopyReceiver *) self;

	Assert(typeinfo->natts ==
		   receiver->first_column + receiver->ncolumns + list_length(receiver->derived));
}

static void
receiver_nothing(DestReceiver *self)
{
}

/* Slots of the source's row: dropped columns stay NULL in it. */
static void
receiver_init_columns(CopyReceiver *receiver, Relation source, Relation target)
{
	TupleDesc desc = RelationGetDescr(source);

	receiver->attnums = palloc(desc->natts * sizeof(AttrNumber));
	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			receiver->attnums[receiver->ncolumns++] = i + 1;
	}
	receiver->source_slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(desc), &TTSOpsVirtual);
	receiver->target_slot =
		MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(target)), &TTSOpsVirtual);
	memset(receiver->source_slot->tts_isnull, true, desc->natts * sizeof(bool));
}

/* Can the keys that a row lacks be looked up for it alone without reading whole tables? */
static bool
lookups_are_cheap(ColumnMap *map, Relation source)
{
	double cost = 0;

	for (int i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL)
			cost += derive_cost(source, map->derived[i]->derivation);
	}
	return cost > 0 && cost <= MAX_LOOKUP_COST;
}

/*
 * Keys that the query derives, unless they are looked up row by row.  The careful
 * way always does so: there an error is one row's.
 */
static void
receiver_init_derived(CopyReceiver *receiver, Migration *m, const Batch *batch, Relation source,
					  bool may_look_up)
{
	ColumnMap *map = receiver->eval->map;
	Size blocks = (Size) batch->last_block - batch->first_block + 1;

	receiver->first_column = 1;
	receiver->joins = "";
	if (columns_skip_null_key(m))
		receiver->skip_key = columns_of_root_key(m->target);
	if (map->has_derived && receiver->care == COPY_FAST && may_look_up)
		receiver->row_by_row = lookups_are_cheap(map, source);
	if (receiver->care != COPY_FAST || receiver->row_by_row || !map->has_derived)
		return;
	for (int i = 0; i < map->natts; i++)
	{
		if (map->derived[i] != NULL)
			receiver->derived = lappend_int(receiver->derived, i);
	}
	receiver->joins = columns_joins(map);
	receiver->first_column = 2;
	receiver->first_block = batch->first_block;
	receiver->seen = palloc0(blocks * MaxHeapTuplesPerPage / 8 + 1);
	receiver->eval->given = palloc0(map->natts * sizeof(NullableDatum));
}

/* See copy_receiver.h. */
void
copy_receiver_init(CopyReceiver *receiver, Migration *m, const Batch *batch, Relation source,
				   Relation target, bool may_look_up)
{
	receiver->pub.receiveSlot = receive_row;
	receiver->pub.rStartup = receiver_startup;
	receiver->pub.rShutdown = receiver_nothing;
	receiver->pub.rDestroy = receiver_nothing;
	receiver->pub.mydest = DestTransientRel; /* anything that SPI doesn't treat specially */

	receiver->horizon = XidFromFullTransactionId(m->horizon);
	receiver->window = GetActiveSnapshot()->xmax - receiver->horizon;

	receiver_init_columns(receiver, source, target);
	receiver->estate = CreateExecutorState();
	receiver->econtext = CreateExprContext(receiver->estate);
	receiver->eval = columns_prepare(columns_build(m, DIRECTION_FORWARD), receiver->estate);
	receiver_init_derived(receiver, m, batch, source, may_look_up);
	receiver->m = m;
	receiver->target = target;
	if (receiver->care != COPY_ALONE)
		create_writer(receiver);

	receiver->log = changelog_open(m->log);
	if (receiver->log == NULL)
		ereport(ERROR, (errcode(ERRCODE_MIGRATION_TAMPERED),
						errmsg("the change log of migration \"%s\" is gone", m->name),
						errhint("Call migrate_ext.cancel and make the migration anew.")));
	changelog_columns(m->log, &receiver->log_columns);
	receiver->log_values = palloc(receiver->log_columns.natts * sizeof(Datum));
	receiver->log_isnull = palloc(receiver->log_columns.natts * sizeof(bool));
}

/* See copy_receiver.h. */
void
copy_receiver_finish(CopyReceiver *receiver)
{
	if (receiver->broken != NULL && receiver->rows + receiver->skipped == 0)
		ReThrowError(receiver->broken);
	if (receiver->care != COPY_ALONE)
		tuple_writer_finish(receiver->writer);
	changelog_close(receiver->log);
	ExecDropSingleTupleTableSlot(receiver->source_slot);
	ExecDropSingleTupleTableSlot(receiver->target_slot);
	FreeExecutorState(receiver->estate);
}

/*
 * See copy_receiver.h.  Look-ups row by row are a series as long as the query: with
 * the batch's snapshot, as a join has it, and nothing remembered beyond.
 */
int64
copy_receiver_read(CopyReceiver *receiver, const Batch *batch, Relation source)
{
	char *sql = range_query(batch, source, receiver);
	volatile int64 lookups = 0;

	if (!receiver->row_by_row)
	{
		sql_read_into(sql, &receiver->pub, "copy");
		return 0;
	}
	derive_series_begin();
	PG_TRY();
	{
		sql_read_into(sql, &receiver->pub, "copy");
	}
	PG_FINALLY();
	{
		lookups = derive_series_end();
	}
	PG_END_TRY();
	return lookups;
}
