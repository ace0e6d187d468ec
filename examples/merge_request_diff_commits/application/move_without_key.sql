-- A diff goes to another project, in the release that knows no project of commits.
\set some random(1, 12000)
SELECT coalesce(min(merge_request_diff_id), 1) AS diff FROM control
WHERE merge_request_diff_id >= CASE WHEN :some <= 10000 THEN :some
                                    ELSE (SELECT max(merge_request_diff_id) FROM control) - 12000 + :some END \gset
\set project random(1, 400)
BEGIN;
SELECT pg_advisory_xact_lock(:diff::bigint);
UPDATE merge_request_diffs SET project_id = :project WHERE id = :diff;
COMMIT;
