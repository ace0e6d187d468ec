-- A commit's message is changed.
\set some random(1, 12000)
SELECT coalesce(min(merge_request_diff_id), 1) AS diff FROM control
WHERE merge_request_diff_id >= CASE WHEN :some <= 10000 THEN :some
                                    ELSE (SELECT max(merge_request_diff_id) FROM control) - 12000 + :some END \gset
\set place random(0, 8)
BEGIN;
SELECT pg_advisory_xact_lock(:diff::bigint);
WITH written AS (
    UPDATE merge_request_diff_commits SET message = concat('amended: ', message), committed_date = now()
    WHERE merge_request_diff_id = :diff::bigint AND relative_order = :place
    RETURNING merge_request_diff_id, relative_order, message, committed_date
)
UPDATE control AS c SET message = w.message, committed_date = w.committed_date
FROM written AS w
WHERE c.merge_request_diff_id = w.merge_request_diff_id AND c.relative_order = w.relative_order;
COMMIT;
