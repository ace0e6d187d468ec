-- Every block of SQL in README.md, as it stands there, by somebody who has just installed it.
\getenv abs_builddir PG_ABS_BUILDDIR
\! sed -n '/^```sql$/,/^```$/{ /^```/d; p; }' "$PG_ABS_SRCDIR/README.md" >"$PG_ABS_BUILDDIR/results/readme_blocks.sql"
SELECT current_database() AS here \gset
CREATE DATABASE regress_readme;
\c regress_readme
SET client_min_messages = warning;
\cd :abs_builddir
\i results/readme_blocks.sql
\! rm results/readme_blocks.sql
\d visits
SELECT count(*), min(id), max(id) FROM visits;
SELECT migration, kind, state, source, target, original FROM migrate_ext.migrations ORDER BY migration;
\c :here
DROP DATABASE regress_readme WITH (FORCE);
