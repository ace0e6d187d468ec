-- MR1, release N, after the deploy: the application writes project_id itself, and takes the commits along
-- when a diff changes its project (application/*_with_key.sql). The release before didn't: a diff may have
-- moved after the trigger had filled its commits' key. That is put right once.
--
-- The application works on one diff at a time, under this advisory lock, and so do we.
\set ON_ERROR_STOP on

BEGIN;
SELECT count(pg_advisory_xact_lock(id)) AS diffs_moved_without_their_commits
FROM (SELECT DISTINCT d.id
      FROM merge_request_diff_commits AS c JOIN merge_request_diffs AS d ON d.id = c.merge_request_diff_id
      WHERE c.project_id <> d.project_id ORDER BY d.id) AS moved;
UPDATE merge_request_diff_commits AS c SET project_id = d.project_id
FROM merge_request_diffs AS d
WHERE d.id = c.merge_request_diff_id AND c.project_id <> d.project_id;
COMMIT;
\ir check.sql
