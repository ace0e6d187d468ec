-- The first commit of a diff becomes the last: a change of the key.
\set some random(1, 12000)
SELECT coalesce(min(merge_request_diff_id), 1) AS diff FROM control
WHERE merge_request_diff_id >= CASE WHEN :some <= 10000 THEN :some
                                    ELSE (SELECT max(merge_request_diff_id) FROM control) - 12000 + :some END \gset
BEGIN;
SELECT pg_advisory_xact_lock(:diff::bigint);
WITH place AS (
    SELECT min(relative_order) AS before, max(relative_order) + 1 AS after
    FROM merge_request_diff_commits WHERE merge_request_diff_id = :diff::bigint
), written AS (
    UPDATE merge_request_diff_commits SET relative_order = place.after
    FROM place
    WHERE merge_request_diff_id = :diff::bigint AND relative_order = place.before
    RETURNING place.before, place.after
)
UPDATE control AS c SET relative_order = w.after
FROM written AS w
WHERE c.merge_request_diff_id = :diff::bigint AND c.relative_order = w.before;
COMMIT;
