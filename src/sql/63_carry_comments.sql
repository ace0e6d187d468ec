-- Comments on the table and what belongs to it: see 60_carry.sql.  Things are counterparts by
-- name, indexes and statistics by definition.

CREATE FUNCTION migrate_ext.index_pairs(migration_id bigint)
RETURNS TABLE (source pg_catalog.oid, target pg_catalog.oid)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_index_pairs';
REVOKE ALL ON FUNCTION migrate_ext.index_pairs(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.index_pairs(bigint) IS 'internal: indexes of the source and what was made of them';

-- The same by front and back; none under the swap's locks, where it would take too long.
CREATE FUNCTION migrate_ext.carry_index_pairs(migration_id bigint, front pg_catalog.oid, leaves boolean)
RETURNS TABLE (front_oid pg_catalog.oid, back_oid pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT CASE WHEN m.source = front THEN p.source ELSE p.target END, CASE WHEN m.source = front THEN p.target ELSE p.source END
    FROM migrate_ext.migration m
    CROSS JOIN LATERAL migrate_ext.index_pairs(CASE WHEN leaves THEN m.id END) p
    WHERE m.id = migration_id
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_index_pairs(bigint, pg_catalog.oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_index_pairs(bigint, pg_catalog.oid, boolean) IS 'internal: indexes of the two tables that are counterparts';

-- What may have a comment, and will be made on the other table.
CREATE FUNCTION migrate_ext.carry_commented(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid)
RETURNS TABLE (kind text, name text, class pg_catalog.oid, oid pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH b AS (SELECT c.relname::text AS alias, migrate_ext.table_name(back) AS name, m.made_target
               FROM migrate_ext.migration m JOIN pg_catalog.pg_class c ON c.oid = back WHERE m.id = migration_id)
    SELECT 'CONSTRAINT', pg_catalog.format('%I ON %s', f.conname, b.name), 'pg_catalog.pg_constraint'::pg_catalog.regclass, f.oid
    FROM b, pg_catalog.pg_constraint f
    WHERE f.conrelid = front AND f.conparentid = 0 AND (f.contype = 'f' OR f.contype = 'c' AND b.made_target)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conrelid = back AND o.conname = f.conname AND o.contype = f.contype)
    UNION ALL
    SELECT 'TRIGGER', pg_catalog.format('%I ON %s', f.name, b.name), 'pg_catalog.pg_trigger'::pg_catalog.regclass, f.oid
    FROM b, migrate_ext.triggers_of(front) f
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger o WHERE o.tgrelid = back AND o.tgname = f.name)
    UNION ALL
    SELECT 'POLICY', pg_catalog.format('%I ON %s', f.name, b.name), 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid
    FROM b, migrate_ext.policies_of(front, back, b.alias) f
    JOIN pg_catalog.pg_policy p ON p.polrelid = front AND p.polname = f.name
    WHERE NOT f.own AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy o WHERE o.polrelid = back AND o.polname = f.name)
    UNION ALL
    SELECT 'STATISTICS', pg_catalog.format('%I.%I', f.schema, f.back_name), 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, f.oid
    FROM migrate_ext.statistics_coming(migration_id, front, back) f
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_commented(bigint, pg_catalog.oid, pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_commented(bigint, pg_catalog.oid, pg_catalog.oid) IS 'internal: what will be made and may have a comment, for plan()';

CREATE FUNCTION migrate_ext.carry_comments(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid, exact boolean, leaves boolean, ahead boolean)
RETURNS TABLE (statement text, made text, run_as pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH pair (kind, name, class, front_oid, back_oid, front_sub, back_sub) AS (
             SELECT 'TABLE', migrate_ext.table_name(back), 'pg_catalog.pg_class'::pg_catalog.regclass, front, back, 0, 0
             UNION ALL
             SELECT 'COLUMN', pg_catalog.format('%s.%I', migrate_ext.table_name(back), b.attname), 'pg_catalog.pg_class'::pg_catalog.regclass,
                    front, back, f.attnum, b.attnum
             FROM pg_catalog.pg_attribute f
             JOIN pg_catalog.pg_attribute b ON b.attrelid = back AND b.attname = f.attname AND b.attnum > 0 AND NOT b.attisdropped
             WHERE f.attrelid = front AND f.attnum > 0 AND NOT f.attisdropped
             UNION ALL
             SELECT 'CONSTRAINT', pg_catalog.format('%I ON %s', b.conname, migrate_ext.table_name(back)), 'pg_catalog.pg_constraint'::pg_catalog.regclass,
                    f.oid, b.oid, 0, 0
             FROM pg_catalog.pg_constraint f
             JOIN pg_catalog.pg_constraint b ON b.conrelid = back AND b.conname = f.conname AND b.contype = f.contype
             WHERE f.conrelid = front AND f.contype IN ('c', 'f', 'n')
             UNION ALL
             SELECT 'TRIGGER', pg_catalog.format('%I ON %s', b.tgname, migrate_ext.table_name(back)), 'pg_catalog.pg_trigger'::pg_catalog.regclass,
                    f.oid, b.oid, 0, 0
             FROM pg_catalog.pg_trigger f
             JOIN pg_catalog.pg_trigger b ON b.tgrelid = back AND b.tgname = f.tgname AND NOT b.tgisinternal
             WHERE f.tgrelid = front AND NOT f.tgisinternal
             UNION ALL
             SELECT 'POLICY', pg_catalog.format('%I ON %s', b.polname, migrate_ext.table_name(back)), 'pg_catalog.pg_policy'::pg_catalog.regclass,
                    f.oid, b.oid, 0, 0
             FROM pg_catalog.pg_policy f
             JOIN pg_catalog.pg_policy b ON b.polrelid = back AND b.polname = f.polname
             WHERE f.polrelid = front
             UNION ALL
             SELECT 'STATISTICS', pg_catalog.format('%I.%I', n.nspname, s.stxname), 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass,
                    p.front_oid, p.back_oid, 0, 0
             FROM migrate_ext.statistics_pairs(front, back) p
             JOIN pg_catalog.pg_statistic_ext s ON s.oid = p.back_oid
             JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
             UNION ALL
             SELECT i.* FROM (
                 SELECT 'INDEX', migrate_ext.table_name(p.back_oid), 'pg_catalog.pg_class'::pg_catalog.regclass, p.front_oid, p.back_oid, 0, 0
                 FROM migrate_ext.carry_index_pairs(migration_id, front, leaves) p
                 UNION ALL
                 SELECT 'CONSTRAINT', pg_catalog.format('%I ON %s', b.conname, migrate_ext.table_name(back)), 'pg_catalog.pg_constraint'::pg_catalog.regclass,
                        f.oid, b.oid, 0, 0
                 FROM migrate_ext.carry_index_pairs(migration_id, front, leaves) p
                 JOIN pg_catalog.pg_constraint f ON f.conrelid = front AND f.conindid = p.front_oid AND f.contype IN ('p', 'u')
                 JOIN pg_catalog.pg_constraint b ON b.conrelid = back AND b.conindid = p.back_oid AND b.contype IN ('p', 'u')) i
             UNION ALL
             SELECT g.kind, g.name, g.class, g.oid, 0, 0, 0
             FROM migrate_ext.carry_commented(migration_id, front, back) g
             WHERE ahead)
    SELECT pg_catalog.format('COMMENT ON %s %s IS %L', p.kind, p.name, f.description), NULL::text,
           CASE WHEN p.kind = 'STATISTICS' THEN (SELECT x.stxowner FROM pg_catalog.pg_statistic_ext x WHERE x.oid = p.back_oid) END
    FROM pair p
    LEFT JOIN pg_catalog.pg_description f ON f.classoid = p.class AND f.objoid = p.front_oid AND f.objsubid = p.front_sub
    LEFT JOIN pg_catalog.pg_description b ON b.classoid = p.class AND b.objoid = p.back_oid AND b.objsubid = p.back_sub
    WHERE f.description IS DISTINCT FROM b.description AND (exact OR b.description IS NULL)
    ORDER BY p.kind, p.name COLLATE "C"
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_comments(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_comments(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean)
    IS 'internal: comments that the other table lacks';
