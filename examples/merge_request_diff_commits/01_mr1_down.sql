-- MR1's down: the hand-written trigger is back; the column is gone, and the trigger that filled it. What the
-- partitioned table has missed meanwhile does no harm: who takes it over the next time compares all of it.
\set ON_ERROR_STOP on

CALL migrate_ext.cancel('merge_request_diff_commits');
SELECT migrate_ext.forget('merge_request_diff_commits');
BEGIN;
SET LOCAL lock_timeout = '2 s';
\ir hand_written_trigger.sql
DROP TRIGGER "!migrate_ext_fill" ON merge_request_diff_commits;
ALTER TABLE merge_request_diff_commits DROP COLUMN project_id;
COMMIT;
\ir check.sql
