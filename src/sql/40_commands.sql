-- Functions that steer a migration, transactional, for application migrations.

CREATE FUNCTION migrate_ext.install_sync(migration text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_install_sync';
COMMENT ON FUNCTION migrate_ext.install_sync(text) IS 'asks for state logging: from then on every change of the source is logged';

CREATE FUNCTION migrate_ext.start_backfill(migration text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_start';
COMMENT ON FUNCTION migrate_ext.start_backfill(text) IS 'asks for state live: rows are copied, indexes built, the log drained';

CREATE FUNCTION migrate_ext.start(migration text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_start';
COMMENT ON FUNCTION migrate_ext.start(text) IS 'install_sync and start_backfill in one: asks for state live';

CREATE FUNCTION migrate_ext.replace_sync(migration text, replaces text[] DEFAULT '{}') RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_replace_sync';
COMMENT ON FUNCTION migrate_ext.replace_sync(text, text[]) IS 'in the caller''s transaction, beside ALTER TABLE: the other table and the sync trigger follow the columns and the definition of the sharding key; hand-written sync triggers named are disabled in the same lock and dropped later';

CREATE FUNCTION migrate_ext.pause(migration text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_pause';
COMMENT ON FUNCTION migrate_ext.pause(text, text) IS 'stops copying, draining and verifying within a second; state, trigger and progress stay';

CREATE FUNCTION migrate_ext.resume(migration text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_resume';
COMMENT ON FUNCTION migrate_ext.resume(text) IS 'goes on after a pause, or after a restart of a server that does not preload the library';

CREATE FUNCTION migrate_ext.configure(migration text, setting text, value text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_configure';
COMMENT ON FUNCTION migrate_ext.configure(text, text, text) IS 'gives one migration a value of its own for workers, worker_nice, batch_target_ms, lock_timeout_ms, deadlock_timeout_ms, lock_queue_ms or what paces it (throttle_*); within a second';

CREATE FUNCTION migrate_ext.swap(migration text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_swap';
COMMENT ON FUNCTION migrate_ext.swap(text) IS 'the swap alone, in the caller''s transaction, one lock attempt; fails unless all is ready';

CREATE FUNCTION migrate_ext.unswap(migration text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_unswap';
COMMENT ON FUNCTION migrate_ext.unswap(text) IS 'the way back of swap, in the caller''s transaction, one lock attempt';

CREATE FUNCTION migrate_ext.forget(migration text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_forget';
COMMENT ON FUNCTION migrate_ext.forget(text) IS 'removes the record of a completed or cancelled migration';

CREATE FUNCTION migrate_ext.differences(migration text, max integer DEFAULT 100)
RETURNS TABLE (identity jsonb, kind text, columns text[], source_row jsonb, target_row jsonb)
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_differences';
COMMENT ON FUNCTION migrate_ext.differences(text, integer) IS 'the first rows that differ, in the order of their key: missing or extra on the table that is kept in step, different, or with a key derived from what has changed since (stale_key)';

CREATE FUNCTION migrate_ext.repair(migration text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_repair';
COMMENT ON FUNCTION migrate_ext.repair(text) IS 'compares all rows and has those that differ made equal to the application''s table; returns how many';

CREATE FUNCTION migrate_ext.retry_failed(migration text) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_retry_failed';
COMMENT ON FUNCTION migrate_ext.retry_failed(text) IS 'has the rows in failed_rows tried again; returns how many';

-- Procedures, for what waits.

CREATE PROCEDURE migrate_ext.run(migration text, until text DEFAULT 'live', timeout interval DEFAULT NULL)
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_run';
COMMENT ON PROCEDURE migrate_ext.run(text, text, interval) IS 'does in this session what the workers would do';

CREATE PROCEDURE migrate_ext.wait_for(migration text, state text, timeout interval DEFAULT '1 hour')
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_wait_for';
COMMENT ON PROCEDURE migrate_ext.wait_for(text, text, interval) IS 'waits until that state is reached or passed';

CREATE PROCEDURE migrate_ext.verify(migration text, timeout interval DEFAULT NULL)
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_verify';
COMMENT ON PROCEDURE migrate_ext.verify(text, interval) IS 'compares all rows of both tables; the result is in the view verifications';

CREATE PROCEDURE migrate_ext.finalize(migration text, timeout interval DEFAULT '5 minutes', options jsonb DEFAULT '{}')
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_finalize';
COMMENT ON PROCEDURE migrate_ext.finalize(text, interval, jsonb) IS 'verifies, waits for older snapshots, swaps: the application is on the partitioned table';

CREATE PROCEDURE migrate_ext.undo(migration text, timeout interval DEFAULT '5 minutes', options jsonb DEFAULT '{}')
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_undo';
COMMENT ON PROCEDURE migrate_ext.undo(text, interval, jsonb) IS 'the same way back, with every write made since; finalize swaps forth again';

CREATE PROCEDURE migrate_ext.complete(migration text, drop_original boolean DEFAULT false, options jsonb DEFAULT '{}')
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_complete';
COMMENT ON PROCEDURE migrate_ext.complete(text, boolean, jsonb) IS 'ends reverse sync, keeps or drops the original';

CREATE PROCEDURE migrate_ext.cancel(migration text)
    LANGUAGE C AS 'MODULE_PATHNAME', 'migrate_ext_cancel';
COMMENT ON PROCEDURE migrate_ext.cancel(text) IS 'before a swap: removes trigger, log and a target that we made; the record stays until forget';
