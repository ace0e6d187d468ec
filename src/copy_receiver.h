/*-------------------------------------------------------------------------
 *
 * copy_receiver.h
 *	  Reading the rows of a batch of the copy, and writing them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_COPY_RECEIVER_H
#define MIGRATE_EXT_COPY_RECEIVER_H

#include "batch.h"
#include "changelog.h"
#include "columns.h"
#include "tcop/dest.h"
#include "tuple_writer.h"
#include "types.h"
#include "utils/relcache.h"

/* What is done about a row that makes a batch fail; each way is slower than the one before. */
typedef enum CopyCare
{
	COPY_FAST,	  /* nothing: the batch fails */
	COPY_CAREFUL, /* each row is computed, routed and checked in a subtransaction of its own */
	COPY_ALONE	  /* and written in it as well */
} CopyCare;

/* Takes the rows of a batch's query.  "care" is set before copy_receiver_init(). */
typedef struct CopyReceiver
{
	DestReceiver pub;

	/* which rows are copied */
	TransactionId horizon;
	uint32 window; /* transaction ids from the horizon to the snapshot's xmax */

	/* the row: as of the source, then of the target */
	int ncolumns;
	AttrNumber *attnums; /* of the source, by column of the query after xmin */
	TupleTableSlot *source_slot;
	TupleTableSlot *target_slot;
	EState *estate;
	ExprContext *econtext; /* reset a row */
	ColumnEval *eval;
	CopyCare care;
	bool row_by_row; /* derived keys are looked up so, not by a join */

	/* derived keys that the query brings, after the source's columns */
	int first_column; /* of the source's, in the query */
	List *derived;	  /* attributes of the target, counted from 0 */
	char *joins;	  /* that they need */
	BlockNumber first_block;
	uint8 *seen;		 /* a bit a line pointer: has its row come already? */
	Bitmapset *skip_key; /* rows with NULL in one of these are left out */

	/* where it goes */
	Migration *m;
	Relation target;
	TupleWriter *writer; /* COPY_ALONE: one a row */
	RowError misfit;	 /* why the row at hand can't go there */
	ErrorData *broken;	 /* what some row said of the definition, see copy_receiver_finish() */
	ChangeLog *log;
	LogColumns log_columns;
	Datum *log_values;
	bool *log_isnull;

	int64 rows;
	int64 logged;
	int64 skipped;
	int64 failed; /* logged and in failed_rows */
} CopyReceiver;

/*
 * A receiver for one batch, whose snapshot is the active one.  The caller is
 * the owner, and has locked both tables.  may_look_up: keys may be derived row
 * by row, where that is cheap.
 */
extern void copy_receiver_init(CopyReceiver *receiver, Migration *m, const Batch *batch,
							   Relation source, Relation target, bool may_look_up);

/* Run the batch's query; returns how many parents were looked up row by row. */
extern int64 copy_receiver_read(CopyReceiver *receiver, const Batch *batch, Relation source);

/*
 * Write what the writer still holds: the snapshot is still needed for that.  Where no row
 * at all could be copied because of what an expression names, that is the error.
 */
extern void copy_receiver_finish(CopyReceiver *receiver);

#endif
