-- What holds after each step, and between any two transactions of the application. Stops with an error
-- where it doesn't.
\set ON_ERROR_STOP on

DO $$
DECLARE
    partitioned boolean := (SELECT relkind = 'p' FROM pg_class WHERE oid = 'merge_request_diff_commits'::regclass);
    state       text := (SELECT m.state FROM migrate_ext.migrations AS m WHERE migration = 'merge_request_diff_commits');
BEGIN
    -- Whatever the application has written is in its table. Commits without a diff stay in the original.
    ASSERT unlike_control('merge_request_diff_commits', orphans => NOT partitioned) = 0,
        'the table is not what it would be without a migration';
    IF state = 'live' THEN
        ASSERT unlike_control('merge_request_diff_commits_b5377a7a34', orphans => false) = 0,
            'live, but the partitioned table is not equal';
    ELSIF state = 'swapped' THEN
        ASSERT unlike_control('merge_request_diff_commits_orig', orphans => true) = 0,
            'swapped, but the original is not complete';
    END IF;
    IF partitioned THEN
        ASSERT NOT EXISTS (SELECT FROM merge_request_diff_commits AS c
                           LEFT JOIN merge_request_diffs AS d ON d.id = c.merge_request_diff_id
                           WHERE c.project_id IS DISTINCT FROM d.project_id),
            'a commit stands under another project than its diff';
    END IF;
    RAISE NOTICE 'all as it should be: % rows, %', (SELECT count(*) FROM merge_request_diff_commits),
        CASE WHEN partitioned THEN 'partitioned' ELSE 'one table' END;
END $$;
