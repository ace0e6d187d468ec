-- A diff is removed, with its commits.
\set some random(1, 12000)
SELECT coalesce(min(merge_request_diff_id), 1) AS diff FROM control
WHERE merge_request_diff_id >= CASE WHEN :some <= 10000 THEN :some
                                    ELSE (SELECT max(merge_request_diff_id) FROM control) - 12000 + :some END \gset
BEGIN;
SELECT pg_advisory_xact_lock(:diff::bigint);
WITH written AS (
    DELETE FROM merge_request_diff_commits WHERE merge_request_diff_id = :diff::bigint
    RETURNING merge_request_diff_id, relative_order
)
DELETE FROM control AS c USING written AS w
WHERE c.merge_request_diff_id = w.merge_request_diff_id AND c.relative_order = w.relative_order;
DELETE FROM merge_request_diffs WHERE id = :diff;
COMMIT;
