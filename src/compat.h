/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between PostgreSQL's versions.  A shim carries the newest
 *	  PostgreSQL's name, so that one day it is only to be deleted here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_COMPAT_H
#define MIGRATE_EXT_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "migrate_ext needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM < 160000
#include "catalog/pg_class.h"
#include "utils/acl.h"
#include "utils/relcache.h"

#define RelationSetNewRelfilenumber RelationSetNewRelfilenode

/* 16 has one function for all kinds of objects; ours are relations only */
static inline bool
object_ownercheck(Oid classid, Oid objectid, Oid roleid)
{
	Assert(classid == RelationRelationId);
	return pg_class_ownercheck(objectid, roleid);
}
#endif

#endif
