-- A diff's commits, in order, from the partitioned table where the feature flag is on.
\set some random(1, 12000)
SELECT coalesce(min(merge_request_diff_id), 1) AS diff FROM control
WHERE merge_request_diff_id >= CASE WHEN :some <= 10000 THEN :some
                                    ELSE (SELECT max(merge_request_diff_id) FROM control) - 12000 + :some END \gset
SELECT enabled::int FROM feature_flags WHERE name = 'read_partitioned_commits' \gset
\if :enabled
SELECT merge_request_diff_id::bigint, relative_order, sha, message, trailers, authored_date, commit_author_id
FROM merge_request_diff_commits_b5377a7a34 WHERE merge_request_diff_id = :diff::bigint ORDER BY relative_order;
\else
SELECT merge_request_diff_id::bigint, relative_order, sha, message, trailers, authored_date, commit_author_id
FROM merge_request_diff_commits WHERE merge_request_diff_id = :diff::bigint ORDER BY relative_order;
\endif
