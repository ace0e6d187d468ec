-- For tests: a release has none of this.

CREATE FUNCTION migrate_ext.debug_hold(name text) RETURNS void
    LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_debug_hold';
COMMENT ON FUNCTION migrate_ext.debug_hold(text) IS 'for tests: processes that come to this debug point wait';
REVOKE ALL ON FUNCTION migrate_ext.debug_hold(text) FROM PUBLIC;

CREATE FUNCTION migrate_ext.debug_release(name text) RETURNS boolean
    LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_debug_release';
COMMENT ON FUNCTION migrate_ext.debug_release(text) IS 'for tests: lets them go on';
REVOKE ALL ON FUNCTION migrate_ext.debug_release(text) FROM PUBLIC;
