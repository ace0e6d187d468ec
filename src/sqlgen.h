/*-------------------------------------------------------------------------
 *
 * sqlgen.h
 *	  Names and generated SQL: quoting, shortening, small helpers around SPI.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_SQLGEN_H
#define MIGRATE_EXT_SQLGEN_H

#include "lib/stringinfo.h"
#include "tcop/dest.h"
#include "types.h"

/* schema.table, quoted; error 42P01 if the relation is gone */
extern char *sql_relation(Oid relid);
/* schema.name, quoted */
extern char *sql_qualified(const char *schema, const char *name);
/* quoted list of column names of relid: "a, b"; alias may be NULL or "s" */
extern char *sql_columns(Oid relid, int natts, const AttrNumber *attnums, const char *alias);
/*
 * SQL that brings a value to a column's type as an assignment does: one too long
 * for a varchar(n) is an error (22001), where a cast would cut it.
 */
extern char *sql_assignment(const char *value, Oid type, int32 typmod);

/*
 * base || suffix cut to NAMEDATALEN - 1 bytes by shortening base at a
 * character boundary.  name_free() does the same but also takes a number in
 * where the name is taken by a relation (or type) of that schema.
 */
extern char *name_make(const char *base, const char *suffix);
extern char *name_free(const char *base, const char *suffix, Oid schema);

/*
 * Run one statement of DDL or DML through SPI (connects by itself), with the
 * current user; returns the number of rows processed.
 */
extern uint64 sql_run(const char *fmt, ...) pg_attribute_printf(1, 2);
/*
 * Run a query into a receiver, with the active snapshot.  Never in parallel, as plain
 * SPI would: a receiver may write.  what: "compare", say, for the error.
 */
extern void sql_read_into(const char *sql, DestReceiver *receiver, const char *what);
/* One value of one row as text (copied to the caller's context), or NULL. */
extern char *sql_text(const char *fmt, ...) pg_attribute_printf(1, 2);
extern int64 sql_int64(const char *fmt, ...) pg_attribute_printf(1, 2);

/* Jsonb helpers: a top-level field as text or NULL; parse */
extern char *json_field(Jsonb *object, const char *field);
extern Jsonb *json_parse(const char *text);
extern char *json_text(Jsonb *object);
/* A JSON string literal, quotes and all. */
extern char *json_quote(const char *text);
/* One more of them, after a comma where it isn't the first. */
extern void json_append(StringInfo list, const char *text);

#endif
