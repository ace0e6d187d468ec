-- Foreign keys of other tables that point at the table that is swapped: what
-- carry_fk_in.c asks the catalogs.
--
-- A key that has been made for the other table sleeps until the swap: its name is
-- another one, and its triggers are disabled.

-- The triggers of an incoming foreign key that sleep with it: those of the table
-- that has it, partitions included, and those of a plain table that it points at.
-- On a partitioned one they stay awake: before the swap nobody writes it in a way
-- that fires any.
CREATE FUNCTION migrate_ext.fk_in_triggers(fk oid)
RETURNS TABLE (relation oid, name name, enabled "char")
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT t.tgrelid, t.tgname, t.tgenabled
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.confrelid
    CROSS JOIN LATERAL (
        -- of the partitions of the table that has it: they point at the same one
        WITH RECURSIVE tree AS (
            SELECT k.oid, k.conrelid
            UNION ALL
            SELECT x.oid, x.conrelid FROM tree JOIN pg_catalog.pg_constraint x ON x.conparentid = tree.oid AND x.confrelid = k.confrelid)
        SELECT tree.oid, tree.conrelid FROM tree) tree
    JOIN pg_catalog.pg_trigger t ON t.tgconstraint = tree.oid AND (t.tgrelid = tree.conrelid OR c.relkind = 'r')
    WHERE k.oid = fk
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_triggers(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_triggers(oid) IS 'internal: triggers of a foreign key that sleep while it points at the table that is not the application''s';

-- Foreign keys of others than these two that point at a table; those of one table
-- that are alike but for the name are numbered.
CREATE FUNCTION migrate_ext.fk_in_keys(relation oid, other oid)
RETURNS TABLE (fk oid, child oid, definition jsonb, number bigint, asleep boolean)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT k.oid, k.conrelid, d.definition, pg_catalog.row_number() OVER (PARTITION BY k.conrelid, d.definition ORDER BY k.conname),
           EXISTS (SELECT FROM migrate_ext.fk_in_triggers(k.oid) t WHERE t.enabled = 'D')
    FROM (SELECT DISTINCT d.objid FROM pg_catalog.pg_depend d -- pg_constraint has no index on confrelid
          WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = relation
            AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass) c
    JOIN pg_catalog.pg_constraint k ON k.oid = c.objid
    -- without its own name and that of what it points at
    CROSS JOIN LATERAL (SELECT migrate_ext.fk_definition(k.oid) - 2 - 0 AS definition) d
    WHERE k.contype = 'f' AND k.confrelid = relation AND k.conparentid = 0
      AND COALESCE(pg_catalog.pg_partition_root(k.conrelid), k.conrelid) NOT IN (relation, other)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_keys(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_keys(oid, oid) IS 'internal: foreign keys that point at a table';

-- The same foreign key, pointing at either table.
CREATE FUNCTION migrate_ext.fk_in_pairs(front oid, back oid)
RETURNS TABLE (front_fk oid, front_asleep boolean, back_fk oid, back_asleep boolean)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT f.fk, f.asleep, b.fk, b.asleep
    FROM migrate_ext.fk_in_keys(front, back) f
    JOIN migrate_ext.fk_in_keys(back, front) b USING (child, definition, number)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_pairs(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_pairs(oid, oid) IS 'internal: foreign keys that there are for both tables';

-- Why a foreign key that points at the front table can't point at the back one;
-- no row: it can.
CREATE FUNCTION migrate_ext.fk_in_problems(fk oid, front oid, back oid)
RETURNS TABLE (problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH k AS (
        SELECT k.*, c.relowner AS child_owner, b.relowner AS back_owner,
               COALESCE(pg_catalog.pg_partition_root(k.conrelid), k.conrelid) AS child
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
        JOIN pg_catalog.pg_class b ON b.oid = back
        WHERE k.oid = fk
    ), col AS (
        SELECT c.n, f.attname, f.atttypid AS front_type, b.attnum, b.atttypid AS back_type, k.conpfeqop[c.n] AS operator,
               EXISTS (SELECT FROM migrate_ext.migration m WHERE m.source IN (front, back) AND m.target IN (front, back)
                       AND m.options->'columns' ? f.attname) AS computed
        FROM k
        CROSS JOIN LATERAL pg_catalog.unnest(k.confkey) WITH ORDINALITY c (num, n)
        JOIN pg_catalog.pg_attribute f ON f.attrelid = front AND f.attnum = c.num
        LEFT JOIN pg_catalog.pg_attribute b ON b.attrelid = back AND b.attname = f.attname AND NOT b.attisdropped
    ), columns AS (
        SELECT (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(col.attname), ', ' ORDER BY col.n) FROM col) AS names,
               -- what the partition key has more; a unique key of a partitioned table has all of that
               (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(p.attname), ', ' ORDER BY p.attname)
                FROM migrate_ext.key_columns_of(back) p WHERE p.attname NOT IN (SELECT col.attname FROM col)) AS added
    )
    SELECT pg_catalog.format('points at (%s), which on the %s table is not unique by itself: no foreign key can point at that there',
                             columns.names, CASE WHEN b.relkind = 'p' THEN 'partitioned' ELSE 'original' END),
           CASE WHEN columns.added IS NOT NULL
                THEN pg_catalog.format('give %s the column %s, and let it point at (%s, %2$s) after the swap', k.conrelid::pg_catalog.regclass, columns.added, columns.names)
                ELSE pg_catalog.format('drop it, or make a unique key of these columns on %s', back::pg_catalog.regclass) END
    FROM k
    JOIN pg_catalog.pg_class b ON b.oid = back
    CROSS JOIN columns
    WHERE columns.added IS NOT NULL
       OR NOT migrate_ext.has_unique_key(back, front, k.confkey)
          -- indexes are made when the rows are there
          AND EXISTS (SELECT FROM migrate_ext.migration m WHERE m.source IN (front, back) AND m.target IN (front, back) AND m.state IN ('live', 'swapped'))
    UNION ALL
    SELECT pg_catalog.format('points at %I, which %s %s', col.attname, back::pg_catalog.regclass,
                             CASE WHEN col.attnum IS NULL THEN 'does not have' WHEN col.computed THEN 'has with other values, since options.columns computes it'
                                  ELSE 'has with a type that can not be compared' END),
           'drop it'
    FROM col
    WHERE col.attnum IS NULL OR col.computed
       OR col.front_type <> col.back_type AND NOT migrate_ext.fk_comparable(col.operator, col.back_type, NULL)
    UNION ALL
    SELECT 'is not enforced: its triggers are disabled',
           pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER ALL, and look for rows that break it, or drop it', k.conrelid::pg_catalog.regclass)
    FROM k
    WHERE EXISTS (SELECT FROM migrate_ext.fk_in_triggers(fk) t WHERE t.enabled = 'D')
    UNION ALL
    SELECT pg_catalog.format('belongs to %s, whose owner is %s: %s may not change that table', k.conrelid::pg_catalog.regclass,
                             k.child_owner::pg_catalog.regrole, k.back_owner::pg_catalog.regrole),
           'let one role own both, or drop it and make it again after the swap'
    FROM k
    WHERE NOT pg_catalog.pg_has_role(k.back_owner, k.child_owner, 'MEMBER')
    UNION ALL
    SELECT pg_catalog.format('belongs to %s, which migration %s moves', k.conrelid::pg_catalog.regclass, pg_catalog.quote_ident(m.name)),
           'complete or cancel that one first'
    FROM k
    JOIN migrate_ext.migration m ON k.child IN (m.source, m.target)
    WHERE m.kind = 'partition' AND m.state NOT IN ('completed', 'cancelled')
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_problems(oid, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_problems(oid, oid, oid) IS 'internal: why a foreign key can not point at the other table';

-- Keys that can be had for the back table and are still to be made.
CREATE FUNCTION migrate_ext.fk_in_missing(front oid, back oid)
RETURNS TABLE (fk oid, child oid, name text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT f.fk, f.child, k.conname
    FROM migrate_ext.fk_in_keys(front, back) f
    JOIN pg_catalog.pg_constraint k ON k.oid = f.fk
    WHERE NOT f.asleep AND NOT EXISTS (SELECT FROM migrate_ext.fk_in_problems(f.fk, front, back))
      AND NOT EXISTS (SELECT FROM migrate_ext.fk_in_pairs(front, back) p WHERE p.front_fk = f.fk)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_missing(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_missing(oid, oid) IS 'internal: foreign keys that are still to be made for the other table';

-- Their triggers that will sleep, for plan(): named like those of the front's key, a '?' in the
-- place of the number that is not known yet.
CREATE FUNCTION migrate_ext.fk_in_coming_triggers(front oid, back oid)
RETURNS TABLE (child oid, fk text, relation oid, name text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT k.child, k.name, t.relation, pg_catalog.regexp_replace(t.name, '[0-9]+$', '?')
    FROM migrate_ext.fk_in_missing(front, back) k
    CROSS JOIN LATERAL migrate_ext.fk_in_triggers(k.fk) t
    WHERE t.relation <> front
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_coming_triggers(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_coming_triggers(oid, oid) IS 'internal: triggers of foreign keys that are still to be made';

-- What is still to be done so that each of the front table's keys that can be had
-- for the back table is there, in order.  Of "add" the statement is the key alone:
-- its name is found when it is made.  ahead: also with the keys that will have been made by
-- then; of their "validate" the statement lacks the key's name, and "referenced" tells whose it is.
CREATE FUNCTION migrate_ext.fk_in_steps(front oid, back oid, ahead boolean)
RETURNS TABLE (step text, name text, referenced oid, relation oid, statement text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH pair AS (
        SELECT p.*, EXISTS (SELECT FROM migrate_ext.fk_in_problems(p.front_fk, front, back)) AS hopeless
        FROM migrate_ext.fk_in_pairs(front, back) p
    )
    SELECT s.step, s.name, s.referenced, s.relation, s.statement
    FROM (
        -- dropped on the front, or not to be had any more
        SELECT 1 AS place, 'drop' AS step, k.conname::text AS name, back AS referenced, k.conrelid AS relation,
               pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::pg_catalog.regclass, k.conname) AS statement
        FROM migrate_ext.fk_in_keys(back, front) b
        JOIN pg_catalog.pg_constraint k ON k.oid = b.fk
        -- both asleep: disabled by somebody else
        WHERE b.asleep AND NOT EXISTS (SELECT FROM pair WHERE pair.back_fk = b.fk AND (pair.front_asleep OR NOT pair.hopeless))
        UNION ALL
        SELECT 2, 'add', k.conname, back, k.conrelid,
               own.prefix || back::pg_catalog.regclass || pg_catalog.substr(def.text, pg_catalog.length(own.prefix || front::pg_catalog.regclass) + 1)
        FROM migrate_ext.fk_in_missing(front, back) f
        JOIN pg_catalog.pg_constraint k ON k.oid = f.fk
        CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_constraintdef(k.oid) AS text) def
        CROSS JOIN LATERAL (
            SELECT 'FOREIGN KEY (' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY c.n) || ') REFERENCES ' AS prefix
            FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY c (num, n)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.num) own
        UNION ALL
        SELECT 2, 'disable', t.fk, back, t.child,
               pg_catalog.format('ALTER TABLE ONLY %s %s', t.relation::pg_catalog.regclass,
                                 pg_catalog.string_agg(pg_catalog.format('DISABLE TRIGGER %I', t.name), ', '))
        FROM migrate_ext.fk_in_coming_triggers(front, back) t
        WHERE ahead
        GROUP BY t.child, t.fk, t.relation
        UNION ALL
        SELECT 4, 'validate', m.name, m.child, x.conrelid, pg_catalog.format('ALTER TABLE ONLY %s VALIDATE CONSTRAINT ', x.conrelid::pg_catalog.regclass)
        FROM migrate_ext.fk_in_missing(front, back) m
        JOIN pg_catalog.pg_constraint k ON k.oid = m.fk AND k.convalidated
        CROSS JOIN LATERAL migrate_ext.fk_tree(m.fk) x
        JOIN pg_catalog.pg_class c ON c.oid = x.conrelid AND c.relkind = 'r'
        WHERE ahead AND x.confrelid = front
        UNION ALL
        SELECT 3, 'disable', k.conname, back, t.relation,
               pg_catalog.format('ALTER TABLE ONLY %s %s', t.relation::pg_catalog.regclass,
                                 pg_catalog.string_agg(pg_catalog.format('DISABLE TRIGGER %I', t.name), ', '))
        FROM pair
        JOIN pg_catalog.pg_constraint k ON k.oid = pair.back_fk
        CROSS JOIN LATERAL migrate_ext.fk_in_triggers(pair.back_fk) t
        WHERE t.enabled <> 'D' AND NOT pair.front_asleep AND NOT pair.hopeless
        GROUP BY k.oid, k.conname, t.relation
        UNION ALL
        SELECT 4, 'validate', k.conname, back, x.conrelid,
               pg_catalog.format('ALTER TABLE ONLY %s VALIDATE CONSTRAINT %I', x.conrelid::pg_catalog.regclass, c.conname)
        FROM pair
        JOIN pg_catalog.pg_constraint k ON k.oid = pair.front_fk AND k.convalidated
        CROSS JOIN LATERAL migrate_ext.fk_tree(pair.back_fk) x
        JOIN pg_catalog.pg_constraint c ON c.oid = x.oid
        WHERE NOT pair.front_asleep AND NOT pair.hopeless AND NOT x.convalidated AND x.confrelid = back) s
    ORDER BY s.place, s.relation, s.name, s.step
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_steps(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_steps(oid, oid, boolean) IS 'internal: what is still to be done so that foreign keys can point at the other table';

-- Keys that move at the swap: awake, with one that sleeps for the back table.
CREATE FUNCTION migrate_ext.fk_in_moves(front oid, back oid)
RETURNS TABLE (front_fk oid, back_fk oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT p.front_fk, p.back_fk FROM migrate_ext.fk_in_pairs(front, back) p WHERE NOT p.front_asleep AND p.back_asleep
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_moves(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_moves(oid, oid) IS 'internal: foreign keys that begin to point at the other table at the swap';

-- The swap lets the keys of one table sleep and wakes the other's: for each table what follows its
-- name in ALTER TABLE ONLY.  ahead: also with the keys that will have been made by then.
CREATE FUNCTION migrate_ext.fk_in_flip(asleep oid, awake oid, ahead boolean)
RETURNS TABLE (relation oid, change text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT t.relation, pg_catalog.string_agg(pg_catalog.format('%s TRIGGER %I', t.what, t.name), ', ')
    FROM (SELECT t.relation, t.name, 'DISABLE' AS what
          FROM migrate_ext.fk_in_moves(asleep, awake) p CROSS JOIN LATERAL migrate_ext.fk_in_triggers(p.front_fk) t
          UNION ALL
          SELECT t.relation, t.name, 'ENABLE'
          FROM migrate_ext.fk_in_moves(asleep, awake) p CROSS JOIN LATERAL migrate_ext.fk_in_triggers(p.back_fk) t
          UNION ALL
          SELECT t.relation, t.name, 'DISABLE'
          FROM migrate_ext.fk_in_missing(asleep, awake) k CROSS JOIN LATERAL migrate_ext.fk_in_triggers(k.fk) t
          WHERE ahead
          UNION ALL
          SELECT t.relation, t.name, 'ENABLE'
          FROM migrate_ext.fk_in_coming_triggers(asleep, awake) t
          WHERE ahead) t
    GROUP BY t.relation
    ORDER BY t.relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_flip(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_flip(oid, oid, boolean) IS 'internal: changes in a swap for the triggers of incoming foreign keys';

-- The constraints whose names the swap exchanges, of partitions as well.
CREATE FUNCTION migrate_ext.fk_in_names(front oid, back oid)
RETURNS TABLE (front_fk oid, back_fk oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT f.oid, b.oid
    FROM migrate_ext.fk_in_moves(front, back) p
    CROSS JOIN LATERAL migrate_ext.fk_tree(p.front_fk) f
    CROSS JOIN LATERAL migrate_ext.fk_tree(p.back_fk) b
    WHERE f.confrelid = front AND b.confrelid = back AND f.conrelid = b.conrelid
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_names(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_names(oid, oid) IS 'internal: constraints that exchange their names at a swap';

-- Keys that stay with the front table at the swap, awake: the statement that drops each.
CREATE FUNCTION migrate_ext.fk_in_stay(front oid, back oid)
RETURNS TABLE (statement text, relation oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::pg_catalog.regclass, k.conname), k.conrelid
    FROM migrate_ext.fk_in_keys(front, back) f
    JOIN pg_catalog.pg_constraint k ON k.oid = f.fk
    WHERE NOT f.asleep AND NOT EXISTS (SELECT FROM migrate_ext.fk_in_moves(front, back) p WHERE p.front_fk = f.fk)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_in_stay(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_in_stay(oid, oid) IS 'internal: foreign keys that go on pointing at the table that is swapped out';
