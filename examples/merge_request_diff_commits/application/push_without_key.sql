-- A push: a new diff and its commits. The release that knows no project_id.
\set project random(1, 400)
\set last random(0, 6)
BEGIN;
INSERT INTO merge_request_diffs (project_id) VALUES (:project) RETURNING id AS diff \gset
WITH written AS (
    INSERT INTO merge_request_diff_commits
        (authored_date, committed_date, merge_request_diff_id, relative_order, sha, message, trailers,
         commit_author_id, committer_id)
    SELECT now(), now(), :diff::bigint, o, substr(sha256(int8send(:diff::bigint * 100 + o)), 1, 20), 'pushed',
           '{"Changelog": "added"}', 17, 18
    FROM generate_series(0, :last) AS o
    RETURNING authored_date, committed_date, merge_request_diff_id, relative_order, sha, message, trailers,
              commit_author_id, committer_id
)
INSERT INTO control SELECT * FROM written;
COMMIT;
