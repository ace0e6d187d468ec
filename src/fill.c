/*-------------------------------------------------------------------------
 *
 * fill.c
 *	  The trigger that fills the sharding key of a written row that has none.
 *
 * It fires BEFORE INSERT OR UPDATE for each row, always, before all other
 * triggers, which so see the key.  A row that has its key costs a look at the
 * column.  One that has none gets what the value of add_sharding_key() comes to,
 * run as the table's owner: whoever may write the table need not be allowed to
 * read the tables that the value reads, and must not be able to have the owner's
 * functions run with other rights than the owner's.  What it comes to may be
 * NULL; what the value raises for this row is the writer's error.  An INSERT that
 * has no key is counted, see fill_count.c.
 *
 * Not so where the value means nothing any more: a table or column that it reads
 * was renamed or dropped, a right taken away.  That says nothing of the row, and
 * must not stop the application: the key stays NULL, with a warning.
 *
 * What there is to know of a table is kept in the session until something about
 * the table changes.  A trigger that isn't the table's own (of a restored dump,
 * or a copy by somebody else's CREATE TRIGGER) warns once and does nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "derive.h"
#include "errors.h"
#include "fill_count.h"
#include "fmgr.h"
#include "run.h"
#include "sharding_key.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

PG_FUNCTION_INFO_V1(migrate_ext_fill_key);

/* A sharding key as this session knows it. */
typedef struct FillKey
{
	/* hash key: the trigger's argument, and its table: a restored dump may have given it to another */
	int64 id;
	Oid table;

	bool valid;
	bool warned;
	Oid relation; /* InvalidOid: there is nothing to do */
	AttrNumber attnum;
	char *value;
	DerivePlan *plan; /* NULL: no row has needed it yet, or it can't be made */
	int nargs;
	AttrNumber attnums[FUNC_MAX_ARGS];
	Oid counter; /* InvalidOid: nothing is counted */
	int64 noted; /* fill_count_add()'s */
} FillKey;

static HTAB *fill_keys = NULL;

/* The callback may only mark. */
static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	FillKey *key;

	hash_seq_init(&status, fill_keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		if (!OidIsValid(relid) || !OidIsValid(key->relation) || key->relation == relid)
			key->valid = false;
	}
}

static FillKey *
find_key(int64 id, Oid relid)
{
	FillKey wanted = {id, relid};
	FillKey *key;
	bool found;

	if (fill_keys == NULL)
	{
		HASHCTL ctl = {.keysize = offsetof(FillKey, valid), .entrysize = sizeof(FillKey)};

		ctl.hcxt = CacheMemoryContext;
		fill_keys =
			hash_create("migrate_ext fill keys", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	}
	key = hash_search(fill_keys, &wanted, HASH_ENTER, &found);
	if (!found)
		memset((char *) key + offsetof(FillKey, valid), 0,
			   sizeof(FillKey) - offsetof(FillKey, valid));
	return key;
}

/* Read an entry (anew).  Marked valid first: a change meanwhile shows. */
static void
load_key(FillKey *key, Relation rel)
{
	ShardingKey *record;

	key->valid = true;
	key->relation = InvalidOid;
	record = sharding_key_by_id(key->id);
	if (record == NULL || record->relation != RelationGetRelid(rel) || record->value == NULL ||
		TupleDescAttr(RelationGetDescr(rel), record->attnum - 1)->attisdropped)
	{
		if (!key->warned)
			ereport(WARNING, (errmsg("migrate_ext does not fill the sharding key of table \"%s\"",
									 RelationGetRelationName(rel)),
							  errdetail("The trigger belongs to no column of this table."),
							  errhint("If the database was restored from a dump, call "
									  "migrate_ext.add_sharding_key again, as for the first time; "
									  "else drop the trigger.")));
		key->warned = true;
		return;
	}
	key->attnum = record->attnum;
	key->counter = fill_count_find(key->id);
	key->plan = NULL;
	if (key->value != NULL)
		pfree(key->value);
	key->value = MemoryContextStrdup(CacheMemoryContext, record->value);
	key->relation = record->relation;
}

static void
check_protocol(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function was not called by trigger manager")));
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event) || trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be fired BEFORE INSERT OR UPDATE FOR EACH ROW, with the "
						"number of a sharding key")));
}

/* ------------------------------------------------------------------------
 * Filling
 * ------------------------------------------------------------------------
 */

/* What the value comes to for a row.  The caller is the owner. */
static Datum
evaluate(FillKey *key, Relation rel, HeapTuple tuple, bool *isnull)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), key->attnum - 1);
	Datum values[FUNC_MAX_ARGS];
	bool nulls[FUNC_MAX_ARGS];

	if (key->plan == NULL)
	{
		Derivation *derivation =
			derive_analyze(rel, NameStr(att->attname), att->atttypid, att->atttypmod, key->value);

		key->nargs = derivation->nargs;
		memcpy(key->attnums, derivation->attnums, key->nargs * sizeof(AttrNumber));
		key->plan = derive_plan(derive_statement(rel, derivation), key->nargs, derivation->types);
	}
	for (int i = 0; i < key->nargs; i++)
		values[i] = heap_getattr(tuple, key->attnums[i], RelationGetDescr(rel), &nulls[i]);
	return derive_run_pinned(key->plan, values, nulls, isnull);
}

/*
 * In PG_CATCH, in the subtransaction that failed: a value that means nothing any
 * more is told of, once until it works again; other errors go on.
 */
static void
catch_broken_value(FillKey *key, Relation rel, MemoryContext context, ResourceOwner owner)
{
	ErrorData *error = error_end_subtransaction(context, owner);

	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION &&
		error->sqlerrcode != ERRCODE_INVALID_SCHEMA_NAME)
		ReThrowError(error);
	if (!key->warned)
		ereport(WARNING, (errmsg("migrate_ext does not fill the sharding key of table \"%s\"",
								 RelationGetRelationName(rel)),
						  errdetail("Its value can't be derived: %s.", error->message),
						  errhint("Bring back what the value reads, or let the application give "
								  "the key.")));
	key->warned = true;
	FreeErrorData(error);
}

/* What the value comes to for a row; NULL where it means nothing any more. */
static Datum
value_of_row(FillKey *key, Relation rel, HeapTuple tuple, bool *isnull)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile Datum value = (Datum) 0;
	UserSwitch save;

	/* without writes it takes no transaction id, and so costs little */
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		user_switch_owner(&save, rel->rd_rel->relowner);
		value = evaluate(key, rel, tuple, isnull);
		user_switch_back(&save);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		key->warned = false;
	}
	PG_CATCH();
	{
		catch_broken_value(key, rel, context, owner);
		*isnull = true;
	}
	PG_END_TRY();
	return value;
}

Datum
migrate_ext_fill_key(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	FillKey *key = fcinfo->flinfo->fn_extra;
	Relation rel;
	HeapTuple tuple;

	check_protocol(fcinfo);
	rel = trigger->tg_relation;
	tuple =
		TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (key == NULL)
		fcinfo->flinfo->fn_extra = key =
			find_key(strtoll(trigger->tg_trigger->tgargs[0], NULL, 10), RelationGetRelid(rel));

	/* reading it may itself bring news of changes */
	while (!key->valid)
		load_key(key, rel);
	if (key->relation == RelationGetRelid(rel) &&
		heap_attisnull(tuple, key->attnum, RelationGetDescr(rel)))
	{
		int attnum = key->attnum;
		bool isnull;
		Datum value;

		if (OidIsValid(key->counter) && TRIGGER_FIRED_BY_INSERT(trigger->tg_event) &&
			!fill_count_add(key->counter, &key->noted))
			key->counter = InvalidOid;
		value = value_of_row(key, rel, tuple, &isnull);
		if (!isnull)
			tuple = heap_modify_tuple_by_cols(tuple, RelationGetDescr(rel), 1, &attnum, &value,
											  &isnull);
	}
	return PointerGetDatum(tuple);
}
