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
 * Buffer a row in root's format.  The slot's contents are copied.  False, and
 * nothing is done, if the row doesn't fit: no partition takes it, or NOT NULL or
 * a CHECK forbids it.
 */
extern bool tuple_writer_add(TupleWriter *writer, TupleTableSlot *slot);

/* Write what is buffered, close everything. */
extern void tuple_writer_finish(TupleWriter *writer);

#endif
