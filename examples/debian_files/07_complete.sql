-- Step 7: forth again, then for good. The original goes, and so do all triggers of migrate_ext.
\set ON_ERROR_STOP on

CALL migrate_ext.finalize('files', '5 minutes');
CALL migrate_ext.complete('files', drop_original => true);

SELECT section, count(*) FROM files GROUP BY section ORDER BY count DESC LIMIT 5;
SELECT migrate_ext.forget('files');
\ir check.sql
