-- What people look at.  Each row is seen by members of the migration's owner
-- and of pg_monitor, and all of a view by whom it is granted to by name; nobody
-- but the extension's functions sees the tables.

CREATE FUNCTION migrate_ext.log_entries(migration_id bigint) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_log_entries';
COMMENT ON FUNCTION migrate_ext.log_entries(bigint) IS 'internal: entries of the change log still to be drained, counted up to 100,000';

CREATE FUNCTION migrate_ext.default_rows(migration_id bigint) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_default_rows';
COMMENT ON FUNCTION migrate_ext.default_rows(bigint) IS 'internal: rows in the target''s default partitions, beyond 100,000 an estimate';

CREATE FUNCTION migrate_ext.leader(migration_id bigint) RETURNS integer
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_leader';
COMMENT ON FUNCTION migrate_ext.leader(bigint) IS 'internal: process id of the leader';

CREATE FUNCTION migrate_ext.workers(migration_id bigint) RETURNS integer
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_workers';
COMMENT ON FUNCTION migrate_ext.workers(bigint) IS 'internal: how many processes are at work on a migration';

CREATE FUNCTION migrate_ext.is_granted(view_name text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_is_granted';
COMMENT ON FUNCTION migrate_ext.is_granted(text) IS 'internal: whether SELECT on that view is granted to the reader, or a role of his, by name, not to PUBLIC as a whole';

-- Where the original was dropped, the target tells who the owner is, or, of kind key, the record.
CREATE VIEW migrate_ext.any_migration WITH (security_barrier) AS
SELECT m.*, COALESCE(s.relowner, t.relowner, k.owner) AS owner,
       s.oid IS NOT NULL AS source_exists, t.oid IS NOT NULL AS target_exists,
       pg_catalog.pg_has_role('pg_monitor'::pg_catalog.name, 'MEMBER')
       OR pg_catalog.pg_has_role(COALESCE(s.relowner, t.relowner, k.owner), 'MEMBER') AS visible
FROM migrate_ext.migration m
LEFT JOIN pg_catalog.pg_class s ON s.oid = m.source
LEFT JOIN pg_catalog.pg_class t ON t.oid = m.target
CROSS JOIN LATERAL (SELECT CASE WHEN m.kind = 'key' THEN (m.options->>'owner')::pg_catalog.oid END AS owner) k;
COMMENT ON VIEW migrate_ext.any_migration IS 'internal: all migrations, and whether the reader may see them without a grant';

CREATE VIEW migrate_ext.migrations WITH (security_barrier) AS
SELECT m.name AS migration,
       m.kind,
       pg_catalog.format('%I.%I', m.schema_name, m.table_name) AS table_name,
       CASE WHEN m.source_exists THEN m.source END AS source,
       CASE WHEN m.target_exists THEN m.target END AS target,
       CASE WHEN m.source_exists AND m.kind = 'partition' AND m.state IN ('swapped', 'completed') THEN m.source END AS original,
       m.state,
       m.goal,
       m.paused,
       m.pause_reason,
       m.last_error,
       m.owner::pg_catalog.regrole AS owner,
       m.created_at,
       m.live_at,
       m.swapped_at,
       m.completed_at
FROM migrate_ext.any_migration m
WHERE m.visible OR (SELECT migrate_ext.is_granted('migrations'));

-- Shares of the whole that the states have are those of a table with a few
-- indexes; within copying and indexing they go by what is done.
CREATE VIEW migrate_ext.progress WITH (security_barrier) AS
SELECT m.name AS migration,
       m.state,
       '[' || pg_catalog.rpad(pg_catalog.repeat('#', pg_catalog.floor(p.percent / 5)::integer), 20, '.') || ']' AS bar,
       p.percent,
       b.rows_done,
       GREATEST(b.rows_done, CASE WHEN r.copied AND NOT b.comparing THEN b.rows_done
                                  -- of the rows that a key is filled in, not all lack it
                                  WHEN r.key AND b.blocks_done > 0 THEN b.rows_done * m.end_block / b.blocks_done
                                  WHEN s.reltuples >= 0 THEN s.reltuples::bigint
                                  WHEN b.blocks_done > 0 THEN b.rows_done * m.end_block / b.blocks_done
                                  ELSE 0 END) AS rows_total,
       b.blocks_done * r.block_size AS bytes_done,
       GREATEST(b.blocks_done, CASE WHEN r.copied THEN b.blocks_done
                                    ELSE COALESCE(m.end_block, s.relpages, 0) END) * r.block_size AS bytes_total,
       pg_catalog.round(b.rows_per_second::numeric, 1) AS rows_per_second,
       CASE WHEN m.state IN ('live', 'swapped', 'completed') THEN INTERVAL '0'
            WHEN m.state = 'copying' AND NOT m.paused AND b.blocks_per_second > 0
            THEN pg_catalog.make_interval(secs => pg_catalog.ceil(GREATEST(m.end_block - b.blocks_done, 0) / b.blocks_per_second))
       END AS eta,
       l.entries AS log_entries,
       CASE WHEN m.state <> 'cancelled' AND NOT r.key THEN migrate_ext.default_rows(m.id) END AS default_rows,
       -- counted by the last complete verification, until then by the copy
       COALESCE((SELECT v.skipped FROM migrate_ext.verification v
                 WHERE v.migration = m.id AND v.complete AND v.verified_at >= m.live_at ORDER BY v.id DESC LIMIT 1),
                (SELECT pg_catalog.sum(t.skipped)::bigint FROM migrate_ext.batch t
                 WHERE t.migration = m.id AND t.epoch = m.epoch AND t.state = 'done'), 0) AS skipped,
       (SELECT pg_catalog.count(*) FROM migrate_ext.failed_row f WHERE f.migration = m.id) AS failed,
       w.workers,
       CASE WHEN r.finished THEN NULL
            WHEN r.dropped THEN 'nothing: ' || CASE WHEN m.source_exists THEN 'the target' ELSE 'the source' END || ' has been dropped'
            WHEN (SELECT migrate_ext.update_due())
            THEN 'ALTER EXTENSION migrate_ext UPDATE: its library is newer than its objects' || l.warning
            WHEN m.paused THEN 'resume: it is paused' || COALESCE(', ' || m.pause_reason, '') || l.warning
            WHEN w.lacking THEN 'a worker: no process is at work on it' || l.warning
            WHEN pg_catalog.cardinality(w.blocked_by) > 0
            THEN 'a lock held by process ' || pg_catalog.array_to_string(w.blocked_by, ', ')
            -- told each second by whoever is slowed down
            WHEN t.seen_at > pg_catalog.clock_timestamp() - INTERVAL '5 s' AND t.reason IS NOT NULL THEN t.reason
            WHEN m.request IS NOT NULL OR m.state <> m.goal
            THEN COALESCE(m.last_error, m.request->'progress'->>'waiting')
            -- why the last call was refused is nothing that is waited for
            WHEN NOT EXISTS (SELECT FROM migrate_ext.event e
                             WHERE e.migration = m.id AND e.kind = 'refused' AND pg_catalog.starts_with(m.last_error, e.message))
            THEN m.last_error
       END AS waiting_for,
       CASE WHEN r.finished THEN pg_catalog.format('SELECT migrate_ext.forget(%L)', m.name)
            WHEN (SELECT migrate_ext.update_due()) THEN 'ALTER EXTENSION migrate_ext UPDATE'
            WHEN m.goal = 'cancelled' THEN pg_catalog.format('CALL migrate_ext.cancel(%L)', m.name)
            WHEN r.dropped THEN pg_catalog.format(CASE WHEN m.state = 'swapped' THEN 'CALL migrate_ext.complete(%L)'
                                                       ELSE 'CALL migrate_ext.cancel(%L)' END, m.name)
            WHEN m.paused THEN pg_catalog.format('SELECT migrate_ext.resume(%L)', m.name)
            WHEN w.lacking
            THEN pg_catalog.format(CASE WHEN m.state IN ('live', 'swapped') THEN 'SELECT migrate_ext.resume(%L)'
                                        ELSE 'SELECT migrate_ext.resume(%1$L) or CALL migrate_ext.run(%1$L)' END, m.name)
            WHEN m.state = 'created' AND m.goal = 'created' THEN pg_catalog.format('SELECT migrate_ext.start(%L)', m.name)
            WHEN m.state = 'logging' AND m.goal = 'logging' THEN pg_catalog.format('SELECT migrate_ext.start_backfill(%L)', m.name)
            WHEN m.state = 'live' THEN pg_catalog.format('CALL migrate_ext.finalize(%L)', m.name)
            WHEN m.state = 'swapped' THEN pg_catalog.format('CALL migrate_ext.complete(%1$L) or CALL migrate_ext.undo(%1$L)', m.name)
            ELSE pg_catalog.format('CALL migrate_ext.wait_for(%L, %L)', m.name, m.goal)
       END AS next_step,
       pg_catalog.round(b.rows_per_second_overall::numeric, 1) AS rows_per_second_overall,
       -- what the two paces disagree by, or what the batches of the last minute do among themselves
       CASE WHEN m.state = 'copying' AND NOT m.paused AND b.blocks_per_second > 0 AND b.spread IS NOT NULL
            THEN pg_catalog.make_interval(secs => pg_catalog.ceil(GREATEST(m.end_block - b.blocks_done, 0)
                 * GREATEST(pg_catalog.abs(1 / b.blocks_per_second - 1 / b.blocks_per_second_overall), b.spread / b.blocks_per_second)))
       END AS eta_error
FROM migrate_ext.any_migration m
LEFT JOIN pg_catalog.pg_class s ON s.oid = m.source
LEFT JOIN migrate_ext.throttle t ON t.migration = m.id
CROSS JOIN LATERAL (
    SELECT m.state IN ('completed', 'cancelled') AS finished,
           m.state IN ('indexing', 'catching_up', 'live', 'swapped', 'completed') AS copied,
           m.kind = 'key' AS key,
           m.state IN ('live', 'swapped') AND m.kind <> 'key' OR m.state <> m.goal AS needs_leader,
           -- all is done that was asked for, and writers keep the tables in step by themselves
           m.state IN ('live', 'swapped') AND m.state = m.goal AND m.request IS NULL AS settled,
           NOT (m.source_exists AND (m.target_exists OR m.kind = 'key')) AS dropped,
           pg_catalog.current_setting('block_size')::bigint AS block_size
) r
CROSS JOIN LATERAL (
    SELECT e.entries, CASE WHEN e.entries >= 100000 THEN '; meanwhile the change log grows' ELSE '' END AS warning
    FROM (SELECT migrate_ext.log_entries(m.id) OFFSET 0) e (entries)
) l
-- batches of this run of the copy; "recent" ended within the last minute
CROSS JOIN LATERAL (
    SELECT b.rows_done::bigint, b.blocks_done::bigint, b.comparing, b.index_batches, b.index_done, b.spread,
           o.rows_per_second_overall, o.blocks_per_second_overall,
           CASE WHEN m.state = 'copying' AND b.recent_rows IS NOT NULL
                THEN b.recent_rows / GREATEST(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - b.recent_start), 0.001)
                ELSE o.rows_per_second_overall
           END AS rows_per_second,
           CASE WHEN b.recent_blocks IS NOT NULL
                THEN b.recent_blocks / GREATEST(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - b.recent_start), 0.001)
                ELSE o.blocks_per_second_overall
           END AS blocks_per_second
    FROM (
        -- a target that had rows before is compared instead of copied to
        SELECT COALESCE((SELECT a.compared FROM migrate_ext.comparison a WHERE a.migration = m.id AND a.adopted),
                        pg_catalog.sum(c.rows) FILTER (WHERE c.kind IN ('copy', 'key') AND c.state = 'done'), 0) AS rows_done,
               EXISTS (SELECT FROM migrate_ext.comparison a WHERE a.migration = m.id AND a.adopted AND NOT a.finished) AS comparing,
               COALESCE(pg_catalog.sum(c.blocks) FILTER (WHERE c.kind = 'copy' AND c.state = 'done'), 0) AS blocks_done,
               pg_catalog.sum(c.rows) FILTER (WHERE c.recent) AS recent_rows,
               pg_catalog.sum(c.blocks) FILTER (WHERE c.recent) AS recent_blocks,
               pg_catalog.min(c.started_at) FILTER (WHERE c.recent) AS recent_start,
               pg_catalog.min(c.started_at) FILTER (WHERE c.kind = 'copy' AND c.state = 'done') AS first_start,
               pg_catalog.max(c.ended_at) FILTER (WHERE c.kind = 'copy' AND c.state = 'done') AS last_end,
               pg_catalog.count(*) FILTER (WHERE c.kind = 'index') AS index_batches,
               pg_catalog.count(*) FILTER (WHERE c.kind = 'index' AND c.state = 'done') AS index_done,
               -- how far the mean time for a block may be off, as a share of it; NULL of less than two batches
               pg_catalog.stddev_samp(c.took_ms / c.blocks) FILTER (WHERE c.recent)
               / NULLIF(pg_catalog.avg(c.took_ms / c.blocks) FILTER (WHERE c.recent), 0)
               / NULLIF(pg_catalog.sqrt(pg_catalog.count(*) FILTER (WHERE c.recent)), 0) AS spread
        FROM (SELECT t.kind, t.state, t.rows, t.took_ms, t.started_at, e.ended_at, t.last_block - t.first_block + 1 AS blocks,
                     t.kind = 'copy' AND t.state = 'done'
                     AND e.ended_at > pg_catalog.clock_timestamp() - INTERVAL '1 minute' AS recent
              FROM migrate_ext.batch t
              CROSS JOIN LATERAL (SELECT t.started_at + t.took_ms * INTERVAL '1 millisecond' AS ended_at) e
              WHERE t.migration = m.id AND t.epoch = m.epoch) c
    ) b
    LEFT JOIN LATERAL (
        SELECT CASE WHEN b.rows_done > 0 THEN b.rows_done / d.seconds END AS rows_per_second_overall,
               CASE WHEN b.blocks_done > 0 THEN b.blocks_done / d.seconds END AS blocks_per_second_overall
        FROM (SELECT GREATEST(pg_catalog.date_part('epoch', b.last_end - b.first_start), 0.001)
              WHERE b.first_start IS NOT NULL) d (seconds)
    ) o ON true
) b
CROSS JOIN LATERAL (
    SELECT pg_catalog.round(CASE
               -- of an adopted target, which lacks indexes at most before it is compared
               WHEN b.comparing AND m.state IN ('copying', 'indexing', 'catching_up')
               THEN 1 + 94 * LEAST(b.rows_done / GREATEST(s.reltuples::numeric, 1), 1)
               WHEN m.state = 'logging' THEN 1
               WHEN m.state = 'copying' THEN 1 + 69 * CASE WHEN m.end_block > 0 THEN LEAST(b.blocks_done::numeric / m.end_block, 1) ELSE 1 END
               WHEN m.state = 'indexing' THEN 70 + 20 * CASE WHEN b.index_batches > 0 THEN b.index_done::numeric / b.index_batches ELSE 0 END
               WHEN m.state = 'catching_up' THEN 95
               WHEN m.state IN ('live', 'swapped', 'completed') THEN 100
               ELSE 0 END::numeric, 1) AS percent
) p
CROSS JOIN LATERAL (
    SELECT migrate_ext.workers(m.id) AS workers,
           r.needs_leader AND x.leader IS NULL AND NOT (r.settled AND l.entries = 0) AS lacking,
           CASE WHEN x.leader IS NOT NULL THEN pg_catalog.pg_blocking_pids(x.leader) ELSE '{}' END AS blocked_by
    FROM (SELECT CASE WHEN NOT r.finished THEN migrate_ext.leader(m.id) END AS leader OFFSET 0) x
) w
WHERE m.visible OR (SELECT migrate_ext.is_granted('progress'));

CREATE VIEW migrate_ext.batches WITH (security_barrier) AS
SELECT m.name AS migration,
       b.batch,
       b.relation,
       b.first_block,
       b.last_block,
       CASE WHEN b.kind <> 'index' THEN b.rows END AS rows,
       CASE WHEN b.kind = 'copy' THEN b.logged END AS logged,
       b.state,
       b.pid,
       b.started_at,
       b.took_ms
FROM migrate_ext.any_migration m
JOIN migrate_ext.batch b ON b.migration = m.id
WHERE m.visible OR (SELECT migrate_ext.is_granted('batches'))
ORDER BY b.migration, b.batch;

CREATE VIEW migrate_ext.failed_rows WITH (security_barrier) AS
SELECT m.name AS migration,
       f.identity,
       f.sqlstate,
       f.message,
       f.attempts,
       f.failed_at
FROM migrate_ext.any_migration m
JOIN migrate_ext.failed_row f ON f.migration = m.id
WHERE m.visible OR (SELECT migrate_ext.is_granted('failed_rows'));

CREATE VIEW migrate_ext.verifications WITH (security_barrier) AS
SELECT m.name AS migration,
       v.verified_at,
       v.complete,
       v.checked_rows,
       v.missing,
       v.extra,
       v.different,
       v.skipped,
       v.failed,
       v.stale_key
FROM migrate_ext.any_migration m
JOIN migrate_ext.verification v ON v.migration = m.id
WHERE m.visible OR (SELECT migrate_ext.is_granted('verifications'))
ORDER BY v.id;

CREATE VIEW migrate_ext.verified_ranges WITH (security_barrier) AS
SELECT m.name AS migration,
       r.range,
       r.low AS above,
       r.high AS up_to,
       r.read AS verified,
       r.read_at AS verified_at,
       r.rows AS checked_rows,
       r.missing,
       r.extra,
       r.different,
       r.skipped,
       r.stale_key,
       r.took_ms
FROM migrate_ext.any_migration m
JOIN migrate_ext.verified_range r ON r.migration = m.id
WHERE m.visible OR (SELECT migrate_ext.is_granted('verified_ranges'))
ORDER BY r.migration, r.range;

CREATE VIEW migrate_ext.swaps WITH (security_barrier) AS
SELECT m.name AS migration,
       s.at,
       s.direction,
       s.attempts,
       s.wait_ms,
       s.hold_ms,
       s.blockers
FROM migrate_ext.any_migration m
JOIN migrate_ext.swap_log s ON s.migration = m.id
WHERE m.visible OR (SELECT migrate_ext.is_granted('swaps'))
ORDER BY s.id;

CREATE VIEW migrate_ext.events WITH (security_barrier) AS
SELECT m.name AS migration,
       e.at,
       e.kind,
       e.message,
       e.detail
FROM migrate_ext.any_migration m
JOIN migrate_ext.event e ON e.migration = m.id
WHERE m.visible OR (SELECT migrate_ext.is_granted('events'))
ORDER BY e.id;

GRANT USAGE ON SCHEMA migrate_ext TO PUBLIC;
GRANT SELECT ON migrate_ext.migrations, migrate_ext.progress, migrate_ext.batches, migrate_ext.failed_rows,
    migrate_ext.verifications, migrate_ext.verified_ranges, migrate_ext.swaps, migrate_ext.events TO PUBLIC;

COMMENT ON VIEW migrate_ext.migrations IS 'migrations, finished ones included until they are forgotten';
COMMENT ON COLUMN migrate_ext.migrations.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.migrations.kind IS 'partition: to a partitioned table; key: a column filled in place';
COMMENT ON COLUMN migrate_ext.migrations.table_name IS 'the table as the application knows it';
COMMENT ON COLUMN migrate_ext.migrations.source IS 'the table that the application used when the migration was made; NULL if it was dropped';
COMMENT ON COLUMN migrate_ext.migrations.target IS 'the partitioned table; NULL for kind key';
COMMENT ON COLUMN migrate_ext.migrations.original IS 'the source after the swap';
COMMENT ON COLUMN migrate_ext.migrations.state IS 'created, logging, copying, indexing, catching_up, live, swapped, completed or cancelled';
COMMENT ON COLUMN migrate_ext.migrations.goal IS 'the state that was asked for';
COMMENT ON COLUMN migrate_ext.migrations.paused IS 'no work is done until resume';
COMMENT ON COLUMN migrate_ext.migrations.pause_reason IS 'why it is paused';
COMMENT ON COLUMN migrate_ext.migrations.last_error IS 'what last went wrong; it is tried again';
COMMENT ON COLUMN migrate_ext.migrations.owner IS 'owner of the table';
COMMENT ON COLUMN migrate_ext.migrations.created_at IS 'when the migration was made';
COMMENT ON COLUMN migrate_ext.migrations.live_at IS 'when the target became equal to the source';
COMMENT ON COLUMN migrate_ext.migrations.swapped_at IS 'when the application came onto the partitioned table';
COMMENT ON COLUMN migrate_ext.migrations.completed_at IS 'when the migration was completed or cancelled';

COMMENT ON VIEW migrate_ext.progress IS 'how far each migration is, what it waits for and what comes next';
COMMENT ON COLUMN migrate_ext.progress.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.progress.state IS 'state of the migration';
COMMENT ON COLUMN migrate_ext.progress.bar IS 'percent as a bar';
COMMENT ON COLUMN migrate_ext.progress.percent IS 'share of the work until live that is done; 100 from then on';
COMMENT ON COLUMN migrate_ext.progress.rows_done IS 'rows copied, or of an adopted target compared; for kind key, filled';
COMMENT ON COLUMN migrate_ext.progress.rows_total IS 'rows to copy, or of an adopted target to compare; an estimate until that is over';
COMMENT ON COLUMN migrate_ext.progress.bytes_done IS 'bytes of the source that are copied';
COMMENT ON COLUMN migrate_ext.progress.bytes_total IS 'bytes of the source to copy';
COMMENT ON COLUMN migrate_ext.progress.rows_per_second IS 'rows copied a second, over the last minute while copying, over all after it';
COMMENT ON COLUMN migrate_ext.progress.eta IS 'time that copying will still take at the pace of the last minute; NULL while indexes are built and the log is drained; 0 when live';
COMMENT ON COLUMN migrate_ext.progress.log_entries IS 'changes in the change log still to be carried over, counted up to 100,000';
COMMENT ON COLUMN migrate_ext.progress.default_rows IS 'rows in the default partition, beyond 100,000 an estimate; NULL while it is locked';
COMMENT ON COLUMN migrate_ext.progress.skipped IS 'rows left out by a rule';
COMMENT ON COLUMN migrate_ext.progress.failed IS 'rows in failed_rows';
COMMENT ON COLUMN migrate_ext.progress.workers IS 'processes at work';
COMMENT ON COLUMN migrate_ext.progress.waiting_for IS 'what it waits for, NULL if for nothing';
COMMENT ON COLUMN migrate_ext.progress.next_step IS 'the call that comes next';
COMMENT ON COLUMN migrate_ext.progress.rows_per_second_overall IS 'rows copied a second, from the first batch to the last one that is done';
COMMENT ON COLUMN migrate_ext.progress.eta_error IS 'how far eta may be off: what the pace of the last minute and that of the whole copy differ by, or more where the batches of that minute differ more; NULL where that can''t be told';

COMMENT ON VIEW migrate_ext.batches IS 'pieces of work that processes share: block ranges to copy, indexes to build';
COMMENT ON COLUMN migrate_ext.batches.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.batches.batch IS 'number within the migration';
COMMENT ON COLUMN migrate_ext.batches.relation IS 'table that is read, or partition that gets an index';
COMMENT ON COLUMN migrate_ext.batches.first_block IS 'first block of the range';
COMMENT ON COLUMN migrate_ext.batches.last_block IS 'last block of the range';
COMMENT ON COLUMN migrate_ext.batches.rows IS 'rows copied or filled; NULL for an index';
COMMENT ON COLUMN migrate_ext.batches.logged IS 'rows left to the change log, since they may have been changed meanwhile; for kind key, to a later pass, since they were locked';
COMMENT ON COLUMN migrate_ext.batches.state IS 'pending, running or done';
COMMENT ON COLUMN migrate_ext.batches.pid IS 'process that did it or is at it';
COMMENT ON COLUMN migrate_ext.batches.started_at IS 'when it was begun';
COMMENT ON COLUMN migrate_ext.batches.took_ms IS 'how long it took';

COMMENT ON VIEW migrate_ext.failed_rows IS 'rows that could not be carried over';
COMMENT ON COLUMN migrate_ext.failed_rows.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.failed_rows.identity IS 'the row''s key';
COMMENT ON COLUMN migrate_ext.failed_rows.sqlstate IS 'code of the error';
COMMENT ON COLUMN migrate_ext.failed_rows.message IS 'the error';
COMMENT ON COLUMN migrate_ext.failed_rows.attempts IS 'how often it was tried';
COMMENT ON COLUMN migrate_ext.failed_rows.failed_at IS 'when it was tried last';

COMMENT ON VIEW migrate_ext.verifications IS 'results of comparing both tables';
COMMENT ON COLUMN migrate_ext.verifications.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.verifications.verified_at IS 'when the comparison ended';
COMMENT ON COLUMN migrate_ext.verifications.complete IS 'all rows were compared';
COMMENT ON COLUMN migrate_ext.verifications.checked_rows IS 'rows compared; for kind key, looked at';
COMMENT ON COLUMN migrate_ext.verifications.missing IS 'rows that the other table lacks; for kind key, rows without the key';
COMMENT ON COLUMN migrate_ext.verifications.extra IS 'rows that only the other table has';
COMMENT ON COLUMN migrate_ext.verifications.different IS 'rows that differ';
COMMENT ON COLUMN migrate_ext.verifications.skipped IS 'rows left out by a rule';
COMMENT ON COLUMN migrate_ext.verifications.failed IS 'rows in failed_rows, not counted among the others';
COMMENT ON COLUMN migrate_ext.verifications.stale_key IS 'rows whose derived key is out of date';

COMMENT ON VIEW migrate_ext.verified_ranges IS 'what the comparison of both tables last found, a range of the key that names a row each';
COMMENT ON COLUMN migrate_ext.verified_ranges.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.verified_ranges.range IS 'number, in the order of the key';
COMMENT ON COLUMN migrate_ext.verified_ranges.above IS 'the range''s rows have greater keys; NULL: it begins with the first';
COMMENT ON COLUMN migrate_ext.verified_ranges.up_to IS 'and no greater keys than this; NULL: it goes to the end';
COMMENT ON COLUMN migrate_ext.verified_ranges.verified IS 'false: it is to be read again';
COMMENT ON COLUMN migrate_ext.verified_ranges.verified_at IS 'when it was read last';
COMMENT ON COLUMN migrate_ext.verified_ranges.checked_rows IS 'rows compared';
COMMENT ON COLUMN migrate_ext.verified_ranges.missing IS 'rows that the other table lacks';
COMMENT ON COLUMN migrate_ext.verified_ranges.extra IS 'rows that only the other table has';
COMMENT ON COLUMN migrate_ext.verified_ranges.different IS 'rows that differ';
COMMENT ON COLUMN migrate_ext.verified_ranges.skipped IS 'rows left out by a rule';
COMMENT ON COLUMN migrate_ext.verified_ranges.stale_key IS 'rows whose derived key is out of date';
COMMENT ON COLUMN migrate_ext.verified_ranges.took_ms IS 'how long reading it took';

COMMENT ON VIEW migrate_ext.swaps IS 'swaps that were done';
COMMENT ON COLUMN migrate_ext.swaps.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.swaps.at IS 'when';
COMMENT ON COLUMN migrate_ext.swaps.direction IS 'finalize, undo or rehearsal';
COMMENT ON COLUMN migrate_ext.swaps.attempts IS 'attempts at the locks, the successful one included';
COMMENT ON COLUMN migrate_ext.swaps.wait_ms IS 'time spent waiting for the locks, in all attempts';
COMMENT ON COLUMN migrate_ext.swaps.hold_ms IS 'time from the locks granted to the end of COMMIT; NULL after a crash and for swap() in a transaction of the caller''s';
COMMENT ON COLUMN migrate_ext.swaps.blockers IS 'who held the locks in attempts that failed';

COMMENT ON VIEW migrate_ext.events IS 'what happened, in order';
COMMENT ON COLUMN migrate_ext.events.migration IS 'name of the migration';
COMMENT ON COLUMN migrate_ext.events.at IS 'when';
COMMENT ON COLUMN migrate_ext.events.kind IS 'kind of event';
COMMENT ON COLUMN migrate_ext.events.message IS 'what happened';
COMMENT ON COLUMN migrate_ext.events.detail IS 'particulars';
