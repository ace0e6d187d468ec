-- Every block of SQL in docs/, as it stands there: each page's in a database of its own. What they print is not
-- what is tested, but that nothing fails, and where a migration ends.
\getenv abs_builddir PG_ABS_BUILDDIR
SELECT current_database() AS here \gset
\! sh "$PG_ABS_SRCDIR"/sql/parts/docs_blocks.sh "$PG_ABS_SRCDIR"/docs/*.md >"$PG_ABS_BUILDDIR/results/docs_blocks.sql"
\cd :abs_builddir
\set ECHO errors
\i results/docs_blocks.sql
\set ECHO all
\! rm results/docs_blocks.sql
