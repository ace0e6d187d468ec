/*-------------------------------------------------------------------------
 *
 * plan_list.c
 *	  The list of statements that plan() returns; see plan_list.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "plan_list.h"
#include "sqlgen.h"

void
plan_add(MigrationPlan *plan, char *statement, char *lock, char *note)
{
	PlanStep *step = palloc(sizeof(PlanStep));

	step->statement = statement;
	step->lock = lock;
	step->note = note;
	plan->steps = lappend(plan->steps, step);
}

void
plan_add_all(MigrationPlan *plan, List *statements, char *lock, char *note)
{
	ListCell *lc;

	foreach (lc, statements)
		plan_add(plan, lfirst(lc), lock, note);
}

/* ------------------------------------------------------------------------
 * Locks
 * ------------------------------------------------------------------------
 */

char *
plan_lock(LOCKMODE mode, const char *table)
{
	static const char *const names[] = {
		NULL,	 "ACCESS SHARE",		"ROW SHARE", "ROW EXCLUSIVE",	 "SHARE UPDATE EXCLUSIVE",
		"SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE",
	};

	return psprintf("%s on %s", names[mode], table);
}

void
plan_add_lock(MigrationPlan *plan, Oid relid, LOCKMODE mode)
{
	char *name = sql_relation(relid);

	plan_add(plan, psprintf("-- lock %s", name), plan_lock(mode, name),
			 "bounded, all of them together; held until the swap's COMMIT");
}

char *
plan_swap_lock(MigrationPlan *plan)
{
	return psprintf("ACCESS EXCLUSIVE on %s and then on %s", sql_relation(plan->m->source),
					sql_relation(plan->m->target));
}

char *
plan_relation(MigrationPlan *plan, Oid relid)
{
	Migration *m = plan->m;

	if (plan->swapped && relid == m->source)
		return plan->original;
	return sql_relation(plan->swapped && relid == m->target ? m->source : relid);
}

/* ------------------------------------------------------------------------
 * Statements
 * ------------------------------------------------------------------------
 */

static char *
lock_on(MigrationPlan *plan, LOCKMODE mode, const RangeVar *relation, bool recurses)
{
	char *lock = plan_lock(mode, sql_qualified(relation->schemaname, relation->relname));
	Oid relid = RangeVarGetRelid(relation, NoLock, true);

	if (plan->swapped && relid == plan->m->source)
		relid = plan->m->target; /* which has that name by then */
	if (recurses && get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		return psprintf("%s and its partitions", lock);
	return lock;
}

/* Of an object's name the part that is a relation's, or the whole. */
static char *
lock_on_object(MigrationPlan *plan, LOCKMODE mode, ObjectType type, Node *object)
{
	List *names = list_copy(castNode(List, object));

	switch (type)
	{
		case OBJECT_COLUMN:
		case OBJECT_POLICY:
		case OBJECT_TABCONSTRAINT:
		case OBJECT_TRIGGER:
			names = list_truncate(names, list_length(names) - 1);
			break;
		default:
			break;
	}
	return lock_on(plan, mode, makeRangeVarFromNameList(names), false);
}

/* Does it change the partitions as well? */
static bool
alter_recurses(const AlterTableStmt *stmt)
{
	AlterTableCmd *cmd = linitial_node(AlterTableCmd, stmt->cmds);

	return stmt->relation->inh && cmd->subtype != AT_SetCompression &&
		   cmd->subtype != AT_SetOptions && cmd->subtype != AT_ResetOptions &&
		   cmd->subtype != AT_SetRelOptions && cmd->subtype != AT_ReplicaIdentity;
}

/* What PostgreSQL locks for it; NULL: no relation. */
static char *
lock_of(MigrationPlan *plan, Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
		{
			AlterTableStmt *stmt = (AlterTableStmt *) statement;

			return lock_on(plan, AlterTableGetLockLevel(stmt->cmds), stmt->relation,
						   alter_recurses(stmt));
		}
		case T_CreateTrigStmt:
		{
			CreateTrigStmt *stmt = (CreateTrigStmt *) statement;

			return lock_on(plan, ShareRowExclusiveLock, stmt->relation, stmt->row);
		}
		case T_CreatePolicyStmt:
			return lock_on(plan, AccessExclusiveLock, ((CreatePolicyStmt *) statement)->table,
						   false);
		case T_CreateStatsStmt:
			return lock_on(plan, ShareUpdateExclusiveLock,
						   linitial(((CreateStatsStmt *) statement)->relations), false);
		case T_CommentStmt:
		{
			CommentStmt *stmt = (CommentStmt *) statement;

			return lock_on_object(plan, ShareUpdateExclusiveLock, stmt->objtype, stmt->object);
		}
		case T_DropStmt:
		{
			DropStmt *stmt = (DropStmt *) statement;

			return lock_on_object(plan, AccessExclusiveLock, stmt->removeType,
								  linitial(stmt->objects));
		}
		default:
			return NULL;
	}
}

void
plan_add_ddl(MigrationPlan *plan, const char *text, char *note)
{
	ListCell *lc;

	foreach (lc, raw_parser(text, RAW_PARSE_DEFAULT))
	{
		RawStmt *raw = lfirst_node(RawStmt, lc);
		const char *begin = text + raw->stmt_location;
		int length = raw->stmt_len > 0 ? raw->stmt_len : (int) strlen(begin);

		while (*begin == ' ')
		{
			begin++;
			length--;
		}
		plan_add(plan, pnstrdup(begin, length), lock_of(plan, raw->stmt), note);
	}
}

void
plan_add_all_ddl(MigrationPlan *plan, List *texts, char *note)
{
	ListCell *lc;

	foreach (lc, texts)
		plan_add_ddl(plan, lfirst(lc), note);
}
