/*-------------------------------------------------------------------------
 *
 * carry.h
 *	  What hangs on the application's table and follows it at a swap, either
 *	  way: grants, policies, comments, views, foreign keys, triggers, ...
 *
 * Each kind of thing has a carrier, in a file carry_<kind>.c of its own.  "Front"
 * is the table that the application uses now, "back" the one that takes over:
 * source and target for DIRECTION_FORWARD, target and source for
 * DIRECTION_REVERSE.
 *
 * Much can stand on both tables at once and is made on the back table before the
 * swap (prepare).  The rest moves in the swap's own transaction, under its locks
 * (collect before the renames, move after them), and by catalog changes alone.
 * What can't be carried is an error of preflight (sql/30_preflight.sql), so that
 * a carrier never meets it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MIGRATE_EXT_CARRY_H
#define MIGRATE_EXT_CARRY_H

#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "plan_list.h"
#include "storage/lockdefs.h"
#include "types.h"

/* What of a carrier plan() asks for: its functions of that name, in the order of their being called. */
typedef enum CarryPart
{
	CARRY_PREPARE,
	CARRY_COLLECT,
	CARRY_MOVE,
	CARRY_LEAVE
} CarryPart;

typedef struct Carrier
{
	const char *name;

	/*
	 * Make on the back table what it still lacks, one short piece of work a
	 * call; true if nothing was left to do.  look_only: change nothing.  The
	 * caller is superuser in a Run or in the swap's transaction, lock waits are
	 * bounded; DDL is run as the object's owner (user_switch_owner).  Repeated
	 * until true, each call in a transaction of its own, and looked at once more
	 * under the swap's locks: somebody may have made another one meanwhile.
	 * Or NULL.
	 */
	bool (*prepare)(Migration *m, Direction direction, bool look_only);

	/*
	 * Under the swap's locks, before the renames: whatever move() needs to know,
	 * palloc'd; or NULL.
	 */
	void *(*collect)(Migration *m, Direction direction);

	/* After the renames, in the same transaction; or NULL. */
	void (*move)(Migration *m, Direction direction, void *collected);

	/*
	 * Other relations that must stand still while this carrier moves what it
	 * moves, by carry_add_lock(); or NULL.  The swap locks them before the tables,
	 * because who uses a view locks the view first.  ahead: as if all were made
	 * that can be made before the swap.
	 */
	List *(*locks)(Migration *m, Direction direction, bool ahead);

	/*
	 * At the end of the migration, under exclusive locks on both tables: undo on
	 * the one that stays on its own what was made there only for the other's sake.
	 * That is the original at complete, a target that was given to us at cancel.
	 * Or NULL.
	 */
	void (*leave)(Migration *m, Oid left);

	/*
	 * For plan(): add what that part will do to the table as it is now, on the way
	 * forth (leave: to the original), by the very statements that it asks for or
	 * makes: plan_add_ddl().  A change of the catalog is told as the statement that
	 * would do the same, or in words as a comment ("-- ..."), with PLAN_EQUIVALENT.
	 * What is not there yet is told by the name that it will have; of a name that
	 * can't be known a '?' takes the place, and the note says so.
	 * Called as the owner, ACCESS SHARE on both tables; changes nothing and waits
	 * for no lock.  Or NULL.
	 */
	void (*plan)(MigrationPlan *plan, CarryPart part);
} Carrier;

/* Is all that can be made before the swap there?  Changes nothing. */
extern bool carry_is_prepared(Migration *m, Direction direction);

/*
 * Pieces of preparing for about a second, each in a bounded attempt of its own: DONE
 * if nothing was left to do, MORE, or WAIT where a lock was not to be had.  asked: it
 * is part of what a request waits for, and counts as an attempt of that; else there
 * is no request to write to.
 */
extern StepResult carry_prepare_step(Run *run, bool asked);

/* Another relation that the swap has to lock. */
typedef struct CarryLock
{
	Oid relid;
	LOCKMODE mode;
} CarryLock;

/* The list with one more; the stronger mode where it is there already. */
extern List *carry_add_lock(List *locks, Oid relid, LOCKMODE mode);

/* All of them, in the order in which they are to be taken: by OID. */
extern List *carry_locks(Migration *m, Direction direction, bool ahead);

/*
 * Around the renames of the swap.  carry_collect: 55P03 if one of carry_locks() is
 * not held by now, because it is new, and can't be had at once.
 */
typedef struct Carried Carried;
extern Carried *carry_collect(Migration *m, Direction direction);
extern void carry_move(Migration *m, Direction direction, Carried *carried);

/* For the swap's event: what move() has moved without an event of its own, such as "view public.v". */
extern void carry_tell(Migration *m, char *moved);

/* What they all will do in that part. */
extern void carry_plan(MigrationPlan *plan, CarryPart part);

/* At the end, for the table that stays on its own; lock waits are bounded. */
extern void carry_leave(Migration *m, Oid left);

/* ---- what the carriers share ---- */

/* How long one piece of preparing may take that is made of many statements, locks held meanwhile. */
#define CARRY_PIECE_MS 100

/* The event that tells what was made on the back table, or changed there. */
#define EVENT_CARRIED "carried"

/*
 * The first column of what a query with two OIDs returns, a text: List of char *.
 * plan: see CatalogCall.
 */
extern List *carry_texts(SPIPlanPtr *plan, const char *sql, Oid one, Oid other);

/* What a swap changes of a relation, as what follows its name in ALTER TABLE. */
typedef struct CarryChange
{
	Oid relid;
	char *change;
} CarryChange;

/*
 * What migrate_ext.<function>(front, back, ahead) returns, List of CarryChange *.  Before the
 * renames, or after them, the same: tables are known by OID.  ahead: as if all
 * were made that can be made before the swap.
 */
extern List *carry_changes(SPIPlanPtr *plan, const char *function, Oid front, Oid back, bool ahead);

/* For plan(): what the swap changes by these, "ALTER TABLE" or "ALTER TABLE ONLY". */
extern void carry_plan_changes(MigrationPlan *plan, const char *function, const char *alter);

/* The same, where an object by a change of its catalog "names", say, the one table instead of the other. */
extern void carry_plan_follows(MigrationPlan *plan, const char *object, const char *does);

/*
 * Run DDL as the owner of what it changes, in whose name a partition key's
 * functions may run: as text, or as a statement that was parsed from the text
 * and then changed.
 */
extern void carry_run(Oid owner, const char *sql);
extern void carry_utility(Oid owner, Node *statement, const char *text);

/* The text of a statement with another name in the place of a relation's, as it is written there. */
extern char *carry_renamed(const char *text, const RangeVar *named, const char *other);

#endif
