/*-------------------------------------------------------------------------
 *
 * arguments.h
 *	  Reading and checking the arguments of SQL calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_ARGUMENTS_H
#define MIGRATE_EXT_ARGUMENTS_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

/* A required argument: NULL is 22004, naming it. */
extern void argument_require(FunctionCallInfo fcinfo, int n, const char *name);
extern char *argument_text(FunctionCallInfo fcinfo, int n, const char *name);
extern bool argument_bool(FunctionCallInfo fcinfo, int n, const char *name);
extern Jsonb *argument_options(FunctionCallInfo fcinfo, int n);

/* Option on_null_key of a request, "error" unless it is given; 22023 for what it can't be. */
extern const char *argument_on_null_key(Jsonb *options);

/*
 * Every call that changes something begins with this: 25006 on a standby or in
 * a READ ONLY transaction, 55000 while an update of the extension is due.
 */
extern void argument_require_writable(const char *call);

/* Every procedure that waits: 25001 where it stands in a transaction block. */
extern void argument_require_nonatomic(FunctionCallInfo fcinfo, const char *call);

#endif
