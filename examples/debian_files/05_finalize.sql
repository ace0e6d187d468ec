-- Step 5: both tables are compared row for row, then the partitioned one takes the name. From here on
-- who inserts a file must give its section: see README.md.
\set ON_ERROR_STOP on

-- Is the application ready? How many files it has inserted without a section, and when the last one.
SELECT problem FROM migrate_ext.preflight('files') WHERE object LIKE 'column section of %';

CALL migrate_ext.finalize('files', '5 minutes');

SELECT checked_rows, missing, extra, different, stale_key FROM migrate_ext.verifications
WHERE migration = 'files' ORDER BY verified_at DESC LIMIT 1;
SELECT direction, attempts, wait_ms, hold_ms FROM migrate_ext.swaps WHERE migration = 'files' ORDER BY at;
EXPLAIN (COSTS OFF) SELECT count(*) FROM files WHERE section = 'libs';
\ir check.sql
