-- Step 3: files_new, with a partition for each section there is. Nothing in it yet, nothing on files
-- changed. preflight tells what would stop the swap (error) or surprise after it.
\set ON_ERROR_STOP on

SELECT migrate_ext.partition_by_list('files', 'section');
SELECT relid::regclass AS partition, pg_get_expr(relpartbound, relid) AS takes
FROM pg_partition_tree('files_new') JOIN pg_class ON pg_class.oid = relid WHERE isleaf;

SELECT severity, object, problem FROM migrate_ext.preflight('files');
