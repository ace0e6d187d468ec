/*-------------------------------------------------------------------------
 *
 * call_options.h
 *	  The options of finalize, undo and complete: checked as they are given.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CALL_OPTIONS_H
#define MIGRATE_EXT_CALL_OPTIONS_H

#include "postgres.h"

#include "fmgr.h"

/* Argument n as JSON text; 22023 for an option or a value that there isn't. */
extern char *call_options(FunctionCallInfo fcinfo, int n, bool completes);

#endif
