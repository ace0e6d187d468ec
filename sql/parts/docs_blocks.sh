#!/bin/sh
# The blocks of SQL in the pages named, each page's in a database of its own, as a script for psql.
# shellcheck disable=SC2016

# What a page's reader has already.
before() {
	case $1 in
		errors.md)
			cat <<-END
				CREATE EXTENSION migrate_ext;
				CREATE TABLE t (id integer PRIMARY KEY);
				INSERT INTO t VALUES (1);
				SELECT migrate_ext.partition_by_range('t', 'id', 10);
			END
			;;
		from_triggers.md)
			cat <<-END
				CREATE TABLE diffs (id bigint PRIMARY KEY, project_id bigint);
				CREATE TABLE commits (diff_id bigint REFERENCES diffs, place integer, PRIMARY KEY (diff_id, place));
				CREATE TABLE commits_part (diff_id bigint, place integer, project_id bigint) PARTITION BY HASH (project_id);
				CREATE TABLE commits_part_0 PARTITION OF commits_part FOR VALUES WITH (MODULUS 1, REMAINDER 0);
				CREATE FUNCTION copy_commit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO commits_part SELECT NEW.*; RETURN NEW; END';
				CREATE TRIGGER table_sync_trigger AFTER INSERT ON commits FOR EACH ROW EXECUTE FUNCTION copy_commit();
			END
			;;
		runbook.md) echo 'CREATE EXTENSION migrate_ext;' ;;
	esac
}

for page in "$@"; do
	grep -q '^```sql$' "$page" || continue
	cat <<-END
		\\echo == $(basename "$page")
		CREATE DATABASE regress_docs;
		\\c regress_docs
		SET client_min_messages = warning;
		\\o /dev/null
		$(before "$(basename "$page")")
		$(sed -n '/^```sql$/,/^```$/{ /^```/d; p; }' "$page")
		\\o
		SELECT migration, state, target, original FROM migrate_ext.migrations ORDER BY migration;
		\\c :here
		DROP DATABASE regress_docs WITH (FORCE);
	END
done
