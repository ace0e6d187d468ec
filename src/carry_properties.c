/*-------------------------------------------------------------------------
 *
 * carry_properties.c
 *	  Properties of the table, its columns and partitions: defaults, statistics
 *	  targets, n_distinct, storage, compression, CHECK constraints, storage
 *	  parameters, replica identity; security labels.
 *
 * The target was made with most of them (target_table.c); what has been changed
 * since is followed here.  A label is set in the swap, as a privilege is: its
 * provider may deny by it what the application may do, or allow more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/seclabel.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "carry_kinds.h"
#include "carry_statements.h"
#include "catalog_spi.h"

static bool
prepare_columns(Migration *m, Direction direction, bool look_only)
{
	static SPIPlanPtr plan = NULL;

	return carry_by_statements(m, direction, "carry_columns", &plan, look_only);
}

static bool
prepare_checks(Migration *m, Direction direction, bool look_only)
{
	static SPIPlanPtr plan = NULL;

	return carry_by_statements(m, direction, "carry_checks", &plan, look_only);
}

static bool
prepare_storage(Migration *m, Direction direction, bool look_only)
{
	static SPIPlanPtr plan = NULL;

	return carry_by_statements(m, direction, "carry_storage", &plan, look_only);
}

/* ------------------------------------------------------------------------
 * Security labels
 * ------------------------------------------------------------------------
 */

/* A label of the back table, NULL: to be removed. */
typedef struct Label
{
	char *provider;
	int32 column;
	char *label;
} Label;

#define LABELS_SQL                                                                                  \
	"WITH l AS (SELECT l.objoid, l.provider, l.label, l.objsubid, a.attname"                        \
	"  FROM pg_catalog.pg_seclabel l"                                                               \
	"  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = l.objoid AND a.attnum = l.objsubid"      \
	"   AND l.objsubid > 0"                                                                         \
	"  WHERE l.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND l.objoid IN ($1, $2))"     \
	" SELECT COALESCE(f.provider, b.provider), COALESCE(b.objsubid, a.attnum, 0)::pg_catalog.int4," \
	"  f.label"                                                                                     \
	" FROM (SELECT * FROM l WHERE objoid = $1) f"                                                   \
	" FULL JOIN (SELECT * FROM l WHERE objoid = $2) b ON b.provider = f.provider"                   \
	"  AND COALESCE(b.attname, '') = COALESCE(f.attname, '')"                                       \
	" LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = $2 AND a.attname = f.attname"             \
	" WHERE f.label IS DISTINCT FROM b.label AND ($3 OR b.label IS NULL)"                           \
	"  AND (f.objsubid IS NULL OR f.objsubid = 0 OR a.attnum IS NOT NULL)"

static void *
collect_labels(Migration *m, Direction direction)
{
	Oid types[] = {OIDOID, OIDOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(front_of(m, direction)),
					  ObjectIdGetDatum(back_of(m, direction)),
					  BoolGetDatum(carry_is_exact(m, direction))};
	static SPIPlanPtr plan = NULL;
	CatalogCall call = {.plan = &plan};
	List *labels = NIL;
	uint64 count = catalog_begin(&call, LABELS_SQL, lengthof(types), types, values, NULL);

	for (uint64 i = 0; i < count; i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(call.outer);
		Label *label = palloc(sizeof(Label));
		bool isnull;

		label->provider = catalog_value_text(&call, i, 1);
		label->column = DatumGetInt32(catalog_value(&call, i, 2, &isnull));
		label->label = catalog_value_text(&call, i, 3);
		labels = lappend(labels, label);
		MemoryContextSwitchTo(old_context);
	}
	catalog_end(&call);
	return labels;
}

/* Past the provider, which need not be loaded here: it has agreed to the label before. */
static void
move_labels(Migration *m, Direction direction, void *labels)
{
	ListCell *lc;

	foreach (lc, (List *) labels)
	{
		Label *label = lfirst(lc);
		ObjectAddress object = {RelationRelationId, back_of(m, direction), label->column};

		SetSecurityLabel(&object, label->provider, label->label);
	}
	CommandCounterIncrement();
}

/* ------------------------------------------------------------------------
 * For plan()
 * ------------------------------------------------------------------------
 */

static void
plan_columns(MigrationPlan *plan, CarryPart part)
{
	if (part == CARRY_PREPARE)
		carry_plan_statements(plan, "carry_columns");
}

static void
plan_checks(MigrationPlan *plan, CarryPart part)
{
	if (part == CARRY_PREPARE)
		carry_plan_statements(plan, "carry_checks");
}

static void
plan_storage(MigrationPlan *plan, CarryPart part)
{
	if (part == CARRY_PREPARE)
		carry_plan_statements(plan, "carry_storage");
}

/* "SECURITY LABEL FOR provider ON COLUMN schema.t.a IS 'label'" */
static void
plan_labels(MigrationPlan *plan, CarryPart part)
{
	Oid back = plan->m->target;
	ListCell *lc;

	if (part != CARRY_MOVE)
		return;
	foreach (lc, (List *) collect_labels(plan->m, DIRECTION_FORWARD))
	{
		Label *label = lfirst(lc);
		char *object = psprintf("TABLE %s", plan_relation(plan, back));

		if (label->column != 0)
			object = psprintf("COLUMN %s.%s", plan_relation(plan, back),
							  quote_identifier(get_attname(back, label->column, false)));
		plan_add(plan,
				 psprintf("SECURITY LABEL FOR %s ON %s IS %s", quote_identifier(label->provider),
						  object, label->label ? quote_literal_cstr(label->label) : "NULL"),
				 plan_swap_lock(plan), PLAN_EQUIVALENT);
	}
}

const Carrier carry_columns = {.name = "columns", .prepare = prepare_columns, .plan = plan_columns};
const Carrier carry_checks = {
	.name = "CHECK constraints", .prepare = prepare_checks, .plan = plan_checks};
const Carrier carry_storage = {
	.name = "storage parameters", .prepare = prepare_storage, .plan = plan_storage};
const Carrier carry_labels = {
	.name = "security labels", .collect = collect_labels, .move = move_labels, .plan = plan_labels};
