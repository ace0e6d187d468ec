-- What is to come, before it does.

CREATE FUNCTION migrate_ext.plan(migration text)
RETURNS TABLE (step integer, statement text, lock text, note text)
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_plan';
COMMENT ON FUNCTION migrate_ext.plan(text) IS
'every statement that the migration will run from now on, in order, with the lock it takes; changes nothing';
