-- What the server has for the migration, and for the partitioned table after it.
-- Catalogs and views alone: no lock is waited for, no file is looked at.

CREATE FUNCTION migrate_ext.preflight_resources(migration_id bigint)
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (
        SELECT m.*, m.state IN ('created', 'logging', 'copying', 'indexing') AS copies
        FROM migrate_ext.migration m WHERE m.id = migration_id AND m.state NOT IN ('completed', 'cancelled')
    ), relations AS (
        SELECT m.source AS relation, m.source AS root FROM m
        UNION ALL SELECT m.target, m.target FROM m
        UNION ALL SELECT p.relation, m.target FROM m CROSS JOIN LATERAL migrate_ext.partitions_of(m.target) p
    ), setting AS (
        SELECT s.name, s.setting::bigint AS value FROM pg_catalog.pg_settings s
        WHERE s.name IN ('max_locks_per_transaction', 'max_connections', 'max_prepared_transactions', 'max_worker_processes', 'autovacuum_freeze_max_age')
    ), room AS (
        -- as documented for max_locks_per_transaction; the table is shared by all sessions
        SELECT (SELECT value FROM setting WHERE name = 'max_locks_per_transaction')
               * (SELECT pg_catalog.sum(value) FROM setting WHERE name IN ('max_connections', 'max_prepared_transactions')) AS locks,
               (SELECT value FROM setting WHERE name = 'max_connections') AS sessions
    ), tree AS (
        -- of each partition a lock, and one of each of its indexes: as many as the source has
        SELECT m.target, (SELECT pg_catalog.count(*) FROM relations r WHERE r.root = m.target) AS tables,
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i WHERE i.indrelid = m.source) AS indexes
        FROM m
    ), locks AS (
        SELECT t.target, t.tables, t.tables * (1 + t.indexes) AS needed, r.locks AS room, r.sessions,
               pg_catalog.floor(r.locks / GREATEST(t.tables * (1 + t.indexes), 1)) AS at_once
        FROM tree t CROSS JOIN room r
    )
    SELECT 'warning', 'max_locks_per_transaction',
           pg_catalog.format('a statement that reads all %s partitions of %s takes about %s locks; all sessions together have room for about %s, so for %s such statements at a time',
                             l.tables - 1, l.target::pg_catalog.regclass, l.needed, l.room, l.at_once),
           pg_catalog.format('raise max_locks_per_transaction to %s and restart the server, or make fewer partitions',
                             -- half of the sessions at a time
                             GREATEST(pg_catalog.ceil(l.needed / 2.0), pg_catalog.current_setting('max_locks_per_transaction')::integer + 1))
    FROM locks l
    WHERE l.at_once < l.sessions / 4

    UNION ALL
    SELECT 'warning', 'max_worker_processes',
           pg_catalog.format('%s of %s are free: the migration wants %s, a leader and its helpers', GREATEST(w.slots - w.used, 0), w.slots, w.wanted),
           CASE WHEN w.used >= w.slots THEN 'raise max_worker_processes and restart the server, or work in a session: CALL migrate_ext.run'
                ELSE 'raise it and restart the server, or let it be: with fewer helpers it takes longer' END
    FROM (SELECT (SELECT value FROM setting WHERE name = 'max_worker_processes') AS slots,
                 -- whatever its name is, a background worker is none of the server's own processes
                 (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a
                  WHERE a.backend_type NOT IN ('client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer', 'checkpointer',
                                               'walwriter', 'walsender', 'walreceiver', 'startup', 'archiver', 'logger', 'standalone backend',
                                               'io worker', 'slotsync worker', 'walsummarizer')) AS used,
                 1 + COALESCE((m.settings->>'workers')::integer, pg_catalog.current_setting('migrate_ext.workers', true)::integer, 2) AS wanted
          FROM m
          WHERE m.copies AND migrate_ext.leader(m.id) IS NULL) w
    WHERE w.slots - w.used < w.wanted

    UNION ALL
    -- below that, nobody asks
    SELECT 'info', 'disk',
           pg_catalog.format('the target will take about as much as the source has, %s in %s, and as much again will be written as WAL (by the last VACUUM or ANALYZE); a way back needs both tables until migrate_ext.complete',
                             pg_catalog.pg_size_pretty(d.bytes), d.tablespaces),
           'see that there is room: PostgreSQL can not tell what is free'
    FROM (SELECT pg_catalog.sum(c.relpages::bigint) * pg_catalog.current_setting('block_size')::bigint AS bytes,
                 pg_catalog.string_agg(DISTINCT 'tablespace ' || COALESCE(s.spcname, ds.spcname)::text, ', ') AS tablespaces
          FROM m
          JOIN pg_catalog.pg_class r ON r.oid = m.source
          JOIN pg_catalog.pg_class c ON c.oid IN (r.oid, r.reltoastrelid)
                                     OR c.oid IN (SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid IN (r.oid, r.reltoastrelid))
          LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
          JOIN pg_catalog.pg_database db ON db.datname = pg_catalog.current_database()
          JOIN pg_catalog.pg_tablespace ds ON ds.oid = db.dattablespace
          WHERE m.state IN ('created', 'logging')) d
    WHERE d.bytes >= 100 * 1024 * 1024

    UNION ALL
    SELECT 'warning', 'process ' || a.pid, pg_catalog.format('is an autovacuum against wraparound of %s: it does not give way to anybody', p.relid::pg_catalog.regclass),
           'finalize and undo wait for it; let it end first'
    FROM relations r
    JOIN pg_catalog.pg_stat_progress_vacuum p ON p.relid = r.relation AND p.datname = pg_catalog.current_database()
    JOIN pg_catalog.pg_stat_activity a ON a.pid = p.pid AND a.query LIKE '%(to prevent wraparound)%'

    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0),
           pg_catalog.format('is %s transactions old: from %s on an autovacuum works on it that does not give way to anybody', pg_catalog.age(c.relfrozenxid), s.value),
           'VACUUM (FREEZE) it at a quiet time before the swap'
    FROM relations r
    JOIN pg_catalog.pg_class c ON c.oid = r.relation AND c.relkind = 'r' AND c.relfrozenxid <> '0'
    JOIN setting s ON s.name = 'autovacuum_freeze_max_age'
    WHERE pg_catalog.age(c.relfrozenxid) > s.value * 0.9

    UNION ALL
    SELECT 'info', 'event trigger ' || pg_catalog.quote_ident(e.evtname),
           pg_catalog.format('runs %s at statements of the migration: an error of it stops them', e.evtfoid::pg_catalog.regprocedure),
           'see that it lets those of migrate_ext.plan pass'
    FROM m
    CROSS JOIN pg_catalog.pg_event_trigger e
    WHERE e.evtenabled IN ('O', 'A') AND e.evtevent <> 'table_rewrite'
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_resources(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_resources(bigint) IS 'internal: locks, workers, room and what else the server has for a migration';

-- Statements that will be another thing on the partitioned table; as
-- preflight_statements(), of texts that the caller may see, and as texts.
CREATE FUNCTION migrate_ext.preflight_reads(migration_id bigint, statements text[])
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (
        SELECT m.*, pg_catalog.regexp_replace(m.table_name, '([^\w])', '\\\1', 'g') AS pattern
        FROM migrate_ext.migration m WHERE m.id = migration_id AND m.state NOT IN ('swapped', 'completed', 'cancelled')
    ), key AS (
        -- of the table itself: which of its partitions are read is decided by these first
        SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns,
               pg_catalog.string_agg(pg_catalog.regexp_replace(a.attname, '([^\w])', '\\\1', 'g'), '|') AS pattern
        FROM m
        JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = m.target
        JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
        -- of an expression it isn't known what a statement says instead
        HAVING pg_catalog.bool_and(p.partexprs IS NULL)
    ), texts AS (
        SELECT DISTINCT 'statement ' || pg_catalog.quote_literal(CASE WHEN pg_catalog.length(q.line) > 120 THEN pg_catalog.left(q.line, 117) || '...' ELSE q.line END) AS object,
               q.line
        FROM pg_catalog.unnest(statements) s (query)
        CROSS JOIN LATERAL (SELECT pg_catalog.btrim(pg_catalog.regexp_replace(s.query, '\s+', ' ', 'g')) AS line) q
        -- those of the migration itself
        WHERE q.line !~* '\m(ctid|migrate_ext)\M|^(create|alter|drop|comment|grant|revoke|analyze|vacuum|copy|lock|truncate|explain)\M'
    ), named AS (
        SELECT t.*, t.line ~* ('(?:\mfrom|\mjoin|\mupdate|,)\s+(?:only\s+)?(?:(?:"[^"]*"|[\w$]+)\s*\.\s*)?(?:"' || m.pattern || '"|' || m.pattern || '(?![\w$"]))') AS reads,
               m.pattern, pg_catalog.regexp_split_to_array(t.line, '[^\w$]+') AS words
        FROM m CROSS JOIN texts t
    )
    SELECT 'warning', n.object,
           pg_catalog.format('has a WHERE that does not name the partition key (%s): it reads every partition after the swap', k.columns),
           pg_catalog.format('let it say which %s it means, or see that it can do with an index look-up in each partition', k.columns)
    FROM named n CROSS JOIN key k
    WHERE n.reads AND n.line ~* '\mwhere\M' AND NOT pg_catalog.regexp_replace(n.line, '^.*?\mwhere\M', '', 'i') ~* ('(?<![\w$])(?:' || k.pattern || ')(?![\w$])')

    UNION ALL
    SELECT 'warning', n.object,
           pg_catalog.format('writes the partition key (%s): where that moves a row to another partition, one who updates or deletes it at the same time gets 40001', k.columns),
           'be ready to repeat the transaction'
    FROM named n CROSS JOIN key k
    WHERE n.line ~* ('\mupdate\s+(?:only\s+)?(?:(?:"[^"]*"|[\w$]+)\s*\.\s*)?(?:"' || n.pattern || '"|' || n.pattern || ')(?:\s+(?:as\s+)?\w+)?\s+set\s')
      AND pg_catalog.substring(n.line, '(?i)\mset\M(.*?)(?:\mwhere\M|\mfrom\M|$)') ~* ('(?<![\w$.])"?(?:' || k.pattern || ')"?\s*=')

    UNION ALL
    SELECT 'warning', n.object,
           pg_catalog.format('names partition %s: it finds no row of the others, and fails once that one is dropped or split', pg_catalog.quote_ident(c.relname)),
           pg_catalog.format('let it name %s, and the partition key in its WHERE', pg_catalog.quote_ident(m.table_name))
    FROM m
    CROSS JOIN named n
    JOIN (SELECT c.relname FROM m CROSS JOIN LATERAL migrate_ext.partitions_of(m.target) p JOIN pg_catalog.pg_class c ON c.oid = p.relation) c
      -- by words: there may be a thousand of either
      ON c.relname = ANY (n.words) OR pg_catalog.quote_ident(c.relname) <> c.relname AND pg_catalog.strpos(n.line, pg_catalog.quote_ident(c.relname)) > 0
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_reads(bigint, text[]) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_reads(bigint, text[]) IS 'internal: statements that read every partition, move rows or name a partition';
