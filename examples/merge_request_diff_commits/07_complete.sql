-- Releases later: nobody wants to go back. The triggers go, the original too, and with it the commits of
-- diffs that are gone (drop_original => false would keep it).
\set ON_ERROR_STOP on

CALL migrate_ext.complete('merge_request_diff_commits', drop_original => true);
SELECT migrate_ext.forget('merge_request_diff_commits');
\ir check.sql
