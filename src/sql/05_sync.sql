-- The sync trigger's functions.  Partitions get clones of a trigger from
-- whoever makes them, which needs EXECUTE; each function checks by itself that
-- the table belongs to the migration it is called for.

CREATE FUNCTION migrate_ext.sync_log() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'migrate_ext_sync_log';
COMMENT ON FUNCTION migrate_ext.sync_log() IS
    'sync trigger: appends the identity of a written row to the change log';

CREATE FUNCTION migrate_ext.sync_write_through() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'migrate_ext_sync_write_through';
COMMENT ON FUNCTION migrate_ext.sync_write_through() IS
    'sync trigger of a live migration: writes the row to the target';

CREATE FUNCTION migrate_ext.sync_reverse() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'migrate_ext_sync_reverse';
COMMENT ON FUNCTION migrate_ext.sync_reverse() IS
    'sync trigger after the swap: writes the row to the original; does nothing before';

CREATE FUNCTION migrate_ext.sync_truncate() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'migrate_ext_sync_truncate';
COMMENT ON FUNCTION migrate_ext.sync_truncate() IS
    'sync trigger: TRUNCATE of the source';

CREATE FUNCTION migrate_ext.sync_reverse_truncate() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'migrate_ext_sync_reverse_truncate';
COMMENT ON FUNCTION migrate_ext.sync_reverse_truncate() IS
    'sync trigger after the swap: TRUNCATE of the target or of a partition';

CREATE FUNCTION migrate_ext.refuse_straggler() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'migrate_ext_refuse_straggler';
REVOKE ALL ON FUNCTION migrate_ext.refuse_straggler() FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.refuse_straggler() IS
    'trigger on the table that is not in use: refuses statements that waited for a swap';

GRANT EXECUTE ON FUNCTION migrate_ext.sync_log(), migrate_ext.sync_write_through(),
    migrate_ext.sync_reverse(), migrate_ext.sync_truncate(), migrate_ext.sync_reverse_truncate()
    TO PUBLIC;
