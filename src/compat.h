/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between PostgreSQL's versions.  A shim carries the newest
 *	  PostgreSQL's name and arguments, so that one day it is only to be deleted
 *	  here: a macro of the function's own name that drops what an older one
 *	  doesn't take, where the argument is always the same.  What no version has
 *	  a name for stands at the end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_COMPAT_H
#define MIGRATE_EXT_COMPAT_H

#include "postgres.h"

#include "access/attmap.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "catalog/pg_attribute.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "nodes/tidbitmap.h"
#include "parser/parse_relation.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#if PG_VERSION_NUM < 150000
#error "migrate_ext needs PostgreSQL 15 or later"
#elif PG_VERSION_NUM >= 190000
#error "migrate_ext has not been made to fit this PostgreSQL: 15 to 18 are supported"
#endif

/* ------------------------------------------------------------------------
 * What came with 16
 * ------------------------------------------------------------------------
 */
#if PG_VERSION_NUM < 160000

#include "catalog/pg_class.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_subscription.h"

#define RelationSetNewRelfilenumber RelationSetNewRelfilenode

#define build_attrmap_by_name(in, out, missing_ok) build_attrmap_by_name(in, out)
#define build_attrmap_by_name_if_req(in, out, missing_ok) build_attrmap_by_name_if_req(in, out)

#define ExecInsertIndexTuples(result, slot, estate, update, no_error, conflict, arbiters, brin) \
	ExecInsertIndexTuples(result, slot, estate, update, no_error, conflict, arbiters)

/* 16 has one function for all kinds of objects; ours are relations only */
static inline bool
object_ownercheck(Oid classid, Oid objectid, Oid roleid)
{
	Assert(classid == RelationRelationId);
	return pg_class_ownercheck(objectid, roleid);
}

/* Which indexes a new version of a row needs entries in; since 16 it may be only those that summarize (BRIN). */
typedef enum TU_UpdateIndexes
{
	TU_None,
	TU_All,
	TU_Summarizing
} TU_UpdateIndexes;

static inline TM_Result
table_tuple_update_compat(Relation rel, ItemPointer tid, TupleTableSlot *slot, CommandId cid,
						  Snapshot snapshot, Snapshot crosscheck, bool wait,
						  TM_FailureData *failure, LockTupleMode *lockmode,
						  TU_UpdateIndexes *update_indexes)
{
	bool update = false;
	TM_Result result = table_tuple_update(rel, tid, slot, cid, snapshot, crosscheck, wait, failure,
										  lockmode, &update);

	*update_indexes = update ? TU_All : TU_None;
	return result;
}

#define table_tuple_update table_tuple_update_compat

#endif

/* ------------------------------------------------------------------------
 * What came with 17
 * ------------------------------------------------------------------------
 */
#if PG_VERSION_NUM < 170000

#define procNumber backendId

#define LockHeldByMe(tag, mode, or_stronger) LockHeldByMe(tag, mode)

#define reindex_relation(stmt, relid, flags, params) reindex_relation(relid, flags, params)

#endif

/* ------------------------------------------------------------------------
 * What came with 18
 * ------------------------------------------------------------------------
 */
#if PG_VERSION_NUM < 180000

#define ATTRIBUTE_GENERATED_VIRTUAL 'v'

#define LockAcquireExtended(tag, mode, session, dont_wait, report, local, log) \
	LockAcquireExtended(tag, mode, session, dont_wait, report, local)

#define index_beginscan(heap, index, snapshot, instrument, keys, orderbys) \
	index_beginscan(heap, index, snapshot, keys, orderbys)
#define index_beginscan_bitmap(index, snapshot, instrument, keys) \
	index_beginscan_bitmap(index, snapshot, keys)

#endif

/* ------------------------------------------------------------------------
 * What has no name of PostgreSQL's
 * ------------------------------------------------------------------------
 */

#define PARTITIONS_HAVE_IDENTITY (PG_VERSION_NUM >= 170000)
#define NOT_NULL_HAS_NAME (PG_VERSION_NUM >= 180000)

/* May column i, from 0, be NULL?  In 18 also one with a NOT NULL constraint that isn't validated. */
static inline bool
column_nullable(TupleDesc desc, int i)
{
#if PG_VERSION_NUM >= 180000
	return TupleDescCompactAttr(desc, i)->attnullability != ATTNULLABLE_VALID;
#else
	return !TupleDescAttr(desc, i)->attnotnull;
#endif
}

/* Since 18 a CHECK constraint may be only told.  ExecCheck() takes a NULL for one that holds. */
static inline ExprState *
prepare_check(const ConstrCheck *check, EState *estate)
{
#if PG_VERSION_NUM >= 180000
	if (!check->ccenforced)
		return NULL;
#endif
	return ExecPrepareExpr(stringToNode(check->ccbin), estate);
}

/* How many processes wait for a lock.  No lock of ours: a glance, and 17's function asserts what only holds under one. */
static inline int
lock_waiters(const LOCK *lock)
{
#if PG_VERSION_NUM >= 160000
	return (int) lock->waitProcs.count;
#else
	return lock->waitProcs.size;
#endif
}

/*
 * After ExecInsertIndexTuples(): what an access method (BRIN, since 17) keeps for
 * the next row are pages, and those are of the resource owner of this moment.
 */
static inline void
index_inserts_end(ResultRelInfo *result pg_attribute_unused())
{
#if PG_VERSION_NUM >= 170000
	for (int i = 0; i < result->ri_NumIndices; i++)
		index_insert_cleanup(result->ri_IndexRelationDescs[i], result->ri_IndexRelationInfo[i]);
#endif
}

/* The statistics target of a column, by its row of pg_attribute; -1: the default, which is NULL from 17 on. */
static inline int
attribute_statistics_target(HeapTuple tuple)
{
#if PG_VERSION_NUM >= 170000
	bool isnull;
	Datum target = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attstattarget, &isnull);

	return isnull ? -1 : DatumGetInt16(target);
#else
	return ((Form_pg_attribute) GETSTRUCT(tuple))->attstattarget;
#endif
}

/*
 * What a query asks to be checked of a relation's privileges: since 16 beside its
 * range table, before in the entry itself.  NULL: nothing.
 */
#if PG_VERSION_NUM >= 160000
static inline RTEPermissionInfo *
query_permissions(Query *query, RangeTblEntry *rte)
{
	return rte->perminfoindex == 0 ? NULL : getRTEPermissionInfo(query->rteperminfos, rte);
}
#else
typedef RangeTblEntry RTEPermissionInfo;

static inline RTEPermissionInfo *
query_permissions(Query *query pg_attribute_unused(), RangeTblEntry *rte)
{
	return rte;
}
#endif

/*
 * The rows that a bitmap points at, page by page, of those that the snapshot sees:
 *
 *		BitmapRows rows;
 *
 *		bitmap_rows_begin(&rows, rel, snapshot, bitmap);
 *		while (bitmap_rows_next(&rows, slot))
 *			...
 *		bitmap_rows_end(&rows);
 *
 * It ends early at a page of which the bitmap no longer knew which rows; rows.lossy tells.
 */
typedef struct BitmapRows
{
	TableScanDesc scan;
	bool lossy;
#if PG_VERSION_NUM < 180000
	TBMIterator *pages;
	TBMIterateResult *page;
#endif
} BitmapRows;

#if PG_VERSION_NUM >= 180000
static inline void
bitmap_rows_begin(BitmapRows *rows, Relation rel, Snapshot snapshot, TIDBitmap *bitmap)
{
	rows->scan = table_beginscan_bm(rel, snapshot, 0, NULL);
	rows->scan->st.rs_tbmiterator = tbm_begin_iterate(bitmap, NULL, InvalidDsaPointer);
	rows->lossy = false;
}

static inline bool
bitmap_rows_next(BitmapRows *rows, TupleTableSlot *slot)
{
	bool recheck;
	uint64 lossy_pages = 0;
	uint64 exact_pages = 0;
	bool found =
		table_scan_bitmap_next_tuple(rows->scan, slot, &recheck, &lossy_pages, &exact_pages);

	rows->lossy = lossy_pages > 0;
	return found && !rows->lossy;
}

static inline void
bitmap_rows_end(BitmapRows *rows)
{
	tbm_end_iterate(&rows->scan->st.rs_tbmiterator);
	table_endscan(rows->scan);
}
#else
static inline void
bitmap_rows_begin(BitmapRows *rows, Relation rel, Snapshot snapshot, TIDBitmap *bitmap)
{
#if PG_VERSION_NUM >= 170000
	rows->scan = table_beginscan_bm(rel, snapshot, 0, NULL, true);
#else
	rows->scan = table_beginscan_bm(rel, snapshot, 0, NULL);
#endif
	rows->pages = tbm_begin_iterate(bitmap);
	rows->page = NULL;
	rows->lossy = false;
}

static inline bool
bitmap_rows_next(BitmapRows *rows, TupleTableSlot *slot)
{
	while (rows->page == NULL || !table_scan_bitmap_next_tuple(rows->scan, rows->page, slot))
	{
		do
		{
			CHECK_FOR_INTERRUPTS();
			rows->page = tbm_iterate(rows->pages);
			rows->lossy = rows->page != NULL && rows->page->ntuples < 0;
			if (rows->page == NULL || rows->lossy)
				return false;
		} while (!table_scan_bitmap_next_block(rows->scan, rows->page));
	}
	return true;
}

static inline void
bitmap_rows_end(BitmapRows *rows)
{
	tbm_end_iterate(rows->pages);
	table_endscan(rows->scan);
}
#endif

#endif
