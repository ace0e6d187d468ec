-- Step 6, if need be: back to the plain table, with every write made since.
\set ON_ERROR_STOP on

CALL migrate_ext.undo('files', '5 minutes');

SELECT state FROM migrate_ext.migrations WHERE migration = 'files';
\ir check.sql
