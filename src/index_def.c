/*-------------------------------------------------------------------------
 *
 * index_def.c
 *	  What indexes the target is to have; see index_def.h.
 *
 * PostgreSQL's own text of an index or constraint is taken, its beginning
 * (which is known to the letter) replaced, and the columns of the partition key
 * put into the key of what must be unique: a unique index of a partitioned
 * table must contain them.  So everything that the text tells (operator
 * classes, collations, order, INCLUDE, WITH, predicate, NULLS NOT DISTINCT,
 * DEFERRABLE, tablespace) is carried without being known here.
 *
 * Two indexes are the same where their texts after the table's name are, and
 * both belong to the same kind of constraint.  Only texts that came back from
 * the catalog are compared, of tables with the same columns.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "common/hashfn.h"
#include "compat.h"
#include "index_def.h"
#include "nodes/nodes.h"
#include "optimizer/optimizer.h"
#include "partitioning/partdesc.h"
#include "relinfo.h"
#include "sqlgen.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

/* name_free() may have put a number before it; up to this one we look. */
#define MAX_NAME_NUMBER 9

/* Statistics target of one column of an index. */
typedef struct ColumnStatistics
{
	int column; /* from 1 */
	int target;
} ColumnStatistics;

/* ------------------------------------------------------------------------
 * Texts
 * ------------------------------------------------------------------------
 */

/* What follows "prefix" in "text", which begins with it. */
static char *
text_after(char *text, const char *prefix)
{
	size_t len = strlen(prefix);

	if (strncmp(text, prefix, len) != 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not understand the definition of an index"),
						errdetail("\"%s\" does not begin with \"%s\".", text, prefix)));
	return text + len;
}

/* "btree (a, b) WHERE ..." of an index, whatever its name and table. */
static char *
index_tail(Relation index)
{
	char *prefix = psprintf(
		"CREATE %sINDEX %s ON %s USING ", index->rd_index->indisunique ? "UNIQUE " : "",
		quote_identifier(RelationGetRelationName(index)), sql_relation(index->rd_index->indrelid));

	return text_after(pg_get_indexdef_string(RelationGetRelid(index)), prefix);
}

/* "PRIMARY KEY (a, b) ..." of a constraint. */
static char *
constraint_tail(Oid constraint, Oid relid, const char *name)
{
	char *prefix =
		psprintf("ALTER TABLE %s ADD CONSTRAINT %s ", sql_relation(relid), quote_identifier(name));

	return text_after(pg_get_constraintdef_command(constraint), prefix);
}

/*
 * Put columns at the end of the first list in brackets.  Brackets in quotes, of
 * names or of strings, don't count; a doubled quote ends and begins again, and
 * a backslash means nothing in how PostgreSQL writes either.
 */
static char *
insert_columns(const char *text, const char *columns)
{
	char quote = 0;
	int depth = 0;
	const char *c;

	for (c = text; *c != '\0'; c++)
	{
		if (quote != 0)
		{
			if (*c == quote)
				quote = 0;
		}
		else if (*c == '"' || *c == '\'')
			quote = *c;
		else if (*c == '(')
			depth++;
		else if (*c == ')' && --depth == 0)
			return psprintf("%.*s, %s%s", (int) (c - text), text, columns, c);
	}
	ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
					errmsg("could not understand the definition of an index"),
					errdetail("\"%s\" has no list of columns.", text)));
	return NULL; /* keep the compiler quiet */
}

/* ------------------------------------------------------------------------
 * Columns
 * ------------------------------------------------------------------------
 */

/*
 * Names of the columns of a partitioned table's key, and of those below it;
 * *plain is false if a key has an expression.
 */
static List *
partition_columns(Oid relid, List *names, bool *plain)
{
	Relation rel = table_open(relid, AccessShareLock);
	PartitionKey key = RelationGetPartitionKey(rel);
	PartitionDesc desc = RelationGetPartitionDesc(rel, true);

	for (int i = 0; i < key->partnatts; i++)
	{
		char *name;
		ListCell *cell;

		if (key->partattrs[i] == 0)
		{
			*plain = false;
			continue;
		}
		name = get_attname(relid, key->partattrs[i], false);
		foreach (cell, names)
		{
			if (strcmp(lfirst(cell), name) == 0)
				break;
		}
		if (cell == NULL)
			names = lappend(names, name);
	}
	for (int i = 0; i < desc->nparts; i++)
	{
		if (!desc->is_leaf[i])
			names = partition_columns(desc->oids[i], names, plain);
	}
	table_close(rel, NoLock);
	return names;
}

/* Is the table's column of that name in the index's key, as it is? */
static bool
key_has_column(Relation index, const char *name)
{
	Form_pg_index form = index->rd_index;

	for (int i = 0; i < form->indnkeyatts; i++)
	{
		if (form->indkey.values[i] != 0 &&
			strcmp(get_attname(form->indrelid, form->indkey.values[i], false), name) == 0)
			return true;
	}
	return false;
}

/*
 * Columns that the index's expressions or predicate read.  As the catalog has
 * them: the relation cache simplifies expressions, which may run functions.
 */
static void
pull_stored_attnums(Relation index, AttrNumber attribute, Bitmapset **attnums)
{
	bool isnull;
	Datum stored = SysCacheGetAttr(INDEXRELID, index->rd_indextuple, attribute, &isnull);

	if (!isnull)
		pull_varattnos(stringToNode(TextDatumGetCString(stored)), 1, attnums);
}

/* Has the target all columns that the source's index reads? */
static bool
target_has_columns(Migration *m, Relation index)
{
	Form_pg_index form = index->rd_index;
	Bitmapset *attnums = NULL;
	int member = -1;

	for (int i = 0; i < form->indnatts; i++)
	{
		if (form->indkey.values[i] != 0)
			attnums = bms_add_member(attnums,
									 form->indkey.values[i] - FirstLowInvalidHeapAttributeNumber);
	}
	pull_stored_attnums(index, Anum_pg_index_indexprs, &attnums);
	pull_stored_attnums(index, Anum_pg_index_indpred, &attnums);
	while ((member = bms_next_member(attnums, member)) >= 0)
	{
		AttrNumber attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum > 0 && get_attnum(m->target, get_attname(form->indrelid, attnum, false)) <= 0)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Definitions
 * ------------------------------------------------------------------------
 */

/*
 * "_pkey" of orders_pkey on table orders; else "_" and the whole name.
 */
static char *
leaf_suffix(Migration *m, const char *name)
{
	size_t len = strlen(m->table_name);

	if (strncmp(name, m->table_name, len) == 0 && name[len] == '_' && name[len + 1] != '\0')
		return pstrdup(name + len);
	return psprintf("_%s", name);
}

/* Add the partition key's columns that the key of a unique index lacks. */
static void
widen(Migration *m, Relation index, IndexDef *def)
{
	bool plain = true;
	List *columns = partition_columns(m->target, NIL, &plain);
	StringInfoData added;
	ListCell *cell;

	/* unique in each leaf is then the most that can be had */
	def->leaf_only = !plain;
	if (def->leaf_only)
		return;

	initStringInfo(&added);
	foreach (cell, columns)
	{
		char *name = lfirst(cell);

		if (!key_has_column(index, name))
			appendStringInfo(&added, "%s%s", added.len > 0 ? ", " : "", quote_identifier(name));
	}
	if (added.len == 0)
		return;
	def->added = added.data;
	def->tail = insert_columns(def->tail, added.data);
}

/* Statistics targets that were set for the index's expressions. */
static List *
index_statistics(Relation index)
{
	List *statistics = NIL;

	for (int i = 0; i < RelationGetDescr(index)->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(index), i);
		HeapTuple tuple;
		ColumnStatistics *one;
		int target;

		if (index->rd_index->indkey.values[i] != 0)
			continue;
		tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(RelationGetRelid(index)),
								Int16GetDatum(att->attnum));
		if (!HeapTupleIsValid(tuple))
			continue;
		target = attribute_statistics_target(tuple);
		if (target >= 0)
		{
			one = palloc(sizeof(ColumnStatistics));
			one->column = att->attnum;
			one->target = target;
			statistics = lappend(statistics, one);
		}
		ReleaseSysCache(tuple);
	}
	return statistics;
}

/* Fill in a definition from an open index of the source. */
static IndexDef *
def_of_index(Migration *m, Relation index)
{
	IndexDef *def = palloc0(sizeof(IndexDef));
	Oid constraint = get_index_constraint(RelationGetRelid(index));

	def->source = RelationGetRelid(index);
	def->name = pstrdup(RelationGetRelationName(index));
	def->suffix = leaf_suffix(m, def->name);
	def->unique = index->rd_index->indisunique;
	if (OidIsValid(constraint))
	{
		def->contype = index->rd_index->indisprimary ? CONSTRAINT_PRIMARY : CONSTRAINT_UNIQUE;
		def->tail = constraint_tail(constraint, m->source, get_constraint_name(constraint));
	}
	else
		def->tail = index_tail(index);
	if (def->unique)
		widen(m, index, def);
	def->statistics = index_statistics(index);
	return def;
}

/* A plain index on the identity, where the target has none led by it. */
static IndexDef *
def_of_identity(Migration *m)
{
	IndexDef *def = palloc0(sizeof(IndexDef));
	Identity *identity = relinfo_identity(m->source, false);

	def->suffix = pstrdup("_migrate_ext_identity");
	def->name = name_make(m->table_name, def->suffix);
	def->tail =
		psprintf("btree (%s)", sql_columns(m->source, identity->natts, identity->attnums, NULL));
	return def;
}

IndexDef *
index_def(Migration *m, Oid source_index)
{
	IndexDef *def = NULL;
	Relation index;

	if (!OidIsValid(source_index))
		return def_of_identity(m);

	index = try_relation_open(source_index, AccessShareLock);
	if (index == NULL)
		return NULL;
	if (index->rd_index->indisvalid && !index->rd_index->indisexclusion &&
		target_has_columns(m, index))
		def = def_of_index(m, index);
	relation_close(index, AccessShareLock);
	return def;
}

/* ------------------------------------------------------------------------
 * What is there already
 * ------------------------------------------------------------------------
 */

static char
index_contype(Relation index)
{
	if (!OidIsValid(get_index_constraint(RelationGetRelid(index))))
		return 0;
	return index->rd_index->indisprimary ? CONSTRAINT_PRIMARY : CONSTRAINT_UNIQUE;
}

/* What index_def() would call "tail" of this one. */
static char *
tail_of(Relation index)
{
	Oid constraint = get_index_constraint(RelationGetRelid(index));

	if (!OidIsValid(constraint))
		return index_tail(index);
	return constraint_tail(constraint, index->rd_index->indrelid, get_constraint_name(constraint));
}

/* Does this index of the target, or of a leaf, serve for "def"? */
static bool
index_serves(Relation index, IndexDef *def)
{
	/* there can't be a second primary key, so any will do */
	if (def->contype == CONSTRAINT_PRIMARY)
		return index->rd_index->indisprimary;
	return index->rd_index->indisunique == def->unique && index_contype(index) == def->contype &&
		   strcmp(tail_of(index), def->tail) == 0;
}

bool
index_def_exists(IndexDef *def, Oid relid)
{
	return OidIsValid(index_def_serving(def, relid));
}

Oid
index_def_serving(IndexDef *def, Oid relid)
{
	Relation rel = table_open(relid, AccessShareLock);
	Oid found = InvalidOid;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(rel))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		if (!OidIsValid(found) && index_serves(index, def))
			found = lfirst_oid(cell);
		index_close(index, AccessShareLock);
	}
	table_close(rel, NoLock);
	return found;
}

/* Do the index's first columns hold the identity, in whatever order? */
static bool
index_leads_with(Relation index, Migration *m, Identity *identity)
{
	if (index->rd_index->indnkeyatts < identity->natts || !index->rd_index->indisvalid ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < identity->natts; i++)
	{
		AttrNumber attnum = index->rd_index->indkey.values[i];
		char *name;
		bool found = false;

		if (attnum == 0)
			return false;
		name = get_attname(index->rd_index->indrelid, attnum, false);
		for (int k = 0; k < identity->natts; k++)
			found |= strcmp(name, get_attname(m->source, identity->attnums[k], false)) == 0;
		if (!found)
			return false;
	}
	return true;
}

/* Can the target's rows be found by identity? */
static bool
target_leads_with_identity(Migration *m, Identity *identity)
{
	Relation target = table_open(m->target, AccessShareLock);
	List *indexes = RelationGetIndexList(target);
	bool found = false;
	ListCell *cell;

	foreach (cell, indexes)
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		found |= index_leads_with(index, m, identity);
		index_close(index, AccessShareLock);
	}
	table_close(target, NoLock);
	return found;
}

List *
index_def_wanted(Migration *m)
{
	Identity *identity = relinfo_identity(m->source, false);
	Relation source = table_open(m->source, NoLock);
	List *wanted = NIL;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(source))
	{
		Oid oid = lfirst_oid(cell);
		IndexDef *def = index_def(m, oid);

		if (def == NULL || index_def_exists(def, m->target))
			continue;
		wanted = oid == identity->index ? lcons_oid(oid, wanted) : lappend_oid(wanted, oid);
	}
	table_close(source, NoLock);

	if (!list_member_oid(wanted, identity->index) && !target_leads_with_identity(m, identity))
		wanted = lcons_oid(InvalidOid, wanted);
	return wanted;
}

/* ------------------------------------------------------------------------
 * Which belongs to which
 * ------------------------------------------------------------------------
 */

/* What has to be the same for two indexes to be a pair, in the order of trying. */
typedef enum Likeness
{
	SAME_DEFINITION_AND_NAME,
	SAME_DEFINITION,
	SAME_NAME, /* where types differ, so may the texts */
	NUM_LIKENESSES
} Likeness;

/* An index of the target. */
typedef struct Candidate
{
	Oid oid;
	char *name;
	char contype;
	bool unique;
	char *tail;
	bool taken;
} Candidate;

static List *
find_candidates(Migration *m)
{
	Relation target = table_open(m->target, AccessShareLock);
	List *candidates = NIL;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(target))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		Candidate *candidate = palloc0(sizeof(Candidate));

		candidate->oid = lfirst_oid(cell);
		candidate->name = pstrdup(RelationGetRelationName(index));
		candidate->contype = index_contype(index);
		candidate->unique = index->rd_index->indisunique;
		candidate->tail = tail_of(index);
		candidates = lappend(candidates, candidate);
		index_close(index, AccessShareLock);
	}
	table_close(target, AccessShareLock);
	return candidates;
}

/* Could index_def_new_name() have come to this name? */
static bool
is_new_name(IndexDef *def, const char *name)
{
	int number;

	if (strcmp(name, name_make(def->name, TARGET_SUFFIX)) == 0)
		return true;
	for (number = 1; number <= MAX_NAME_NUMBER; number++)
	{
		if (strcmp(name, name_make(def->name, psprintf("%d" TARGET_SUFFIX, number))) == 0)
			return true;
	}
	return false;
}

static bool
is_alike(Candidate *candidate, IndexDef *def, Likeness likeness)
{
	if (candidate->taken || candidate->contype != def->contype || candidate->unique != def->unique)
		return false;
	if (def->contype == CONSTRAINT_PRIMARY)
		return true;
	if (likeness != SAME_NAME && strcmp(candidate->tail, def->tail) != 0)
		return false;
	return likeness == SAME_DEFINITION || is_new_name(def, candidate->name);
}

/* Pairs without a target, one an index of the source. */
static List *
begin_pairs(Migration *m)
{
	Relation source = table_open(m->source, NoLock);
	List *pairs = NIL;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(source))
	{
		IndexPair *pair;
		IndexDef *def = index_def(m, lfirst_oid(cell));

		if (def == NULL || def->leaf_only)
			continue;
		pair = palloc0(sizeof(IndexPair));
		pair->source = lfirst_oid(cell);
		pair->def = def;
		pairs = lappend(pairs, pair);
	}
	table_close(source, NoLock);
	return pairs;
}

List *
index_def_pairs(Migration *m)
{
	List *pairs = begin_pairs(m);
	List *candidates = find_candidates(m);
	Likeness likeness;
	ListCell *cell;
	ListCell *candidate_cell;

	for (likeness = 0; likeness < NUM_LIKENESSES; likeness++)
	{
		foreach (cell, pairs)
		{
			IndexPair *pair = lfirst(cell);

			foreach (candidate_cell, candidates)
			{
				Candidate *candidate = lfirst(candidate_cell);

				if (OidIsValid(pair->target) || !is_alike(candidate, pair->def, likeness))
					continue;
				pair->target = candidate->oid;
				candidate->taken = true;
			}
		}
	}
	return pairs;
}

List *
index_def_impossible(Migration *m)
{
	Relation source = table_open(m->source, NoLock);
	List *impossible = NIL;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(source))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisvalid && !index->rd_index->indisexclusion &&
			!target_has_columns(m, index))
			impossible = lappend_oid(impossible, lfirst_oid(cell));
		index_close(index, AccessShareLock);
	}
	table_close(source, NoLock);
	return impossible;
}

/* ------------------------------------------------------------------------
 * Making them
 * ------------------------------------------------------------------------
 */

/*
 *		CREATE UNIQUE INDEX name ON ONLY public.t USING btree (a, b)
 *		ALTER TABLE ONLY public.t ADD CONSTRAINT name PRIMARY KEY (a, b)
 */
char *
index_def_sql(IndexDef *def, const char *name, Oid relid, bool only)
{
	if (def->contype != 0)
		return psprintf("ALTER TABLE %s%s ADD CONSTRAINT %s %s", only ? "ONLY " : "",
						sql_relation(relid), quote_identifier(name), def->tail);
	return psprintf("CREATE %sINDEX %s ON %s%s USING %s", def->unique ? "UNIQUE " : "",
					quote_identifier(name), only ? "ONLY " : "", sql_relation(relid), def->tail);
}

/* The source's name is taken until the swap.  An index of ours has no other. */
char *
index_def_new_name(IndexDef *def, Oid schema)
{
	return name_free(def->name, OidIsValid(def->source) ? TARGET_SUFFIX : "", schema);
}

/*
 * Where leaf and suffix don't fit in a name, the leaf's is cut, and several
 * leaves and indexes may come to the same, in several processes at a time: a
 * hash of both tells them apart, and the name is the same whenever it is asked for.
 */
char *
index_def_leaf_name(IndexDef *def, Oid leaf)
{
	char *leaf_name = get_rel_name(leaf);
	char *suffix = def->suffix;
	char *whole = psprintf("%s%s", leaf_name, suffix);

	if (strlen(whole) >= NAMEDATALEN)
		suffix = psprintf("_%08x_%s", hash_bytes((unsigned char *) whole, strlen(whole)),
						  def->contype == CONSTRAINT_PRIMARY  ? "pkey"
						  : def->contype == CONSTRAINT_UNIQUE ? "key"
															  : "idx");
	return name_free(leaf_name, suffix, get_rel_namespace(leaf));
}

Oid
index_def_find(Oid relid, Oid like)
{
	Relation rel = table_open(relid, AccessShareLock);
	Relation like_index = relation_open(like, AccessShareLock);
	char *wanted = index_tail(like_index);
	char contype = index_contype(like_index);
	Oid found = InvalidOid;
	ListCell *cell;

	foreach (cell, RelationGetIndexList(rel))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		if (!index->rd_rel->relispartition && index->rd_index->indisvalid &&
			index->rd_index->indisunique == like_index->rd_index->indisunique &&
			index_contype(index) == contype && strcmp(index_tail(index), wanted) == 0)
			found = lfirst_oid(cell);
		index_close(index, AccessShareLock);
		if (OidIsValid(found))
			break;
	}
	relation_close(like_index, AccessShareLock);
	table_close(rel, NoLock);
	return found;
}

List *
index_def_statistics_sql(IndexDef *def, const char *index)
{
	List *statements = NIL;
	ListCell *cell;

	foreach (cell, def->statistics)
	{
		ColumnStatistics *one = lfirst(cell);

		statements =
			lappend(statements, psprintf("ALTER INDEX %s ALTER COLUMN %d SET STATISTICS %d", index,
										 one->column, one->target));
	}
	return statements;
}

void
index_def_set_statistics(IndexDef *def, Oid index)
{
	ListCell *cell;

	foreach (cell, index_def_statistics_sql(def, sql_relation(index)))
		(void) sql_run("%s", (char *) lfirst(cell));
}
