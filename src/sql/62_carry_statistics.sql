-- Extended statistics: see 60_carry.sql.  An object of one table is the counterpart of another's
-- if both have the same definition, whatever they are called: names are one a schema, and are
-- exchanged at the swap.

-- By definition, of several that are alike by name: columns and expressions in any order.
CREATE FUNCTION migrate_ext.statistics_of(relation pg_catalog.oid)
RETURNS TABLE (oid pg_catalog.oid, name pg_catalog.name, schema pg_catalog.name, owner pg_catalog.oid, target integer, expressions boolean, definition text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT s.oid, s.stxname, n.nspname, s.stxowner, COALESCE(s.stxstattarget, -1), s.stxexprs IS NOT NULL,
           d.text || ' ' || pg_catalog.row_number() OVER (PARTITION BY d.text ORDER BY s.stxname)
    FROM pg_catalog.pg_statistic_ext s
    JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
    CROSS JOIN LATERAL (
        SELECT pg_catalog.jsonb_build_array(n.nspname,
                   (SELECT pg_catalog.array_agg(k ORDER BY k) FROM pg_catalog.unnest(s.stxkind) k),
                   (SELECT pg_catalog.array_agg(a.attname ORDER BY a.attname) FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = s.stxrelid AND a.attnum = ANY (s.stxkeys::pg_catalog.int2[])),
                   (SELECT pg_catalog.array_agg(e ORDER BY e) FROM pg_catalog.unnest(pg_catalog.pg_get_statisticsobjdef_expressions(s.oid)) e))::text AS text) d
    WHERE s.stxrelid = relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.statistics_of(pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.statistics_of(pg_catalog.oid) IS 'internal: statistics objects of a table, told by definition';

-- " (ndistinct, mcv) ON a, (lower(b))": without the kinds where there is but one expression.
CREATE FUNCTION migrate_ext.statistics_clause(statistics pg_catalog.oid) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT COALESCE(' (' || (SELECT pg_catalog.string_agg(CASE k WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' ELSE 'mcv' END, ', ' ORDER BY k)
                             FROM pg_catalog.unnest(s.stxkind) k WHERE k <> 'e') || ')', '')
           || ' ON ' || pg_catalog.pg_get_statisticsobjdef_columns(s.oid)
    FROM pg_catalog.pg_statistic_ext s WHERE s.oid = statistics
$$;
REVOKE ALL ON FUNCTION migrate_ext.statistics_clause(pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.statistics_clause(pg_catalog.oid) IS 'internal: what a statistics object is made of';

-- Those of the front table that the other one is to have.  Expressions of a target of the user's own
-- may read otherwise, its types being others: those are left alone, and preflight tells.
CREATE FUNCTION migrate_ext.statistics_wanted(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid)
RETURNS TABLE (oid pg_catalog.oid, name pg_catalog.name, schema pg_catalog.name, owner pg_catalog.oid, target integer, definition text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT s.oid, s.name, s.schema, s.owner, s.target, s.definition
    FROM migrate_ext.migration m
    CROSS JOIN LATERAL migrate_ext.statistics_of(front) s
    WHERE m.id = migration_id AND (m.made_target OR NOT s.expressions)
      -- of a column that the other table lacks, preflight tells
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      JOIN pg_catalog.pg_attribute f ON f.attrelid = front AND f.attnum = d.refobjsubid
                      WHERE d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND d.objid = s.oid
                        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = front AND d.refobjsubid > 0
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute b
                                        WHERE b.attrelid = back AND b.attname = f.attname AND NOT b.attisdropped))
$$;
REVOKE ALL ON FUNCTION migrate_ext.statistics_wanted(bigint, pg_catalog.oid, pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.statistics_wanted(bigint, pg_catalog.oid, pg_catalog.oid) IS 'internal: statistics objects that the other table is to have';

-- What one is called on the other table, or on a partition: the table's name and its own, where that fits and is free.
CREATE FUNCTION migrate_ext.statistics_name(statistics pg_catalog.oid, relation pg_catalog.oid, root boolean) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT CASE WHEN pg_catalog.octet_length(l.name) < 64
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic_ext o WHERE o.stxname = l.name AND o.stxnamespace = s.stxnamespace)
                THEN l.name ELSE pg_catalog.format('statistics_%s_%s', s.oid, relation) END
    FROM pg_catalog.pg_statistic_ext s
    JOIN pg_catalog.pg_class c ON c.oid = relation
    CROSS JOIN LATERAL (VALUES (CASE WHEN root THEN s.stxname || '_new' ELSE c.relname || '_' || s.stxname END)) l (name)
    WHERE s.oid = statistics
$$;
REVOKE ALL ON FUNCTION migrate_ext.statistics_name(pg_catalog.oid, pg_catalog.oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.statistics_name(pg_catalog.oid, pg_catalog.oid, boolean) IS 'internal: the name of a statistics object on the other table';

-- The partitions get them too: of one table it is their statistics that the planner looks at.
CREATE FUNCTION migrate_ext.carry_statistics(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid, exact boolean, leaves boolean, ahead boolean)
RETURNS TABLE (statement text, made text, run_as pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (SELECT m.made_target FROM migrate_ext.migration m WHERE m.id = migration_id),
         wanted AS MATERIALIZED (SELECT * FROM migrate_ext.statistics_wanted(migration_id, front, back)),
         tables AS MATERIALIZED (
             SELECT back AS oid, true AS root
             UNION ALL
             SELECT p.relation, false
             FROM m
             CROSS JOIN LATERAL migrate_ext.partitions_of(back) p
             JOIN pg_catalog.pg_class c ON c.oid = p.relation AND c.relkind = 'r'
             WHERE leaves AND m.made_target),
         there AS MATERIALIZED (
             SELECT t.oid AS relation, t.root, s.*,
                    t.root AND exact OR migrate_ext.was_made(migration_id, pg_catalog.format('statistics %I.%I', s.schema, s.name)) AS ours
             FROM m, tables t, migrate_ext.statistics_of(t.oid) s
             WHERE m.made_target OR NOT s.expressions),
         missing AS (
             SELECT w.oid, w.schema, w.owner, w.target, t.oid AS relation, migrate_ext.statistics_name(w.oid, t.oid, t.root) AS name
             FROM wanted w
             CROSS JOIN tables t
             WHERE NOT EXISTS (SELECT FROM there e WHERE e.relation = t.oid AND e.definition = w.definition))
    SELECT s.statement, s.made, s.run_as -- what belongs to another role is changed as that one
    FROM (SELECT 1 AS step, pg_catalog.format('DROP STATISTICS %I.%I', t.schema, t.name) AS statement, NULL AS made, t.owner AS run_as
          FROM there t
          WHERE t.ours AND NOT EXISTS (SELECT FROM wanted w WHERE w.definition = t.definition)
          UNION ALL
          SELECT 2, pg_catalog.format('CREATE STATISTICS %I.%I%s FROM %s', n.schema, n.name, migrate_ext.statistics_clause(n.oid), migrate_ext.table_name(n.relation)),
                 pg_catalog.format('statistics %I.%I', n.schema, n.name), NULL
          FROM missing n
          UNION ALL
          SELECT 3, pg_catalog.format('ALTER STATISTICS %I.%I SET STATISTICS %s', t.schema, t.name, w.target), NULL, t.owner
          FROM wanted w
          JOIN there t ON t.definition = w.definition
          WHERE t.target <> w.target AND (t.root AND exact OR t.target < 0)
          UNION ALL
          SELECT 3, pg_catalog.format('ALTER STATISTICS %I.%I SET STATISTICS %s', n.schema, n.name, n.target), NULL, NULL
          FROM missing n
          WHERE ahead AND n.target >= 0
          UNION ALL
          SELECT 4, pg_catalog.format('ALTER STATISTICS %I.%I OWNER TO %s', t.schema, t.name, w.owner::pg_catalog.regrole), NULL, 10 -- a superuser's
          FROM wanted w
          JOIN there t ON t.definition = w.definition
          WHERE t.owner <> w.owner AND (t.root AND exact OR t.ours)
          UNION ALL
          SELECT 4, pg_catalog.format('ALTER STATISTICS %I.%I OWNER TO %s', n.schema, n.name, n.owner::pg_catalog.regrole), NULL, 10
          FROM missing n
          JOIN pg_catalog.pg_class c ON c.oid = back
          WHERE ahead AND n.owner <> c.relowner) s
    ORDER BY s.step, s.statement COLLATE "C"
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_statistics(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_statistics(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean)
    IS 'internal: extended statistics that the other table lacks';

CREATE FUNCTION migrate_ext.statistics_pairs(front pg_catalog.oid, back pg_catalog.oid)
RETURNS TABLE (front_oid pg_catalog.oid, back_oid pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT f.oid, b.oid
    FROM migrate_ext.statistics_of(front) f
    JOIN migrate_ext.statistics_of(back) b ON b.definition = f.definition
$$;
REVOKE ALL ON FUNCTION migrate_ext.statistics_pairs(pg_catalog.oid, pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.statistics_pairs(pg_catalog.oid, pg_catalog.oid) IS 'internal: statistics objects that exchange names at a swap';

-- Those that the other table has not got yet, and what they will be called there.
CREATE FUNCTION migrate_ext.statistics_coming(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid)
RETURNS TABLE (oid pg_catalog.oid, name pg_catalog.name, schema pg_catalog.name, back_name text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT w.oid, w.name, w.schema, migrate_ext.statistics_name(w.oid, back, true)
    FROM migrate_ext.statistics_wanted(migration_id, front, back) w
    WHERE NOT EXISTS (SELECT FROM migrate_ext.statistics_pairs(front, back) p WHERE p.front_oid = w.oid)
$$;
REVOKE ALL ON FUNCTION migrate_ext.statistics_coming(bigint, pg_catalog.oid, pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.statistics_coming(bigint, pg_catalog.oid, pg_catalog.oid) IS 'internal: statistics objects that will be made, for plan()';
