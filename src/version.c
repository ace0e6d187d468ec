/*-------------------------------------------------------------------------
 *
 * version.c
 *	  The version of this library and of the extension's objects; see version.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "version.h"

PG_FUNCTION_INFO_V1(migrate_ext_update_due);

/* Every process of this server has the library that it was started with. */
static bool preloaded = false;

void
version_init(void)
{
	preloaded = process_shared_preload_libraries_in_progress;
}

Oid
version_extension(char **objects)
{
	Relation catalog = table_open(ExtensionRelationId, AccessShareLock);
	Oid extension = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("migrate_ext"));
	scan = systable_beginscan(catalog, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool isnull;
		Datum version =
			heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(catalog), &isnull);

		extension = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		*objects = isnull ? pstrdup("") : TextDatumGetCString(version);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return extension;
}

/* By their numbers: 1.10 is newer than 1.9. */
int
version_of_library_against(const char *version)
{
	const char *library = MIGRATE_EXT_VERSION;

	while (*library != '\0' || *version != '\0')
	{
		long a = strtol(library, (char **) &library, 10);
		long b = strtol(version, (char **) &version, 10);

		if (a != b)
			return a < b ? -1 : 1;
		/* what is no number is text */
		if (*library != *version)
			return (unsigned char) *library < (unsigned char) *version ? -1 : 1;
		if (*library != '\0')
		{
			library++;
			version++;
		}
	}
	return 0;
}

void
version_raise(int elevel, const char *objects)
{
	ereport(
		elevel,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("the library of migrate_ext is version %s, its objects in this database are "
				"version %s",
				MIGRATE_EXT_VERSION, objects),
		 version_of_library_against(objects) > 0
			 ? errhint("A superuser brings them up to date: ALTER EXTENSION migrate_ext UPDATE.")
		 : preloaded ? errhint("Restart the server: it has loaded the library of before.")
					 : errhint("Connect again: this session has loaded the library of before.")));
}

void
version_require(void)
{
	char *objects;

	if (OidIsValid(version_extension(&objects)) && version_of_library_against(objects) != 0)
		version_raise(ERROR, objects);
}

/* update_due(): are the objects older than the library? */
Datum
migrate_ext_update_due(PG_FUNCTION_ARGS)
{
	char *objects;

	PG_RETURN_BOOL(OidIsValid(version_extension(&objects)) &&
				   version_of_library_against(objects) > 0);
}
