/*-------------------------------------------------------------------------
 *
 * verify_records.h
 *	  The records of a verification: its pass, and its ranges.  Each function
 *	  works in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_VERIFY_RECORDS_H
#define MIGRATE_EXT_VERIFY_RECORDS_H

#include "access/xlogdefs.h"
#include "catalog.h"
#include "nodes/pg_list.h"
#include "types.h"
#include "verify_changed.h"

/*
 * preparing: the requester finds out what has to be read.  reading: all processes
 * of the migration read.  done: the result is recorded, or given up.
 */
typedef enum VerifyStage
{
	VERIFY_NONE,
	VERIFY_PREPARING,
	VERIFY_READING,
	VERIFY_DONE
} VerifyStage;

typedef struct VerifyPass
{
	VerifyStage stage;
	int64 requester; /* lease of the process that asked, and ends it */
	bool background; /* nobody waits for it */
	MigrationState state;
	int64 basis;	  /* what its result depends on: see verify.c */
	int64 definition; /* and what that of a range does */
	char *place;	  /* ranges are cut up to here; NULL: none is */
	bool cut;		  /* all are */
	VerifyTime began;
	TimestampTz ended_at;
} VerifyPass;

typedef struct VerifyRange
{
	int64 range;
	char *low; /* SQL text as in compare.h, or NULL */
	char *high;
	VerifyCounts counts;
	double took_ms;
	XLogRecPtr as_of; /* InvalidXLogRecPtr: to be read in any case */
	List *places;	  /* List of RangePlace * */
} VerifyRange;

/* The pass of a migration; VERIFY_NONE if there was none.  for_update locks it. */
extern VerifyPass verify_pass_load(int64 migration_id, bool for_update);
extern void verify_pass_save(int64 migration_id, const VerifyPass *pass);

/* Is a pass being read by somebody who is there, with ranges left to cut or to read? */
extern bool verify_pass_has_work(int64 migration_id);

/* Forget all ranges, or from this one on. */
extern void verify_ranges_forget(int64 migration_id, int64 from);

/* A new one, to be read. */
extern void verify_range_add(int64 migration_id, const char *low, const char *high);

/*
 * A range to be read, locked until the end of the transaction: so nobody else reads
 * it, and where this process dies, somebody else does.  False if there is none.
 */
extern bool verify_range_claim(int64 migration_id, VerifyRange *range);
/* It could not be read now: others come first, for a while that gets longer each time. */
extern void verify_range_postpone(int64 migration_id, int64 range);
extern void verify_range_save(int64 migration_id, const VerifyRange *range);

/* All of them, in order: List of VerifyRange *, without counts. */
extern List *verify_ranges(int64 migration_id);

/* These, a List of VerifyRange *, are to be read, and no others. */
extern void verify_ranges_reopen(int64 migration_id, List *ranges);

/* The sum of those that have been read, but for failed rows; whether all have. */
extern bool verify_ranges_sum(int64 migration_id, VerifyCounts *counts);

/* Is there one that has not been read? */
extern bool verify_ranges_unread(int64 migration_id);

/* How many there are; *read: since the pass began. */
extern int64 verify_ranges_count(int64 migration_id, int64 *read);

#endif
