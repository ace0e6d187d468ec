-- The user's triggers of the table that is swapped: what carry_triggers.c asks.

-- The statement that makes a trigger, without the table's name and without who is
-- enabled: the same for equal triggers of both tables.
CREATE FUNCTION migrate_ext.trigger_definition(trigger oid)
RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_trigger_definition';
REVOKE ALL ON FUNCTION migrate_ext.trigger_definition(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.trigger_definition(oid) IS 'internal: a trigger in a form to be compared with that of the other table';

-- Triggers that a user made on a table: neither ours, nor of constraints, nor those
-- that replace_sync() drops.
CREATE FUNCTION migrate_ext.triggers_of(relation oid)
RETURNS TABLE (oid oid, name name, enabled "char", definition text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT t.oid, t.tgname, t.tgenabled, migrate_ext.trigger_definition(t.oid)
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = relation AND NOT t.tgisinternal AND t.tgparentid = 0
      AND p.pronamespace <> 'migrate_ext'::pg_catalog.regnamespace
      AND NOT EXISTS (SELECT FROM migrate_ext.migration m JOIN migrate_ext.replaced_trigger r ON r.migration = m.id
                      WHERE relation IN (m.source, m.target) AND r.name = t.tgname AND t.tgenabled = 'D' AND NOT r.dropped)
$$;
REVOKE ALL ON FUNCTION migrate_ext.triggers_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.triggers_of(oid) IS 'internal: the user''s triggers of a table';

-- Why a trigger of the front table can't be had on the back one; no row: it can.
CREATE FUNCTION migrate_ext.trigger_problems(trigger oid, front oid, back oid)
RETURNS TABLE (problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH t AS (
        SELECT t.*, b.relkind AS back_kind, b.relowner AS back_owner, p.pronamespace AS schema
        FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_class b ON b.oid = back
        JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE t.oid = trigger
    )
    SELECT 'is a row trigger with transition tables, which a partitioned table can not have', 'drop it, or make it a statement trigger'
    FROM t
    WHERE t.back_kind = 'p' AND t.tgtype & 1 = 1 AND (t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL)
    UNION ALL
    SELECT pg_catalog.format('uses column %I, which %s lacks', a.attname, back::pg_catalog.regclass), 'drop it before the swap, and make it again afterwards'
    FROM t
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND d.objid = t.oid
                               AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = front AND d.refobjsubid > 0
    JOIN pg_catalog.pg_attribute a ON a.attrelid = front AND a.attnum = d.refobjsubid
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute b WHERE b.attrelid = back AND b.attname = a.attname AND NOT b.attisdropped)
    UNION ALL
    SELECT pg_catalog.format('%s has a trigger of that name which is another one', back::pg_catalog.regclass),
           pg_catalog.format('rename or drop it: ALTER TRIGGER %I ON %s RENAME TO ...', t.tgname, back::pg_catalog.regclass)
    FROM t
    JOIN pg_catalog.pg_trigger o ON o.tgrelid = back AND o.tgname = t.tgname
    WHERE migrate_ext.trigger_definition(o.oid) <> migrate_ext.trigger_definition(t.oid)
      AND NOT migrate_ext.is_carried(front, back, 'trigger', t.tgname)
    UNION ALL
    -- the owner made it once; now he makes it again
    SELECT pg_catalog.format('needs privilege EXECUTE on %s, which %s does not have any more', t.tgfoid::pg_catalog.regprocedure, t.back_owner::pg_catalog.regrole),
           pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s', t.tgfoid::pg_catalog.regprocedure, t.back_owner::pg_catalog.regrole)
    FROM t
    WHERE NOT (pg_catalog.has_schema_privilege(t.back_owner, t.schema, 'USAGE') AND pg_catalog.has_function_privilege(t.back_owner, t.tgfoid, 'EXECUTE'))
$$;
REVOKE ALL ON FUNCTION migrate_ext.trigger_problems(oid, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.trigger_problems(oid, oid, oid) IS 'internal: why a trigger can not be carried over';

-- Triggers on the back table that are ours and have no counterpart any more.
CREATE FUNCTION migrate_ext.triggers_left_over(front oid, back oid)
RETURNS TABLE (oid oid, name name)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT b.oid, b.name
    FROM migrate_ext.triggers_of(back) b
    WHERE migrate_ext.is_carried(front, back, 'trigger', b.name)
      AND NOT EXISTS (SELECT FROM migrate_ext.triggers_of(front) f WHERE f.name = b.name AND f.definition = b.definition)
$$;
REVOKE ALL ON FUNCTION migrate_ext.triggers_left_over(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.triggers_left_over(oid, oid) IS 'internal: triggers that were made by us and are to go';

-- How ALTER TABLE says it.
CREATE FUNCTION migrate_ext.trigger_state(enabled "char") RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE enabled WHEN 'O' THEN 'ENABLE' WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END $$;
REVOKE ALL ON FUNCTION migrate_ext.trigger_state("char") FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.trigger_state("char") IS 'internal: the state of a trigger as a clause';

-- What is still to be done on the back table, in order.  What is added sleeps, and is told as of
-- the front table.  state: what the triggers of partitions are to have, while the table's own
-- sleeps.  ahead: also what can be added once those left over are gone.
CREATE FUNCTION migrate_ext.trigger_steps(front oid, back oid, ahead boolean)
RETURNS TABLE (step text, name text, statement text, state text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT s.step, s.name, s.statement, s.state
    FROM (
        SELECT 1 AS place, 'drop' AS step, l.name::text AS name,
               pg_catalog.format('DROP TRIGGER %I ON %s', l.name, back::pg_catalog.regclass) AS statement, NULL AS state
        FROM migrate_ext.triggers_left_over(front, back) l
        UNION ALL
        SELECT 2, 'add', f.name, pg_catalog.pg_get_triggerdef(f.oid),
               CASE WHEN f.enabled <> 'O' AND t.tgtype & 1 = 1 AND c.relkind = 'p' THEN migrate_ext.trigger_state(f.enabled) END
        FROM migrate_ext.triggers_of(front) f
        JOIN pg_catalog.pg_trigger t ON t.oid = f.oid
        JOIN pg_catalog.pg_class c ON c.oid = back
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger b WHERE b.tgrelid = back AND b.tgname = f.name
                          AND NOT (ahead AND b.oid IN (SELECT l.oid FROM migrate_ext.triggers_left_over(front, back) l)))
          AND NOT EXISTS (SELECT FROM migrate_ext.trigger_problems(f.oid, front, back))
        UNION ALL
        SELECT 3, 'disable', b.name, pg_catalog.format('ALTER TABLE ONLY %s DISABLE TRIGGER %I', back::pg_catalog.regclass, b.name), NULL
        FROM migrate_ext.triggers_of(front) f
        JOIN migrate_ext.triggers_of(back) b ON b.name = f.name AND b.definition = f.definition
        WHERE b.enabled <> 'D'
        UNION ALL
        SELECT 4, 'partitions', b.name, NULL, migrate_ext.trigger_state(f.enabled)
        FROM migrate_ext.triggers_of(front) f
        JOIN migrate_ext.triggers_of(back) b ON b.name = f.name AND b.definition = f.definition
        WHERE EXISTS (SELECT FROM migrate_ext.partitions_of(back) p
                      JOIN pg_catalog.pg_trigger t ON t.tgrelid = p.relation AND t.tgname = b.name AND t.tgparentid <> 0
                      WHERE t.tgenabled <> f.enabled)) s
    ORDER BY s.place, s.name
$$;
REVOKE ALL ON FUNCTION migrate_ext.trigger_steps(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.trigger_steps(oid, oid, boolean) IS 'internal: what is still to be done so that a table has the triggers of the other';

-- In a swap one table's triggers sleep, the other's get the state that those had: for each table
-- what follows its name in ALTER TABLE.  Asked before anything is changed.  ahead: also of those that are to be made.
CREATE FUNCTION migrate_ext.trigger_flip(asleep oid, awake oid, ahead boolean)
RETURNS TABLE (relation oid, change text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT x.relation, pg_catalog.string_agg(pg_catalog.format('%s TRIGGER %I', x.what, f.name), ', ' ORDER BY f.name)
    FROM migrate_ext.triggers_of(asleep) f
    CROSS JOIN LATERAL (VALUES (asleep, 'DISABLE'), (awake, migrate_ext.trigger_state(f.enabled))) x (relation, what)
    WHERE f.enabled <> 'D'
      AND (EXISTS (SELECT FROM migrate_ext.triggers_of(awake) b WHERE b.name = f.name AND b.definition = f.definition)
           OR ahead AND EXISTS (SELECT FROM migrate_ext.trigger_steps(asleep, awake, true) s WHERE s.step = 'add' AND s.name = f.name))
    GROUP BY x.relation
    ORDER BY x.relation = awake
$$;
REVOKE ALL ON FUNCTION migrate_ext.trigger_flip(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.trigger_flip(oid, oid, boolean) IS 'internal: what a swap changes of triggers, a list a table';
