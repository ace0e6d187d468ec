-- MR4's down.
\set ON_ERROR_STOP on

UPDATE feature_flags SET enabled = false WHERE name = 'read_partitioned_commits';
