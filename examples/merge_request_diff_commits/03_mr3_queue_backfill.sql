-- MR3, release N: workers compare and fill the partitioned table from here on. Returns at once.
-- In another psql: SELECT * FROM migrate_ext.progress \watch 1
\set ON_ERROR_STOP on

SELECT migrate_ext.start_backfill('merge_request_diff_commits');
