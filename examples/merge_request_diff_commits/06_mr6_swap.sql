-- MR6, release N + RS: the feature flag is gone, all code reads and writes merge_request_diff_commits; then
-- the partitioned table takes that name. The original stays complete as merge_request_diff_commits_orig.
\set ON_ERROR_STOP on

SELECT severity, object, problem FROM migrate_ext.preflight('merge_request_diff_commits');
CALL migrate_ext.finalize('merge_request_diff_commits', '5 minutes');

SELECT direction, attempts, wait_ms, hold_ms FROM migrate_ext.swaps
WHERE migration = 'merge_request_diff_commits' ORDER BY at;
SELECT tableoid::regclass AS partition, count(*), min(project_id), max(project_id)
FROM merge_request_diff_commits GROUP BY 1 ORDER BY 3;
\ir check.sql
