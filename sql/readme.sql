-- Every block of SQL in README.md, as it stands there, by somebody who has just installed it.
\getenv abs_builddir PG_ABS_BUILDDIR
SELECT current_database() AS here \gset
CREATE DATABASE regress_readme;
\c regress_readme
SET client_min_messages = warning;
\cd :abs_builddir
-- the first of them is a whole migration
\! sed -n '/^```sql$/,/^```$/p; /^```$/q' "$PG_ABS_SRCDIR/README.md" | sed '/^```/d' >"$PG_ABS_BUILDDIR/results/readme_blocks.sql"
\i results/readme_blocks.sql
\d visits
SELECT count(*), min(id), max(id) FROM visits;
SELECT migration, kind, state, source, target, original FROM migrate_ext.migrations ORDER BY migration;
-- the others are said to one that is under way
DROP TABLE visits;
SELECT migrate_ext.forget('visits');
CREATE TABLE visits (id bigint PRIMARY KEY);
CREATE TABLE jobs (late boolean);
SELECT migrate_ext.partition_by_range('visits', 'id', 20000);
\! sed '1,/^```$/d' "$PG_ABS_SRCDIR/README.md" | sed -n '/^```sql$/,/^```$/p' | sed '/^```/d' >"$PG_ABS_BUILDDIR/results/readme_blocks.sql"
\i results/readme_blocks.sql
\! rm results/readme_blocks.sql
\d visits_new
SELECT message FROM migrate_ext.events WHERE migration = 'visits' AND kind = 'configured' ORDER BY at;
\c :here
DROP DATABASE regress_readme WITH (FORCE);
