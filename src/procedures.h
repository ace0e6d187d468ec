/*-------------------------------------------------------------------------
 *
 * procedures.h
 *	  What the procedures share: a call that works in transactions of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_PROCEDURES_H
#define MIGRATE_EXT_PROCEDURES_H

#include "fmgr.h"
#include "types.h"

/* A procedure under way. */
typedef struct Call
{
	const char *name; /* for messages */
	Run *run;
	char *migration;
	TimestampTz deadline;  /* 0: none */
	int64 last_event;	   /* told so far */
	bool leading;		   /* holds the leader's lock */
	bool key;			   /* the migration is one of kind "key" */
	MemoryContext context; /* lives as long as the call */
} Call;

/*
 * Open a call: arguments are checked in the CALL's own transaction, which is
 * then ended, so that no snapshot of it is left.  25001 in a transaction block,
 * 25006 where nothing can be written, 42704 and 42501 as catalog_find().
 */
extern void call_begin(Call *call, FunctionCallInfo fcinfo, const char *name);

/* Give back what the call holds. */
extern void call_finish(Call *call);

/* From PG_CATCH: the same, and then let the error go on. */
extern void call_fail(Call *call);

/*
 * Make the leader's next step ourselves if nobody else leads, else sleep.
 * Errors that a worker would note down and try again are the caller's to see.
 */
extern void call_step_or_sleep(Call *call);

#endif
