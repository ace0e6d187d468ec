/*-------------------------------------------------------------------------
 *
 * tuple_writer.h
 *	  Writes many new rows into the leaves of a partitioned table that has no
 *	  index yet: routing, then table_multi_insert, buffered a leaf.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_TUPLE_WRITER_H
#define MIGRATE_EXT_TUPLE_WRITER_H

#include "postgres.h"

#include "errors.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

typedef struct TupleWriter TupleWriter;

/*
 * root is open and locked RowExclusiveLock by the caller.  check_constraints:
 * CHECKs of the leaves are evaluated too (an adopted target); NOT NULL always.
 */
extern TupleWriter *tuple_writer_create(Relation root, bool check_constraints);

/*
 * Does the row, in root's format, fit?  False and *error if no partition takes it, or NOT
 * NULL or a CHECK forbids it.  May be called in a subtransaction of the writer's, which
 * writes nothing then; an error of the row's leaves the writer as it was.
 */
extern bool tuple_writer_fits(TupleWriter *writer, TupleTableSlot *slot, RowError *error);

/* Is an error one of opening a partition, and so not of the row's? */
extern bool tuple_writer_is_opening(TupleWriter *writer);

/* Buffer the row that tuple_writer_fits() said true of.  Its contents are copied. */
extern void tuple_writer_put(TupleWriter *writer);

/* Write what is buffered, close everything. */
extern void tuple_writer_finish(TupleWriter *writer);

#endif
