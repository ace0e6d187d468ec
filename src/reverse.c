/*-------------------------------------------------------------------------
 *
 * reverse.c
 *	  The way back is paved before the migration goes live: making a row trigger on
 *	  a table with 1,000 partitions takes a second on a slow machine, in which who
 *	  writes to the target waits, and from then on that is each writer.
 *
 * The triggers sleep until the direction is switched, and so may come and go
 * without harm until the swap.  A partition made later gets its row trigger from
 * its parent; the statement trigger for TRUNCATE isn't inherited, so all are looked
 * at again while the migration is live.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "utils/rel.h"

#include "attempt.h"
#include "catalog.h"
#include "relinfo.h"
#include "reverse.h"
#include "run.h"
#include "sqlgen.h"
#include "sync_trigger.h"

/* An object within the options, or NULL. */
static Jsonb *
option_object(const Migration *m, const char *name)
{
	char *text = json_field(m->options, name);

	return text ? json_parse(text) : NULL;
}

bool
reverse_is_possible(const Migration *m)
{
	Jsonb *forth = option_object(m, "columns");
	Jsonb *back = option_object(m, "reverse_columns");
	Relation source;
	bool possible = true;
	int i;

	if (forth == NULL)
		return true;
	source = try_relation_open(m->source, AccessShareLock);
	if (source == NULL)
		return false;
	for (i = 0; i < RelationGetDescr(source)->natts && possible; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(source), i);
		char *name = NameStr(att->attname);

		possible =
			att->attisdropped || json_field(forth, name) == NULL || json_field(back, name) != NULL;
	}
	relation_close(source, AccessShareLock);
	return possible;
}

/* Read from the catalog, not from the relation cache: so nothing is locked. */
static bool
is_always_enabled(Oid relid, const char *name)
{
	return relinfo_trigger_state(relid, name) == TRIGGER_FIRES_ALWAYS;
}

bool
reverse_is_prepared(const Migration *m)
{
	ListCell *lc;
	bool prepared = true;

	if (!reverse_is_possible(m))
		return true;
	foreach (lc, lcons_oid(m->target, relinfo_leaves(m->target)))
	{
		prepared = is_always_enabled(lfirst_oid(lc), REVERSE_TRIGGER_NAME) &&
				   is_always_enabled(lfirst_oid(lc), REVERSE_TRUNCATE_TRIGGER_NAME);
		if (!prepared)
			break;
	}
	return prepared;
}

static void
prepare(Run *run, void *arg)
{
	run_limit_lock_waits(run);
	if (reverse_is_prepared(run->m))
		return;
	sync_trigger_prepare_reverse(run->m);
	event_add(run->m, "reverse", NULL, "reverse triggers made on %s and its partitions",
			  sql_relation(run->m->target));
}

bool
reverse_prepare(Run *run)
{
	ErrorData *error = NULL;

	if (run_attempt(run, prepare, NULL, &error))
		return true;
	if (!attempt_is_lock_failure(error))
		ReThrowError(error);
	return false;
}
