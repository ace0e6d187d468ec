-- The sharding key: a column that is added, derived and filled.

CREATE FUNCTION migrate_ext.add_sharding_key(
    source      regclass,
    column_name text,
    column_type text,
    value       text DEFAULT NULL,
    fill        boolean DEFAULT true
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_add_sharding_key';
COMMENT ON FUNCTION migrate_ext.add_sharding_key(regclass, text, text, text, boolean) IS
'adds a column, changing no row. value is an expression over the row s, scalar subqueries too: a migration by that column derives it where it is NULL; with fill, a row that is written without it gets it';

-- Each checks by itself that it is called where migrate_ext put it.
CREATE FUNCTION migrate_ext.fill_key() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'migrate_ext_fill_key';
COMMENT ON FUNCTION migrate_ext.fill_key() IS 'trigger: fills the sharding key of a written row that has none';
GRANT EXECUTE ON FUNCTION migrate_ext.fill_key() TO PUBLIC;

-- Runs with the rights of its caller, who could run the statement as well.
CREATE FUNCTION migrate_ext.derive_key(type anyelement, statement text, VARIADIC columns "any") RETURNS anyelement
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_derive_key';
COMMENT ON FUNCTION migrate_ext.derive_key(anyelement, text, "any") IS 'internal: the value of a sharding key for one row';
