/*-------------------------------------------------------------------------
 *
 * router.h
 *	  Finds the leaf of a row, for any number of levels of partitioning.
 *	  Unlike ExecFindPartition, which raises an error, it tells when there is
 *	  none: a write-through must find that out before it tries.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_ROUTER_H
#define MIGRATE_EXT_ROUTER_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

typedef struct Router Router;

/*
 * root: an open partitioned table, which must stay open as long as the router.
 * Intermediate partitioned tables are opened (RowExclusiveLock) on first use;
 * the leaves are not opened.  estate: for key expressions.
 */
extern Router *router_create(Relation root, EState *estate);
extern void router_free(Router *router);

/* The leaf for a row in root's format, or InvalidOid if no partition takes it. */
extern Oid router_route(Router *router, TupleTableSlot *slot);

#endif
