-- A diff's commits, in order. Columns are named, and the one that becomes a bigint is cast, as is what it is
-- compared with: see "What to look out for" in README.md.
\set some random(1, 12000)
SELECT coalesce(min(merge_request_diff_id), 1) AS diff FROM control
WHERE merge_request_diff_id >= CASE WHEN :some <= 10000 THEN :some
                                    ELSE (SELECT max(merge_request_diff_id) FROM control) - 12000 + :some END \gset
SELECT merge_request_diff_id::bigint, relative_order, sha, message, trailers, authored_date, commit_author_id
FROM merge_request_diff_commits WHERE merge_request_diff_id = :diff::bigint ORDER BY relative_order;
