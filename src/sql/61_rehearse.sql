-- The swap and its way back, tried.

CREATE PROCEDURE migrate_ext.rehearse(migration text)
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_rehearse';
COMMENT ON PROCEDURE migrate_ext.rehearse(text) IS
'the whole swap and its way back under the real locks, rolled back: tells how long it waited and held, what would differ, and fails as the swap would';
