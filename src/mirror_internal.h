/*-------------------------------------------------------------------------
 *
 * mirror_internal.h
 *	  What the files of the mirror share:
 *
 *		mirror.c			opening and closing, the calls
 *		mirror_group.c		the algorithm
 *		mirror_columns.c	opening the maps of columns
 *		mirror_map.c		from one side's columns to the other's
 *		mirror_guard.c		expressions that may fail
 *		mirror_places.c		finding rows by identity
 *		mirror_unique.c		rows in the way of unique keys
 *		mirror_write.c		checks, update, insert, delete, foreign key triggers
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_MIRROR_INTERNAL_H
#define MIGRATE_EXT_MIRROR_INTERNAL_H

#include "access/attmap.h"
#include "access/genam.h"
#include "access/skey.h"
#include "changelog.h"
#include "columns.h"
#include "mirror.h"
#include "nodes/execnodes.h"
#include "router.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/resowner.h"

/* Slots of a kind that calls borrow; making one takes longer than many a use of it. */
typedef struct SlotPool
{
	TupleDesc desc;
	const TupleTableSlotOps *ops;
	MemoryContext context;
	List *idle;
} SlotPool;

/*
 * A table that holds rows: the source, or a leaf of the target.  The first part
 * is found out at first sight; the second exists while the table is open, which
 * is only ever so on the back side.
 */
typedef struct Place
{
	Oid relid;			/* hash key */
	bool known;			/* the first part is filled in */
	uint64 looked;		/* when last looked at: mirror->openings */
	bool is_table;		/* false: a foreign table, say */
	TupleDesc desc;		/* a copy, with constraints */
	SlotPool found;		/* for rows read from it */
	SlotPool made;		/* for rows to be written to it */
	AttrMap *from_root; /* root's columns to this table's; NULL: same */
	AttrMap *to_root;	/* and back */
	Oid identity_index; /* to search by; invalid: there is none */
	int nkeys;
	ScanKeyData keys[INDEX_MAX_KEYS];	 /* in the index's order, no values */
	int key_position[INDEX_MAX_KEYS];	 /* position in the identity */
	AttrNumber identity[INDEX_MAX_KEYS]; /* attribute numbers here */

	Relation rel; /* NULL: not open */
	ResultRelInfo *info;
	IndexScanDesc scan; /* of identity_index; between searches it holds no pin; or NULL */
	SnapshotData dirty; /* its snapshot */
	ExprState **checks; /* of desc's constraints; NULL: not compiled */
	bool user_code;		/* checks or indexes call functions of users */
} Place;

struct Mirror
{
	/* for good */
	Migration *m;
	Direction direction;
	MemoryContext context;		/* this struct's */
	MemoryContext call_context; /* reset after each call */
	ResourceOwner parent_owner; /* of those who opened it */

	/* state */
	bool ready;		   /* the rest is there */
	bool busy;		   /* a call is under way */
	bool broken;	   /* a call failed, or an expression did */
	uint64 generation; /* of the relation cache when it was opened */
	uint64 openings;   /* how often its tables were opened */

	/* what is open: until mirror_rest() */
	MemoryContext open_context;
	ResourceOwner owner; /* NULL: nothing is */
	EState *estate;
	Relation back_root; /* target, or the original */
	List *open_places;
	ColumnEval *forward; /* source to target */
	ColumnEval *reverse; /* target to source; NULL in direction forward */

	/* what is known: thrown away by mirror_reset() */
	MemoryContext known_context;
	TupleDesc source_desc; /* copies */
	TupleDesc target_desc;
	SlotPool source_rows; /* in the root's format */
	SlotPool target_rows;
	LogColumns log;
	HTAB *places;

	/* columns */
	ColumnMap *forward_map;
	ColumnMap *reverse_map;						/* NULL in direction forward */
	AttrNumber target_identity[INDEX_MAX_KEYS]; /* of the target's root */
	bool identity_plain;						/* the same values on both sides */
	Bitmapset *key_attrs;						/* target's attributes that an entry determines,
								 * counted from 0 */
	bool key_known;								/* an entry determines the leaf */
	Bitmapset *derived;							/* source's attribute numbers: NULL there means that
								 * the key is derived, and may be in any leaf */
	Bitmapset *root_key;						/* target's attribute numbers: its partition key */
	bool skip_null_key;							/* a row that comes to NULL there is left out */
	bool map_risky;								/* carrying a row over can raise an error */
	bool entry_risky;							/* so can reading an entry */
	bool routing_risky;							/* and finding its leaf */
	bool user_code;								/* map or routing calls functions of users */
	TupleTableSlot *entry_slot;					/* source's columns, only an entry's are set */
	TupleTableSlot *key_slot;					/* target's columns, only key_attrs are set */

	/* routing: for good in direction forward, else by the call */
	Router *router;
	Relation router_root;
	EState *router_estate;
	MemoryContext router_context;
};

/* An identity that a call deals with. */
typedef struct Subject
{
	Datum *source_values; /* nidentity of them */
	Datum *target_values; /* the same in the target's types */
	bool target_known;	  /* else no row of the target can have it */
	bool all_leaves;
	List *leaves; /* OIDs to search; from the entries */
	int nentries;
	const MirrorEntry *entries;

	/* was in the way of a unique key, and is deleted from there */
	bool displaced;
	ItemPointerData displaced_tid;
} Subject;

/* A row found. */
typedef struct Row
{
	Place *place;
	TupleTableSlot *slot; /* holds a pin */
	Subject *subject;
	bool used; /* will become a wanted row */
} Row;

/* A row that shall be on the back side. */
typedef struct Wanted
{
	Subject *subject;
	TupleTableSlot *front; /* in the root's format */
	Oid front_leaf;
	TupleTableSlot *slot; /* the new row, in place's format */
	Place *place;
	Row *old;			/* to be updated, or NULL */
	bool skipped;		/* it is to be left out */
	bool equal;			/* nothing to do */
	Bitmapset *changed; /* attribute numbers, if old */
} Wanted;

typedef struct Call
{
	Mirror *mirror;
	Snapshot snapshot; /* or NULL */
	Oid front_leaf;
	bool remove;	/* as if there were no front row */
	List *subjects; /* all; those displaced are added */
	int done;		/* so many are dealt with */
	List *slots;	/* borrowed ones */
	List *pools;	/* where each of them belongs */
	bool written;
	bool pinned; /* GUC nest level is ours */
	int guc_nestlevel;
	MirrorRefusal *refusal; /* where the caller wants it */
	MemoryContext result_context;
} Call;

/* What looking came to. */
typedef enum Way
{
	WAY_CLEAR,
	WAY_CHANGED, /* waited for somebody: look again */
	WAY_BLOCKED	 /* refused */
} Way;

/* mirror.c */
extern void mirror_reopen(Mirror *mirror);
extern void slot_pool_init(SlotPool *pool, TupleDesc desc, const TupleTableSlotOps *ops);
extern TupleTableSlot *call_slot(Call *call, SlotPool *pool);
extern void call_drop_slots(Call *call);
extern TupleTableSlot *front_in_root_format(Call *call, Row *row);
extern void call_pin_settings(Call *call);
extern void call_unpin_settings(Call *call);
extern void watch_relation(Oid relid);

/* sets *refusal, and is false */
extern bool refuse(Call *call, MirrorRefusal *refusal, int sqlerrcode, const char *fmt, ...)
	pg_attribute_printf(4, 5);

/* mirror_group.c */
extern bool mirror_group(Call *call, List *group, MirrorRefusal *refusal);

/* mirror_columns.c */
extern void map_open(Mirror *mirror);
extern void map_prepare(Mirror *mirror);
extern void router_open(Mirror *mirror);
extern void router_close(Mirror *mirror);

/* mirror_map.c */
extern void map_subject(Call *call, Subject *subject);
extern bool map_wanted(Call *call, Wanted *wanted, MirrorRefusal *refusal);
extern bool map_lacks_key(Mirror *mirror, TupleTableSlot *source_row);
extern Subject *map_obstacle(Call *call, Row *row);
extern Oid map_leaf_of_back_row(Call *call, Row *row);

/* mirror_guard.c */
extern bool is_user_function(Oid function, void *context);
extern bool contains_user_code(Node *node);
typedef bool (*Guarded)(Call *call, void *arg, MirrorRefusal *refusal);
extern bool run_guarded(Call *call, bool risky, Guarded work, void *arg, MirrorRefusal *refusal);

/* > 0: the subtransaction that is ending is a guard's */
extern int mirror_guard_depth;

/* mirror_places.c */
extern Place *place_get(Mirror *mirror, Oid relid);
extern bool place_open(Mirror *mirror, Place *place);
extern void place_closed(Place *place);
extern bool same_source_identity(Mirror *mirror, const Datum *a, const Datum *b);
extern Way find_back_rows(Call *call, List *group, List *wanted, List **rows,
						  MirrorRefusal *refusal);
extern bool find_front_rows(Call *call, Subject *subject, List *back_rows, List **rows,
							MirrorRefusal *refusal);
extern void wait_for_transaction(Call *call, Relation rel, ItemPointer tid, SnapshotData *dirty,
								 XLTW_Oper reason);

/* mirror_unique.c */

extern Way find_obstacles(Call *call, Wanted *wanted, List *group, List *rows, List **obstacles,
						  MirrorRefusal *refusal);

/* mirror_write.c */
extern void filter_triggers(ResultRelInfo *info, Direction direction);
extern bool check_row(Call *call, Wanted *wanted, MirrorRefusal *refusal);
extern bool delete_row(Call *call, Row *row, bool moves);
extern bool displace_row(Call *call, Row *row);
extern void finish_displaced(Call *call, Subject *subject);
extern bool update_row(Call *call, Wanted *wanted);
extern void insert_row(Call *call, Wanted *wanted);

#endif
