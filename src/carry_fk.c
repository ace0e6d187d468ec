/*-------------------------------------------------------------------------
 *
 * carry_fk.c
 *	  What the carriers of foreign keys share; see carry_fk.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "carry.h"
#include "carry_fk.h"
#include "catalog_spi.h"
#include "debug_point.h"
#include "relinfo.h"
#include "sqlgen.h"

List *
fk_steps(SPIPlanPtr *plan, const char *function, Oid front, Oid back, bool ahead)
{
	Oid types[] = {OIDOID, OIDOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(front), ObjectIdGetDatum(back), BoolGetDatum(ahead)};
	CatalogCall call = {.plan = plan};
	List *steps = NIL;
	uint64 count = catalog_begin(&call,
								 psprintf("SELECT step, name, referenced, relation, statement"
										  " FROM migrate_ext.%s($1, $2, $3)",
										  function),
								 lengthof(types), types, values, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);
		FkStep *step = palloc(sizeof(FkStep));
		bool isnull;

		step->kind = catalog_value_text(&call, i, 1);
		step->name = catalog_value_text(&call, i, 2);
		step->referenced = DatumGetObjectId(catalog_value(&call, i, 3, &isnull));
		step->relation = DatumGetObjectId(catalog_value(&call, i, 4, &isnull));
		step->statement = catalog_value_text(&call, i, 5);
		steps = lappend(steps, step);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return steps;
}

bool
fk_is_add(const FkStep *step)
{
	return strcmp(step->kind, "add") == 0;
}

static AlterTableStmt *
parse_add(const char *statement)
{
	RawStmt *raw = linitial_node(RawStmt, raw_parser(statement, RAW_PARSE_DEFAULT));

	return castNode(AlterTableStmt, raw->stmt);
}

static Constraint *
key_of(const AlterTableStmt *stmt)
{
	return castNode(Constraint, linitial_node(AlterTableCmd, stmt->cmds)->def);
}

char *
fk_renamed(const char *statement, Oid referenced)
{
	return carry_renamed(statement, key_of(parse_add(statement))->pktable,
						 sql_relation(referenced));
}

/*
 * Mark a key and those below it not valid where rows are: they are looked at later.
 * Those to the partitions of what it points at are looked at with it.
 */
static void
mark_unvalidated(Relation constraints, Oid key, Oid referenced)
{
	HeapTuple tuple = SearchSysCacheCopy1(CONSTROID, ObjectIdGetDatum(key));
	Form_pg_constraint form;
	ScanKeyData scankey;
	SysScanDesc scan;
	HeapTuple child;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (form->confrelid != referenced)
		return;
	if (get_rel_relkind(form->conrelid) == RELKIND_RELATION)
	{
		form->convalidated = false;
		CatalogTupleUpdate(constraints, &tuple->t_self, tuple);
	}
	heap_freetuple(tuple);

	ScanKeyInit(&scankey, Anum_pg_constraint_conparentid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(key));
	scan = systable_beginscan(constraints, ConstraintParentIndexId, true, NULL, 1, &scankey);
	while (HeapTupleIsValid(child = systable_getnext(scan)))
		mark_unvalidated(constraints, ((Form_pg_constraint) GETSTRUCT(child))->oid, referenced);
	systable_endscan(scan);
}

bool
fk_ends(Oid key, Oid *child, Oid *referenced)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(key));
	Form_pg_constraint form;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	*child = form->conrelid;
	*referenced = form->confrelid;
	ReleaseSysCache(tuple);
	return true;
}

void
fk_add(Oid role, Oid relation, const char *name, const char *statement)
{
	AlterTableStmt *stmt = parse_add(statement);
	Relation constraints;
	Oid child;
	Oid referenced;
	Oid oid;

	key_of(stmt)->skip_validation = true;
	key_of(stmt)->initially_valid = true;
	carry_utility(role, (Node *) stmt, statement);

	oid = get_relation_constraint_oid(relation, name, false);
	constraints = table_open(ConstraintRelationId, RowExclusiveLock);
	if (fk_ends(oid, &child, &referenced))
		mark_unvalidated(constraints, oid, referenced);
	table_close(constraints, RowExclusiveLock);
	CommandCounterIncrement();
}

void
fk_disable(FkKind *kind, Oid front, Oid back, const char *name)
{
	ListCell *lc;

	foreach (lc, fk_steps(&kind->steps_plan, kind->steps, front, back, false))
	{
		FkStep *step = lfirst(lc);

		if (strcmp(step->kind, "disable") == 0 && strcmp(step->name, name) == 0)
			(void) sql_run("%s", step->statement);
	}
	CommandCounterIncrement();
}

/* One takes less time than finding 1,000 of them. */
static void
validate(List *steps)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CARRY_PIECE_MS);
	ListCell *lc;

	foreach (lc, steps)
	{
		FkStep *step = lfirst(lc);

		carry_run(relinfo_owner(step->relation), step->statement);
		ME_DEBUG_POINT("fk_validated");
		if (GetCurrentTimestamp() >= end)
			break;
	}
}

bool
fk_prepare(FkKind *kind, Migration *m, Direction direction, bool look_only)
{
	Oid front = front_of(m, direction);
	Oid back = back_of(m, direction);
	List *steps = fk_steps(&kind->steps_plan, kind->steps, front, back, false);
	FkStep *step;

	if (steps == NIL || look_only)
		return steps == NIL;
	step = linitial(steps);
	if (fk_is_add(step))
		kind->make(m, front, back, step);
	else if (strcmp(step->kind, "disable") == 0)
		fk_disable(kind, front, back, step->name);
	else if (strcmp(step->kind, "validate") == 0)
		validate(steps);
	else
		carry_run(relinfo_owner(step->relation), step->statement);
	return false;
}

void
fk_flip(FkKind *kind, Oid front, Oid back)
{
	ListCell *lc;

	foreach (lc, carry_changes(&kind->flip_plan, kind->flip, front, back, false))
	{
		CarryChange *change = lfirst(lc);

		(void) sql_run("ALTER TABLE ONLY %s %s", sql_relation(change->relid), change->change);
	}
	CommandCounterIncrement();
}
