-- MR3's down: the workers rest, what they have done stays, the trigger goes on. Up again is
-- migrate_ext.resume.
\set ON_ERROR_STOP on

SELECT migrate_ext.pause('merge_request_diff_commits', 'MR3 was rolled back');
