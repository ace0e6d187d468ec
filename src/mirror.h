/*-------------------------------------------------------------------------
 *
 * mirror.h
 *	  The one primitive of drain, write-through and reverse sync: make the
 *	  other side's row for this identity equal to this side's current row.
 *
 * "front" is the side that is read, "back" the one that is written: source and
 * target in direction forward, target and source (the original) in reverse.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_MIRROR_H
#define MIGRATE_EXT_MIRROR_H

#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "types.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

typedef struct Mirror Mirror;

typedef enum MirrorResult
{
	MIRROR_UNCHANGED, /* was equal already */
	MIRROR_WRITTEN,
	MIRROR_REFUSED /* can't be written; *refusal tells; nothing done */
} MirrorResult;

/*
 * Opens the back side's relations (RowExclusiveLock), its maps and executor
 * state under CurrentResourceOwner and CurrentMemoryContext; the caller decides
 * how long they live.  The front side's relations are opened a call.  m must
 * live as long.  An error leaves nothing open.
 */
extern Mirror *mirror_open(Migration *m, Direction direction);

/* Close it; locks stay until the transaction ends.  Also after an error. */
extern void mirror_close(Mirror *mirror);

/*
 * Let go of all that is open, before the transaction ends; what is known of the
 * tables is kept.  False: it can't be, and the mirror must be closed.
 */
extern bool mirror_rest(Mirror *mirror);

/*
 * In another transaction: open the tables again, under CurrentResourceOwner.
 * False: they have changed, and the mirror must be closed.  An error leaves it so
 * that it can be closed.
 */
extern bool mirror_wake(Mirror *mirror);

/*
 * A relation has changed since it was opened, or a call failed half-way: the
 * next call opens everything anew, and may raise what mirror_open() raises.
 */
extern bool mirror_is_stale(Mirror *mirror);

/* The transaction has ended, and with it all mirrors. */
extern void mirror_forget(void);

/* A call is under way: it must not be closed. */
extern bool mirror_is_busy(Mirror *mirror);

/* Why an identity could not be written; in the caller's memory context. */
typedef struct MirrorRefusal
{
	int sqlerrcode;
	char *message;

	/*
	 * Identities of other rows, which stood in the way of a unique key, were
	 * deleted, and could not be put back: List of MirrorDisplaced.  Whatever
	 * the result is, the caller logs them.
	 */
	List *displaced;
} MirrorRefusal;

typedef struct MirrorDisplaced
{
	Datum *values; /* an entry of the log: identity, the rest NULL */
	bool *isnull;
	int sqlerrcode;
	char *message;
} MirrorDisplaced;

/*
 * One identity.  "entry" has the columns of the change log (LogColumns of
 * m->log; identity, then the hint values of the OLD row); more hints may be
 * given: nentries of them, all of the same identity, as arrays values[i],
 * isnull[i].  all_leaves: search every leaf (the OLD key is not known).
 *
 * snapshot: an MVCC snapshot to read the front row with (drain), or NULL:
 * the latest, own changes included (trigger; uses SnapshotSelf).
 *
 * The caller must be the owner (user_switch_owner or run_as_owner), and with a
 * snapshot the settings must be pinned, as in a Run.
 * MIRROR_REFUSED sets *refusal (sqlstate and message); nothing was changed for
 * this identity, and the caller logs it.
 * Rows in the way of a unique key are deleted and mirrored in the same call.
 * In direction reverse two rows of one identity raise unique_violation (23505),
 * or are a refusal where a snapshot was given.
 */
extern MirrorResult mirror_row(Mirror *mirror, int nentries, Datum **values, bool **isnull,
							   bool all_leaves, Snapshot snapshot, MirrorRefusal *refusal);

/*
 * Direction forward, drain: remove an identity that was refused from the
 * target.  Its entries, which tell where its old row stands, are about to be
 * deleted, and a later write would put the new row beside it.
 */
extern void mirror_remove(Mirror *mirror, int nentries, Datum **values, bool **isnull,
						  Snapshot snapshot);

/*
 * What a trigger saw: entries of the OLD and the NEW row; NULL for none.  Where
 * the identity changed, the back row of the old one becomes the new one's, if
 * it can.  front_leaf: where both rows stand (reverse), else InvalidOid.
 * MIRROR_REFUSED speaks of both.
 */
typedef struct MirrorEntry
{
	Datum *values;
	bool *isnull;
	Relation front;		  /* of the NEW row, direction forward; or NULL */
	TupleTableSlot *slot; /* the row itself: spares a search if it is still current */
} MirrorEntry;

extern MirrorResult mirror_change(Mirror *mirror, const MirrorEntry *old_entry,
								  const MirrorEntry *new_entry, Oid front_leaf, bool all_leaves,
								  MirrorRefusal *refusal);

/*
 * The entry of a row of the front side (reverse: of a leaf).  False and
 * *refusal, if the row's columns can't be carried back.  Values may point
 * into the slot.
 */
extern bool mirror_entry(Mirror *mirror, Relation front, TupleTableSlot *slot, MirrorEntry *entry,
						 MirrorRefusal *refusal);

extern bool mirror_same_identity(Mirror *mirror, const MirrorEntry *a, const MirrorEntry *b);

/* The identity of such a row, for failed_rows, by the target's column names. */
extern Jsonb *mirror_identity(Mirror *mirror, Relation front, TupleTableSlot *slot);

/*
 * Around mirror_row() outside of a statement (drain): the foreign key triggers
 * queued in between are fired by the second.
 */
extern void mirror_begin_statement(Mirror *mirror);
extern void mirror_end_statement(Mirror *mirror);

#endif
