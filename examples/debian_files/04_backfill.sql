-- Step 4: workers copy the rows; what is written meanwhile is kept. In state live files_new equals
-- files, in every snapshot. In another psql: SELECT * FROM migrate_ext.progress \watch 1
\set ON_ERROR_STOP on

SELECT migrate_ext.start('files');
CALL migrate_ext.wait_for('files', 'live', '10 minutes');

SELECT state, rows_done, skipped, failed FROM migrate_ext.progress WHERE migration = 'files';
SELECT section, count(*) FROM files_new GROUP BY section ORDER BY count DESC LIMIT 5;
\ir check.sql
