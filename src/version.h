/*-------------------------------------------------------------------------
 *
 * version.h
 *	  The version of this library, and that of the extension's objects in the
 *	  database: functions, tables, views.
 *
 * A package brings a new library; ALTER EXTENSION UPDATE brings the objects.  In
 * between, and in sessions that loaded the library before, the two are not of one
 * version.  Then an application's writes go on: triggers ask nobody, and work with
 * the objects of older and newer versions (CONTRIBUTING.md tells what that takes).
 * All else waits: calls are refused, and no worker does a step.  One whose library
 * is of an older version ends, for the postmaster to start it with the new one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_VERSION_H
#define MIGRATE_EXT_VERSION_H

extern const char *const version_of_library;

/* From _PG_init. */
extern void version_init(void);

/*
 * The extension in this database, InvalidOid if there is none, and the version of its
 * objects.  In a transaction.
 */
extern Oid version_extension(char **objects);

/* Is this library of that version, older (less than 0) or newer? */
extern int version_of_library_against(const char *version);

/* The error that it isn't, and what to do. */
extern void version_refuse(const char *objects);

/* For a call: an error if library and objects are of two versions. */
extern void version_require(void);

#endif
