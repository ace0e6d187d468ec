-- What hangs on the application's table ("front") and is to hang on the one that takes
-- over ("back") as well: as the statements that are missing there.  carry_statements.c
-- executes them as the table's owner before the swap, and asks once more under its locks:
-- then without "leaves", the partitions.
--
-- ahead: plan() asks, at any time before the swap: also for what can be done only when the
-- rest is, in the order in which it will be.
--
-- exact: what the front table does not have is dropped; else only what we have made, which
-- the migration's events tell: a target of the user's own has things of his.

CREATE FUNCTION migrate_ext.deparse(tree pg_catalog.pg_node_tree, relation pg_catalog.oid, alias text) RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_deparse';
REVOKE ALL ON FUNCTION migrate_ext.deparse(pg_catalog.pg_node_tree, pg_catalog.oid, text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.deparse(pg_catalog.pg_node_tree, pg_catalog.oid, text) IS 'internal: an expression as text, the table by this name';

CREATE FUNCTION migrate_ext.was_made(migration_id bigint, thing text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT EXISTS (SELECT FROM migrate_ext.event e
                   WHERE e.migration = migration_id AND e.kind = 'carried' AND e.detail->'made' ? thing)
$$;
REVOKE ALL ON FUNCTION migrate_ext.was_made(bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.was_made(bigint, text) IS 'internal: did we make this on the other table';

-- What we have made of a thing at last: the text after its name.
CREATE FUNCTION migrate_ext.last_made(migration_id bigint, thing text) RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.substr(t.made, pg_catalog.length(thing) + 1)
    FROM migrate_ext.event e
    CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(e.detail->'made') WITH ORDINALITY t (made, n)
    WHERE e.migration = migration_id AND e.kind = 'carried' AND pg_catalog.starts_with(t.made, thing)
    ORDER BY e.id DESC, t.n DESC LIMIT 1
$$;
REVOKE ALL ON FUNCTION migrate_ext.last_made(bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.last_made(bigint, text) IS 'internal: of what we made this on the other table';

-- Policies, as if they stood on a table of that name.  "own": reads the table itself, or
-- names a table in a constant, so that its text means another table after the swap.  Those
-- that use a column which "needed" lacks are left out: preflight tells.
CREATE FUNCTION migrate_ext.policies_of(relation pg_catalog.oid, needed pg_catalog.oid, alias text)
RETURNS TABLE (name pg_catalog.name, own boolean, clauses text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT p.polname,
           (p.polqual::text LIKE '%:relid ' || relation || ' %') IS TRUE
           OR (p.polwithcheck::text LIKE '%:relid ' || relation || ' %') IS TRUE
           OR pg_catalog.concat(e.using, e.checks) LIKE '%::regclass%',
           pg_catalog.format('AS %s FOR %s TO %s',
                             CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                             CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                           WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                             (SELECT pg_catalog.string_agg(CASE WHEN r.oid = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(a.rolname) END, ', '
                                                           ORDER BY r.oid <> 0, a.rolname COLLATE "C")
                              FROM pg_catalog.unnest(p.polroles) r (oid)
                              LEFT JOIN pg_catalog.pg_roles a ON a.oid = r.oid))
               || COALESCE(' USING (' || e.using || ')', '') || COALESCE(' WITH CHECK (' || e.checks || ')', '')
    FROM pg_catalog.pg_policy p
    CROSS JOIN LATERAL (SELECT migrate_ext.deparse(p.polqual, relation, alias) AS using,
                               migrate_ext.deparse(p.polwithcheck, relation, alias) AS checks) e
    WHERE p.polrelid = relation
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      JOIN pg_catalog.pg_attribute f ON f.attrelid = relation AND f.attnum = d.refobjsubid
                      WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
                        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = relation AND d.refobjsubid > 0
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute b
                                        WHERE b.attrelid = needed AND b.attname = f.attname AND NOT b.attisdropped))
$$;
REVOKE ALL ON FUNCTION migrate_ext.policies_of(pg_catalog.oid, pg_catalog.oid, text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.policies_of(pg_catalog.oid, pg_catalog.oid, text) IS 'internal: policies of a table, as of a table of another name';

CREATE FUNCTION migrate_ext.carry_policies(migration_id bigint, front pg_catalog.oid, back pg_catalog.oid, exact boolean, leaves boolean, ahead boolean)
RETURNS TABLE (statement text, made text, run_as pg_catalog.oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH b AS (SELECT c.relname::text AS alias, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE c.oid = back),
         wanted AS MATERIALIZED (
             SELECT p.*, pg_catalog.format('policy %s %s: ', back, p.name) AS made
             FROM b, migrate_ext.policies_of(front, back, b.alias) p),
         there AS MATERIALIZED (
             SELECT p.*, pg_catalog.format('policy %s %s: ', back, p.name) AS made
             FROM b, migrate_ext.policies_of(back, back, b.alias) p),
         -- columns of other types may make the same read otherwise on the back table
         pair AS MATERIALIZED (
             SELECT w.name AS wanted, t.name AS there, w.own, w.clauses, COALESCE(w.made, t.made) AS made,
                    exact OR l.clauses IS NOT NULL AS ours,
                    w.clauses = t.clauses OR COALESCE(w.clauses = l.clauses, false) AS same
             FROM wanted w
             FULL JOIN there t ON t.name = w.name
             LEFT JOIN LATERAL (SELECT migrate_ext.last_made(migration_id, COALESCE(w.made, t.made)) AS clauses
                                WHERE (w.clauses = t.clauses) IS NOT TRUE) l ON true)
    SELECT s.statement, s.made, NULL::pg_catalog.oid
    FROM (SELECT 1 AS step, pg_catalog.format('DROP POLICY %I ON %s', p.there, b.name) AS statement, NULL AS made
          FROM b, pair p
          WHERE p.there IS NOT NULL AND p.ours AND (p.wanted IS NULL OR NOT p.own AND NOT p.same)
          UNION ALL
          SELECT 2, pg_catalog.format('CREATE POLICY %I ON %s %s', p.wanted, b.name, p.clauses), p.made || p.clauses
          FROM b, pair p
          WHERE p.wanted IS NOT NULL AND NOT p.own AND (p.there IS NULL OR p.ours AND NOT p.same)) s
    ORDER BY s.step, s.statement COLLATE "C"
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_policies(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_policies(bigint, pg_catalog.oid, pg_catalog.oid, boolean, boolean, boolean)
    IS 'internal: policies that the other table lacks';

-- Those that read the table itself, as statements to execute once the back table has its name.
CREATE FUNCTION migrate_ext.carry_own_policies(front pg_catalog.oid, back pg_catalog.oid)
RETURNS TABLE (statement text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = back AND p.polname = w.name)
                THEN pg_catalog.format('DROP POLICY %I ON %I.%I; ', w.name, n.nspname, c.relname) ELSE '' END
           || pg_catalog.format('CREATE POLICY %I ON %I.%I %s', w.name, n.nspname, c.relname, w.clauses)
           || COALESCE((SELECT pg_catalog.format('; COMMENT ON POLICY %I ON %I.%I IS %L', w.name, n.nspname, c.relname, d.description)
                        FROM pg_catalog.pg_policy p
                        JOIN pg_catalog.pg_description d ON d.classoid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objoid = p.oid AND d.objsubid = 0
                        WHERE p.polrelid = front AND p.polname = w.name), '')
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL migrate_ext.policies_of(front, back, c.relname::text) w
    WHERE c.oid = front AND w.own
$$;
REVOKE ALL ON FUNCTION migrate_ext.carry_own_policies(pg_catalog.oid, pg_catalog.oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_own_policies(pg_catalog.oid, pg_catalog.oid) IS 'internal: policies to be made in the swap';
