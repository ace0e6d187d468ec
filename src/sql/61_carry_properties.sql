-- Properties of the table and its columns, as statements: see 60_carry.sql.  Some recurse to
-- partitions (default, statistics target, storage), some do not.

CREATE FUNCTION migrate_ext.table_name(relation pg_catalog.oid) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.table_name(pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.table_name(pg_catalog.oid) IS 'internal: schema.name, quoted';

CREATE FUNCTION migrate_ext.option_of(options text[], name text) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$ SELECT o.option_value FROM pg_catalog.pg_options_to_table(options) o WHERE o.option_name = name $$;
REVOKE ALL ON FUNCTION migrate_ext.option_of(text[], text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.option_of(text[], text) IS 'internal: one of attoptions or reloptions';

-- Of each column that both have: default, statistics target, storage, compression, n_distinct.
-- What a plain table has as n_distinct is n_distinct_inherited of a partitioned one; its
-- partitions get a fraction of the rows as it is, while an absolute number would be wrong there.
-- A default statistics target is -1, and NULL from PostgreSQL 17 on.
-- Columns of an adopted target are its owner's; it gets defaults where it has none.
CREATE FUNCTION migrate_ext.carry_columns(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid, exact boolean, leaves boolean, ahead boolean)
RETURNS TABLE (statement text, made text, run_as pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (SELECT m.made_target, c.relkind = 'p' AS partitioned, f.relkind = 'p' AS from_partitioned,
                      COALESCE(CASE WHEN m.source = front THEN m.options->'columns' ELSE m.options->'reverse_columns' END, '{}') AS computed
               FROM migrate_ext.migration m, pg_catalog.pg_class c, pg_catalog.pg_class f
               WHERE m.id = migration_id AND c.oid = back AND f.oid = front),
         pair AS (
             SELECT f.attname, COALESCE(f.attstattarget, -1) AS target, f.attstorage AS storage, f.attcompression AS compression,
                    COALESCE(b.attstattarget, -1) AS is_target, b.attstorage AS is_storage, b.attcompression AS is_compression,
                    COALESCE(CASE WHEN m.from_partitioned THEN migrate_ext.option_of(f.attoptions, 'n_distinct_inherited') END,
                             migrate_ext.option_of(f.attoptions, 'n_distinct')) AS n_distinct,
                    migrate_ext.option_of(b.attoptions, CASE WHEN m.partitioned THEN 'n_distinct_inherited' ELSE 'n_distinct' END) AS is_n_distinct,
                    f.attgenerated = '' AND b.attgenerated = '' AND f.attidentity = '' AND b.attidentity = ''
                        AND NOT m.computed ? f.attname AS defaults,
                    pg_catalog.pg_get_expr(fd.adbin, front) AS value, pg_catalog.pg_get_expr(bd.adbin, back) AS is_value,
                    m.made_target, m.partitioned
             FROM m, pg_catalog.pg_attribute f
             JOIN pg_catalog.pg_attribute b ON b.attrelid = back AND b.attname = f.attname AND b.attnum > 0 AND NOT b.attisdropped
             LEFT JOIN pg_catalog.pg_attrdef fd ON fd.adrelid = front AND fd.adnum = f.attnum
             LEFT JOIN pg_catalog.pg_attrdef bd ON bd.adrelid = back AND bd.adnum = b.attnum
             WHERE f.attrelid = front AND f.attnum > 0 AND NOT f.attisdropped),
         leaf AS (
             SELECT p.attname, l.attrelid, p.compression, l.attcompression AS is_compression, p.target, p.is_target AS of_table, COALESCE(l.attstattarget, -1) AS is_target,
                    CASE WHEN p.n_distinct::float8 < 0 THEN p.n_distinct END AS n_distinct,
                    migrate_ext.option_of(l.attoptions, 'n_distinct') AS is_n_distinct
             FROM migrate_ext.partitions_of(back) t
             JOIN pg_catalog.pg_class c ON c.oid = t.relation AND c.relkind = 'r'
             -- one look-up for each of 1,000 partitions, and of its 100 columns those where either side has something
             CROSS JOIN LATERAL (
                 SELECT * FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0
                   AND (a.attcompression <> '' OR a.attoptions::text LIKE '%n_distinct=%'
                        OR a.attname = ANY (ARRAY (SELECT p.attname FROM pair p WHERE p.target >= 0 OR p.compression <> '' OR p.n_distinct IS NOT NULL)))
                 OFFSET 0) l
             JOIN pair p ON p.attname = l.attname
             WHERE leaves AND p.partitioned AND p.made_target)
    SELECT s.statement, NULL::text, NULL::pg_catalog.oid
    FROM (SELECT pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I %s', migrate_ext.table_name(back), p.attname, a.action) AS statement
          FROM pair p
          CROSS JOIN LATERAL (
              SELECT CASE WHEN p.value IS NULL THEN 'DROP DEFAULT' ELSE 'SET DEFAULT ' || p.value END
              WHERE p.defaults AND p.value IS DISTINCT FROM p.is_value AND (p.made_target OR p.is_value IS NULL)
              UNION ALL
              SELECT 'SET STATISTICS ' || p.target WHERE p.target <> p.is_target AND (exact OR p.is_target < 0)
              UNION ALL
              SELECT 'SET STORAGE ' || CASE p.storage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END
              WHERE p.storage <> p.is_storage AND p.made_target
              UNION ALL
              SELECT 'SET COMPRESSION ' || CASE p.compression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'DEFAULT' END
              WHERE p.compression <> p.is_compression AND p.made_target
              UNION ALL
              SELECT CASE WHEN p.n_distinct IS NULL THEN pg_catalog.format('RESET (%I)', o.name) ELSE pg_catalog.format('SET (%I = %s)', o.name, p.n_distinct) END
              FROM (VALUES (CASE WHEN p.partitioned THEN 'n_distinct_inherited' ELSE 'n_distinct' END)) o (name)
              WHERE p.n_distinct IS DISTINCT FROM p.is_n_distinct AND (exact OR p.is_n_distinct IS NULL)) a (action)
          UNION ALL
          SELECT pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I %s', migrate_ext.table_name(l.attrelid), l.attname, a.action)
          FROM leaf l
          CROSS JOIN LATERAL (
              -- the table's recurses
              SELECT 'SET STATISTICS ' || l.target WHERE l.target <> l.is_target AND l.is_target < 0 AND l.target = l.of_table
              UNION ALL
              SELECT 'SET COMPRESSION ' || CASE l.compression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'DEFAULT' END
              WHERE l.compression <> l.is_compression
              UNION ALL
              SELECT CASE WHEN l.n_distinct IS NULL THEN 'RESET (n_distinct)' ELSE pg_catalog.format('SET (n_distinct = %s)', l.n_distinct) END
              WHERE l.n_distinct IS DISTINCT FROM l.is_n_distinct) a (action)) s
    ORDER BY s.statement COLLATE "C"
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_columns(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_columns(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean)
    IS 'internal: properties of columns that the other table lacks';

-- CHECK constraints: made NOT VALID and then validated, partition by partition, so that no lock
-- is held for long.  An adopted target has those of its owner.
CREATE FUNCTION migrate_ext.carry_checks(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid, exact boolean, leaves boolean, ahead boolean)
RETURNS TABLE (statement text, made text, run_as pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH b AS (SELECT c.relname::text AS alias, migrate_ext.table_name(back) AS name
               FROM pg_catalog.pg_class c JOIN migrate_ext.migration m ON m.id = migration_id
               WHERE c.oid = back AND m.made_target),
         wanted AS MATERIALIZED (
             SELECT k.conname, k.convalidated, migrate_ext.deparse(k.conbin, front, b.alias) AS expression,
                    -- since PostgreSQL 18 there are some that are but told
                    CASE WHEN pg_catalog.to_jsonb(k)->>'conenforced' = 'false' THEN 'NOT ENFORCED' ELSE 'NOT VALID' END AS how
             FROM b, pg_catalog.pg_constraint k WHERE k.conrelid = front AND k.contype = 'c'),
         there AS MATERIALIZED (
             SELECT k.conname, k.convalidated, migrate_ext.deparse(k.conbin, back, b.alias) AS expression
             FROM b, pg_catalog.pg_constraint k WHERE k.conrelid = back AND k.contype = 'c'),
         coming AS (
             SELECT w.conname FROM wanted w
             WHERE ahead AND w.convalidated
               AND NOT EXISTS (SELECT FROM there t WHERE t.conname = w.conname AND t.expression = w.expression))
    SELECT s.statement, NULL::text, NULL::pg_catalog.oid
    FROM (SELECT 1 AS step,
                 pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', b.name, t.conname)
                     -- a partition that was attached keeps it as its own
                     || COALESCE((SELECT pg_catalog.string_agg(pg_catalog.format('; ALTER TABLE %s DROP CONSTRAINT %I', migrate_ext.table_name(p.relation), t.conname), '')
                                  FROM migrate_ext.partitions_of(back) p
                                  JOIN pg_catalog.pg_constraint k ON k.conrelid = p.relation AND k.conname = t.conname AND k.conislocal), '') AS statement
          FROM b, there t
          LEFT JOIN wanted w ON w.conname = t.conname
          WHERE w.conname IS NULL OR w.expression <> t.expression
          UNION ALL
          SELECT 2, pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s) %s', b.name, w.conname, w.expression, w.how)
          FROM b, wanted w
          LEFT JOIN there t ON t.conname = w.conname
          WHERE t.conname IS NULL OR w.expression <> t.expression
          UNION ALL
          SELECT 3, pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', migrate_ext.table_name(p.relation), t.conname)
          FROM there t
          JOIN wanted w ON w.conname = t.conname AND w.expression = t.expression
          CROSS JOIN LATERAL migrate_ext.partitions_of(back) p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation AND c.relkind = 'r'
          JOIN pg_catalog.pg_constraint k ON k.conrelid = p.relation AND k.conname = t.conname AND k.contype = 'c' AND NOT k.convalidated
          WHERE leaves AND w.convalidated AND NOT t.convalidated
          UNION ALL
          SELECT 3, pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', migrate_ext.table_name(p.relation), g.conname)
          FROM coming g
          CROSS JOIN LATERAL migrate_ext.partitions_of(back) p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation AND c.relkind = 'r'
          UNION ALL
          SELECT 4, pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', b.name, g.conname)
          FROM b, coming g
          UNION ALL
          SELECT 4, pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', b.name, t.conname)
          FROM b, there t
          JOIN wanted w ON w.conname = t.conname AND w.expression = t.expression
          WHERE w.convalidated AND NOT t.convalidated) s
    ORDER BY s.step, s.statement COLLATE "C"
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_checks(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_checks(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean)
    IS 'internal: CHECK constraints that the other table lacks';

-- The index of the other table that is to be its replica identity: named like the front's,
-- with what the target's indexes are called until the swap, the original's after it.
CREATE FUNCTION migrate_ext.replica_index(front pg_catalog.oid, back pg_catalog.oid) RETURNS pg_catalog.oid
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT bi.indexrelid
    FROM pg_catalog.pg_index fi
    JOIN pg_catalog.pg_class fc ON fc.oid = fi.indexrelid
    JOIN pg_catalog.pg_index bi ON bi.indrelid = back AND bi.indisunique AND bi.indisvalid AND bi.indimmediate
    JOIN pg_catalog.pg_class bc ON bc.oid = bi.indexrelid
    WHERE fi.indrelid = front AND fi.indisreplident AND bc.relname IN (fc.relname || '_new', fc.relname || '_orig')
$$;
REVOKE ALL ON FUNCTION migrate_ext.replica_index(pg_catalog.oid, pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.replica_index(pg_catalog.oid, pg_catalog.oid) IS 'internal: the other table''s index for REPLICA IDENTITY USING INDEX';

-- Storage parameters go to the partitions, which have what a plain table has: one that the
-- source has got or changed; after the first swap partitions are tuned by their owner, and get
-- only what they lack.  The replica identity goes to the table and its partitions, once their
-- indexes are there; with these it comes the first time (index.c).
CREATE FUNCTION migrate_ext.carry_storage(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid, exact boolean, leaves boolean, ahead boolean)
RETURNS TABLE (statement text, made text, run_as pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (SELECT m.id, m.state, b.relkind = 'p' AS partitioned, f.relreplident AS wanted, migrate_ext.replica_index(front, back) AS index,
                      EXISTS (SELECT FROM migrate_ext.event e WHERE e.migration = m.id AND e.kind = 'renamed') AS swapped
               FROM migrate_ext.migration m, pg_catalog.pg_class b, pg_catalog.pg_class f
               WHERE m.id = migration_id AND b.oid = back AND f.oid = front AND (m.made_target OR b.relkind = 'r')),
         tables AS (SELECT back AS oid FROM m
                    UNION ALL
                    SELECT p.relation FROM m, migrate_ext.partitions_of(back) p WHERE leaves),
         leaf AS (SELECT c.oid, c.reloptions, toast.reloptions AS toastoptions
                  FROM m
                  CROSS JOIN LATERAL migrate_ext.partitions_of(back) p
                  JOIN pg_catalog.pg_class c ON c.oid = p.relation AND c.relkind = 'r'
                  LEFT JOIN pg_catalog.pg_class toast ON toast.oid = c.reltoastrelid
                  WHERE leaves AND m.partitioned),
         wanted AS (SELECT '' AS prefix, o.option_name, o.option_value
                    FROM pg_catalog.pg_class f, pg_catalog.pg_options_to_table(f.reloptions) o WHERE f.oid = front
                    UNION ALL
                    SELECT 'toast.', o.option_name, o.option_value
                    FROM pg_catalog.pg_class f JOIN pg_catalog.pg_class t ON t.oid = f.reltoastrelid,
                         pg_catalog.pg_options_to_table(t.reloptions) o
                    WHERE f.oid = front)
    SELECT pg_catalog.format('ALTER TABLE %s SET (%s)', migrate_ext.table_name(l.oid),
                             pg_catalog.string_agg(pg_catalog.format('%s%I = %L', w.prefix, w.option_name, w.option_value), ', ' ORDER BY w.prefix, w.option_name)),
           NULL::text, NULL::pg_catalog.oid
    FROM m, leaf l, wanted w
    CROSS JOIN LATERAL (SELECT migrate_ext.option_of(CASE w.prefix WHEN '' THEN l.reloptions ELSE l.toastoptions END, w.option_name) AS value) o
    WHERE CASE WHEN m.swapped THEN o.value IS NULL ELSE o.value IS DISTINCT FROM w.option_value END
      AND (w.prefix = '' OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = l.oid AND c.reltoastrelid <> 0))
    GROUP BY l.oid
    UNION ALL
    SELECT pg_catalog.format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', migrate_ext.table_name(t.oid),
                             CASE m.wanted WHEN 'd' THEN 'DEFAULT' WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
                                           ELSE 'USING INDEX ' || pg_catalog.quote_ident(i.relname) END),
           NULL, NULL
    FROM m
    CROSS JOIN tables t
    JOIN pg_catalog.pg_class c ON c.oid = t.oid
    LEFT JOIN LATERAL (SELECT x.indexrelid, x.indisreplident, ic.relname
                       FROM pg_catalog.pg_index x
                       JOIN pg_catalog.pg_class ic ON ic.oid = x.indexrelid
                       WHERE m.wanted = 'i' AND x.indrelid = t.oid
                         AND (x.indexrelid = m.index
                              OR m.index IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(x.indexrelid) a))) i ON true
    WHERE CASE WHEN m.wanted = 'i' THEN NOT i.indisreplident ELSE c.relreplident <> m.wanted END
      AND m.state IN ('live', 'swapped')
    ORDER BY 1
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_storage(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_storage(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean)
    IS 'internal: storage parameters and replica identities that the other table lacks';
