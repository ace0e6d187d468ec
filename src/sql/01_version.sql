-- Library and objects may be of two versions while an update is under way: see
-- version.h and update.c.  These functions stay as they are in every version.

CREATE FUNCTION migrate_ext.begin_update(version text, VARIADIC relations regclass[] DEFAULT '{}') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_begin_update';
COMMENT ON FUNCTION migrate_ext.begin_update(text, regclass[]) IS 'for update scripts: locks out workers and calls, and locks the tables and views that the script alters, without anybody waiting for it long';
REVOKE ALL ON FUNCTION migrate_ext.begin_update(text, regclass[]) FROM PUBLIC;

CREATE FUNCTION migrate_ext.update_due() RETURNS boolean
    LANGUAGE C STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_update_due';
COMMENT ON FUNCTION migrate_ext.update_due() IS 'internal: whether the library is newer than the extension''s objects, so that nothing is done until ALTER EXTENSION UPDATE';
