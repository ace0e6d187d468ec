-- MR1, release N: the table gets its sharding key, and the hand-written trigger makes way for one that
-- knows it. All in one transaction of a few milliseconds: no write finds neither trigger, nor both. Where it
-- doesn't get its lock nothing has happened: run it again. An autovacuum gives way after a second.
--
-- Old rows stay as they are. Their project is looked up when they are copied, and whoever writes a row
-- without it gets it from the same expression. Commits whose diff is gone have no project: they are left
-- out (on_null_key), counted, and stay in the original.
\set ON_ERROR_STOP on

BEGIN;
SET LOCAL lock_timeout = '2 s';
SELECT migrate_ext.add_sharding_key('merge_request_diff_commits', 'project_id', 'bigint',
    '(SELECT d.project_id FROM merge_request_diffs AS d WHERE d.id = s.merge_request_diff_id)');
SELECT migrate_ext.create_migration('merge_request_diff_commits', 'merge_request_diff_commits_b5377a7a34',
    options => '{"on_null_key": "skip"}');
SELECT migrate_ext.replace_sync('merge_request_diff_commits', '{table_sync_trigger_57c8465cd7}');
COMMIT;

-- What will be in the way of the swap or surprise after it: among it, that the original can't hold diff
-- ids beyond 2147483647.
SELECT severity, object, problem FROM migrate_ext.preflight('merge_request_diff_commits');
\ir check.sql
