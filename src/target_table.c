/*-------------------------------------------------------------------------
 *
 * target_table.c
 *	  The statements that make a target and its partitions.
 *
 * The target is like the source in columns (their order, defaults, generation,
 * storage, compression, NOT NULL, comments), CHECK constraints, access method,
 * storage parameters and tablespace.  It has no index, as rows are copied first
 * and indexed after that; till then its replica identity is FULL, so that a
 * publication of all tables doesn't forbid to write it.  Nor has it an identity
 * column: identity moves at the swap, till then the column is NOT NULL and gets
 * its values from the source.  Nobody but the owner has privileges: default
 * privileges would let others read rows past those of the source, and past its
 * row-level security.
 *
 * CHECK constraints are added one by one rather than by LIKE ... INCLUDING
 * CONSTRAINTS.  LIKE makes those that are NOT VALID valid, and fails on NO INHERIT,
 * which a partitioned table can't have.  Those that are NOT VALID come when the
 * rows are there (carry_properties.c): they may break them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "bounds.h"
#include "catalog/pg_constraint.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "compat.h"
#include "miscadmin.h"
#include "sqlgen.h"
#include "target_table.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* ------------------------------------------------------------------------
 * What is taken over from the source
 * ------------------------------------------------------------------------
 */

/*
 * " TABLESPACE x", or nothing for the database's own: default_tablespace is
 * empty while we run.
 */
static char *
tablespace_clause(Relation rel)
{
	Oid tablespace = rel->rd_rel->reltablespace;

	if (!OidIsValid(tablespace))
		return "";
	return psprintf(" TABLESPACE %s", quote_identifier(get_tablespace_name(tablespace)));
}

/*
 * " USING heap WITH (fillfactor = '90', toast.autovacuum_enabled = 'off')": of
 * the leaves, since a partitioned table can have neither.
 */
static char *
storage_clause(Relation rel)
{
	Oid source = RelationGetRelid(rel);
	char *parameters;

	parameters =
		sql_text("SELECT pg_catalog.string_agg(pg_catalog.format('%%s%%I = %%L', p.prefix,"
				 " o.option_name, o.option_value), ', ')"
				 " FROM (SELECT '' AS prefix, c.reloptions FROM pg_catalog.pg_class c"
				 "   WHERE c.oid = %u"
				 "  UNION ALL SELECT 'toast.', t.reloptions FROM pg_catalog.pg_class c"
				 "   JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = %u) p,"
				 " pg_catalog.pg_options_to_table(p.reloptions) o",
				 source, source);
	return psprintf(" USING %s%s", quote_identifier(get_am_name(rel->rd_rel->relam)),
					parameters ? psprintf(" WITH (%s)", parameters) : "");
}

/*
 * ALTER TABLE target ADD CONSTRAINT name CHECK (expression), ...
 */
static void
add_checks(Oid source, Oid target)
{
	char *actions;

	actions = sql_text("SELECT pg_catalog.string_agg(pg_catalog.format("
					   "'ADD CONSTRAINT %%I CHECK (%%s)', conname,"
					   " pg_catalog.pg_get_expr(conbin, conrelid)), ', ' ORDER BY conname)"
					   " FROM pg_catalog.pg_constraint"
					   " WHERE conrelid = %u AND contype = 'c' AND convalidated",
					   source);
	if (actions != NULL)
		sql_run("ALTER TABLE %s %s", sql_relation(target), actions);
}

/* COMMENT ON CONSTRAINT name ON target IS '...'; ... */
static void
add_check_comments(Oid source, Oid target)
{
	char *comments;

	comments = sql_text(
		"SELECT pg_catalog.string_agg(pg_catalog.format('COMMENT ON CONSTRAINT %%I ON %%s IS %%L',"
		" c.conname, %s, d.description), '; ')"
		" FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_description d ON d.objoid = c.oid"
		"  AND d.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass"
		" WHERE c.conrelid = %u AND c.contype = 'c' AND c.convalidated",
		quote_literal_cstr(sql_relation(target)), source);
	if (comments != NULL)
		sql_run("%s", comments);
}

/* REVOKE ALL ON table FROM whoever got some by default. */
static void
keep_to_owner(const char *table)
{
	char *grantees;

	grantees =
		sql_text("SELECT pg_catalog.string_agg(DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC'"
				 " ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END, ', ')"
				 " FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a"
				 " WHERE c.oid = %s::pg_catalog.regclass AND a.grantee <> c.relowner",
				 quote_literal_cstr(table));
	if (grantees != NULL)
		sql_run("REVOKE ALL ON %s FROM %s", table, grantees);
}

/* ------------------------------------------------------------------------
 * The target
 * ------------------------------------------------------------------------
 */

/*
 * <source>_new; a name that is short enough is taken as it is, since that is
 * where people look for it, a shortened one gives way to others.
 */
static char *
target_name(const char *source, Oid schema)
{
	char *name = psprintf("%s%s", source, TARGET_SUFFIX);

	if (strlen(name) >= NAMEDATALEN)
		return name_free(source, TARGET_SUFFIX, schema);
	if (OidIsValid(get_relname_relid(name, schema)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE), errmsg("relation \"%s\" already exists", name),
				 errdetail("The new table for \"%s\" is to have that name until the swap.", source),
				 errhint("Rename or drop it. If it is partitioned as you like, give it to "
						 "migrate_ext.create_migration.")));
	return name;
}

/*
 * The partition key's.  Where NOT NULL has a name and LIKE copies none, that is
 * the one it would get on the source, not one of the target's name.
 */
static char *
not_null_action(Relation source, const char *key)
{
	Oid relid = RelationGetRelid(source);
	const char *column = quote_identifier(key);
	char *name;

	if (!NOT_NULL_HAS_NAME ||
		!column_nullable(RelationGetDescr(source), get_attnum(relid, key) - 1))
		return psprintf("ALTER COLUMN %s SET NOT NULL", column);
	name = ChooseConstraintName(RelationGetRelationName(source), key, "not_null",
								RelationGetNamespace(source), NIL);
	return psprintf("ADD CONSTRAINT %s NOT NULL %s", quote_identifier(name), column);
}

Oid
target_table_create(Oid source, const char *strategy, const char *key)
{
	Relation rel = table_open(source, AccessShareLock);
	Oid schema = RelationGetNamespace(rel);
	char *name = target_name(RelationGetRelationName(rel), schema);
	Oid target;

	sql_run("CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE"
			" INCLUDING COMPRESSION INCLUDING COMMENTS) PARTITION BY %s (%s)%s",
			sql_qualified(get_namespace_name(schema), name), sql_relation(source), strategy,
			quote_identifier(key), tablespace_clause(rel));
	target = get_relname_relid(name, schema);
	sql_run("ALTER TABLE %s %s, REPLICA IDENTITY FULL", sql_relation(target),
			not_null_action(rel, key));
	keep_to_owner(sql_relation(target));
	add_checks(source, target);
	table_close(rel, NoLock);
	return target;
}

void
target_table_add_partitions(Oid source, Oid target, List *partitions)
{
	Relation rel = table_open(source, AccessShareLock);
	char *schema = get_namespace_name(get_rel_namespace(target));
	char *parent = sql_relation(target);
	char *storage = storage_clause(rel);
	ListCell *lc;

	foreach (lc, partitions)
	{
		Partition *partition = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		sql_run("CREATE TABLE %s PARTITION OF %s %s%s", sql_qualified(schema, partition->name),
				parent, partition->bound, storage);
		sql_run("ALTER TABLE %s REPLICA IDENTITY FULL", sql_qualified(schema, partition->name));
		keep_to_owner(sql_qualified(schema, partition->name));
	}

	add_check_comments(source, target);
	table_close(rel, NoLock);
}

/*
 * Give a partition that was attached the target's replica identity.
 */
static void
copy_replica_identity(Oid target, Oid partition)
{
	Relation rel = table_open(target, AccessShareLock);
	char identity = rel->rd_rel->relreplident;
	char *index;

	table_close(rel, NoLock);
	if (identity == REPLICA_IDENTITY_FULL)
		sql_run("ALTER TABLE %s REPLICA IDENTITY FULL", sql_relation(partition));
	else if (identity == REPLICA_IDENTITY_NOTHING)
		sql_run("ALTER TABLE %s REPLICA IDENTITY NOTHING", sql_relation(partition));
	else if (identity == REPLICA_IDENTITY_INDEX)
	{
		index = sql_text("SELECT c.relname FROM pg_catalog.pg_index p"
						 " JOIN pg_catalog.pg_inherits h ON h.inhparent = p.indexrelid"
						 " JOIN pg_catalog.pg_index i ON i.indexrelid = h.inhrelid"
						 " JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
						 " WHERE p.indrelid = %u AND p.indisreplident AND i.indrelid = %u",
						 target, partition);
		if (index != NULL)
			sql_run("ALTER TABLE %s REPLICA IDENTITY USING INDEX %s", sql_relation(partition),
					quote_identifier(index));
	}
}

Oid
target_table_attach(Oid source, Oid target, const char *name, const char *bound)
{
	Relation rel = table_open(source, AccessShareLock);
	Oid schema = get_rel_namespace(target);
	char *qualified = sql_qualified(get_namespace_name(schema), name);
	Oid partition;
	char *parent = sql_relation(target);

	sql_run("CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED"
			" INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING STATISTICS)%s%s",
			qualified, parent, storage_clause(rel), tablespace_clause(rel));
	keep_to_owner(qualified);
	sql_run("ALTER TABLE %s ATTACH PARTITION %s %s", parent, qualified, bound);
	partition = get_relname_relid(name, schema);
	copy_replica_identity(target, partition);
	table_close(rel, NoLock);
	return partition;
}
