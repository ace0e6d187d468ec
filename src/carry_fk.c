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

#include "carry.h"
#include "carry_fk.h"
#include "catalog_spi.h"
#include "sqlgen.h"

FkStep *
fk_next_step(SPIPlanPtr *plan, const char *function, Oid front, Oid back, const char *kind,
			 const char *name)
{
	Oid types[] = {OIDOID, OIDOID, TEXTOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(front), ObjectIdGetDatum(back),
					  kind ? CStringGetTextDatum(kind) : (Datum) 0,
					  name ? CStringGetTextDatum(name) : (Datum) 0};
	char nulls[] = {' ', ' ', kind ? ' ' : 'n', name ? ' ' : 'n', '\0'};
	CatalogCall call = {.plan = plan};
	FkStep *step = NULL;
	bool isnull;

	if (catalog_begin(&call,
					  psprintf("SELECT step, name, referenced, relation, statement"
							   " FROM migrate_ext.%s($1, $2)"
							   " WHERE ($3 IS NULL OR step = $3) AND ($4 IS NULL OR name = $4)"
							   " LIMIT 1",
							   function),
					  4, types, values, nulls) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(call.outer);

		step = palloc(sizeof(FkStep));
		step->kind = catalog_value_text(&call, 0, 1);
		step->name = catalog_value_text(&call, 0, 2);
		step->referenced = DatumGetObjectId(catalog_value(&call, 0, 3, &isnull));
		step->relation = DatumGetObjectId(catalog_value(&call, 0, 4, &isnull));
		step->statement = catalog_value_text(&call, 0, 5);
		MemoryContextSwitchTo(old);
	}
	catalog_end(&call);
	return step;
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

static Oid
referenced_by(Oid key)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(key));
	Oid referenced = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		referenced = ((Form_pg_constraint) GETSTRUCT(tuple))->confrelid;
		ReleaseSysCache(tuple);
	}
	return referenced;
}

void
fk_add(Oid role, Oid relation, const char *name, const char *statement, RangeVar *referenced)
{
	RawStmt *raw = linitial_node(RawStmt, raw_parser(statement, RAW_PARSE_DEFAULT));
	AlterTableStmt *stmt = castNode(AlterTableStmt, raw->stmt);
	Constraint *key = castNode(Constraint, linitial_node(AlterTableCmd, stmt->cmds)->def);
	Relation constraints;
	Oid oid;

	key->skip_validation = true;
	key->initially_valid = true;
	if (referenced != NULL)
		key->pktable = referenced;
	carry_utility(role, (Node *) stmt, statement);

	oid = get_relation_constraint_oid(relation, name, false);
	constraints = table_open(ConstraintRelationId, RowExclusiveLock);
	mark_unvalidated(constraints, oid, referenced_by(oid));
	table_close(constraints, RowExclusiveLock);
	CommandCounterIncrement();
}

void
fk_disable(SPIPlanPtr *plan, const char *function, Oid front, Oid back, const char *name)
{
	FkStep *step;

	while ((step = fk_next_step(plan, function, front, back, "disable", name)) != NULL)
	{
		(void) sql_run("%s", step->statement);
		CommandCounterIncrement();
	}
}
