-- MR5, after a required stop: the backfill is through, and both tables are compared row for row. No row is
-- missing, extra or different; those without a diff are counted as skipped.
--
-- stale_key: commits whose diff has changed its project since their row was copied, by some path that
-- forgot the commits. They are written once more, with the project that their diff has now. The
-- application's own lock keeps it from working on the same diffs meanwhile.
\set ON_ERROR_STOP on

CALL migrate_ext.wait_for('merge_request_diff_commits', 'live', '10 minutes');
CALL migrate_ext.verify('merge_request_diff_commits');
SELECT checked_rows, missing, extra, different, skipped, failed, stale_key
FROM migrate_ext.verifications WHERE migration = 'merge_request_diff_commits' ORDER BY verified_at DESC LIMIT 1;

BEGIN;
SELECT count(pg_advisory_xact_lock(id)) AS diffs_moved_without_their_commits
FROM (SELECT DISTINCT d.id
      FROM merge_request_diff_commits_b5377a7a34 AS p JOIN merge_request_diffs AS d ON d.id = p.merge_request_diff_id
      WHERE p.project_id <> d.project_id ORDER BY d.id) AS moved;
UPDATE merge_request_diff_commits AS c SET project_id = d.project_id
FROM merge_request_diff_commits_b5377a7a34 AS p JOIN merge_request_diffs AS d ON d.id = p.merge_request_diff_id
WHERE p.project_id <> d.project_id
  AND c.merge_request_diff_id = p.merge_request_diff_id AND c.relative_order = p.relative_order;
COMMIT;

CALL migrate_ext.verify('merge_request_diff_commits');
SELECT checked_rows, missing, extra, different, skipped, failed, stale_key
FROM migrate_ext.verifications WHERE migration = 'merge_request_diff_commits' ORDER BY verified_at DESC LIMIT 1;
\ir check.sql
