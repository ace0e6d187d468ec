-- MR4, any time once the backfill is through: who has the feature flag reads the partitioned table under
-- its own name. In state live both tables are equal in every snapshot: no reader can tell them apart.
\set ON_ERROR_STOP on

CALL migrate_ext.wait_for('merge_request_diff_commits', 'live', '10 minutes');
UPDATE feature_flags SET enabled = true WHERE name = 'read_partitioned_commits';
