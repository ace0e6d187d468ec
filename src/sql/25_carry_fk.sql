-- Foreign keys of the table that is swapped: what carry_fk_out.c asks the catalogs.
--
-- "front" is the table that the application uses, "back" the one that takes over.
-- All is found by index, and nothing here opens a table.

-- What makes two foreign keys the same one, of either table: name, columns by
-- name, where to (0: its own table), actions, MATCH, deferrability.
CREATE FUNCTION migrate_ext.fk_definition(fk oid)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.jsonb_build_array(
        k.conname,
        (SELECT pg_catalog.array_agg(a.attname ORDER BY c.n)
         FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY c (num, n)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.num),
        CASE WHEN k.confrelid <> k.conrelid THEN k.confrelid ELSE 0 END,
        (SELECT pg_catalog.array_agg(a.attname ORDER BY c.n)
         FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY c (num, n)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.num),
        k.confupdtype, k.confdeltype, k.confmatchtype, k.condeferrable, k.condeferred,
        (SELECT pg_catalog.array_agg(a.attname ORDER BY a.attname)
         FROM pg_catalog.unnest(k.confdelsetcols) c (num)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.num))
    FROM pg_catalog.pg_constraint k
    WHERE k.oid = fk
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_definition(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_definition(oid) IS 'internal: a foreign key in a form to be compared with that of the other table';

-- A foreign key and the ones below it: of partitions, on either side.
CREATE FUNCTION migrate_ext.fk_tree(fk oid)
RETURNS TABLE (oid oid, conrelid oid, confrelid oid, convalidated boolean)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH RECURSIVE tree AS (
        SELECT k.oid, k.conrelid, k.confrelid, k.convalidated
        FROM pg_catalog.pg_constraint k WHERE k.oid = fk
        UNION ALL
        SELECT k.oid, k.conrelid, k.confrelid, k.convalidated
        FROM tree t JOIN pg_catalog.pg_constraint k ON k.conparentid = t.oid)
    SELECT * FROM tree
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_tree(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_tree(oid) IS 'internal: a foreign key and those of partitions that belong to it';

-- The triggers of an outgoing foreign key that sleep while its table is the back
-- one.  Those on the table that it points at (and its partitions) would do a
-- second time, and in the wrong order of locks, what those of the front's key do.
-- Those on the table itself are the plain original's only: rows are written to the
-- target without any.  Of a key that points at its own partitioned table only the
-- root's, which never fire: they are the mark that it is ours.
CREATE FUNCTION migrate_ext.fk_out_triggers(fk oid)
RETURNS TABLE (relation oid, name name, enabled "char")
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT t.tgrelid, t.tgname, t.tgenabled
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    CROSS JOIN LATERAL (
        -- of the referenced side's partitions: they have the same conrelid
        WITH RECURSIVE tree AS (
            SELECT k.oid
            UNION ALL
            SELECT x.oid FROM tree JOIN pg_catalog.pg_constraint x ON x.conparentid = tree.oid AND x.conrelid = k.conrelid
            WHERE k.confrelid <> k.conrelid)
        SELECT tree.oid FROM tree) tree
    JOIN pg_catalog.pg_trigger t ON t.tgconstraint = tree.oid
    WHERE k.oid = fk
      AND (c.relkind = 'r' OR k.confrelid = k.conrelid OR t.tgrelid <> k.conrelid)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_triggers(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_triggers(oid) IS 'internal: triggers of a foreign key that sleep while its table is not the application''s';

-- Has this foreign key or trigger been made on the other table by us?
CREATE FUNCTION migrate_ext.is_carried(front oid, back oid, kind text, name text)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT EXISTS (SELECT FROM migrate_ext.migration m
                   JOIN migrate_ext.event e ON e.migration = m.id
                   WHERE m.source IN (front, back) AND m.target IN (front, back)
                     AND e.kind = 'carried' AND e.detail->>'kind' = is_carried.kind AND e.detail->>'name' = is_carried.name)
$$;
REVOKE ALL ON FUNCTION migrate_ext.is_carried(oid, oid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.is_carried(oid, oid, text, text) IS 'internal: was an object made on the other table by a carrier';

-- Does a table have a unique key of just these columns of another, by name, which
-- a foreign key can point at?
CREATE FUNCTION migrate_ext.has_unique_key(relation oid, other oid, columns smallint[])
RETURNS boolean
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = relation AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
          AND (SELECT pg_catalog.array_agg(a.attname ORDER BY a.attname) FROM pg_catalog.generate_series(1, i.indnkeyatts) n
               JOIN pg_catalog.pg_attribute a ON a.attrelid = relation AND a.attnum = i.indkey[n - 1])
            = (SELECT pg_catalog.array_agg(a.attname ORDER BY a.attname) FROM pg_catalog.unnest(columns) c (num)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = other AND a.attnum = c.num))
$$;
REVOKE ALL ON FUNCTION migrate_ext.has_unique_key(oid, oid, smallint[]) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.has_unique_key(oid, oid, smallint[]) IS 'internal: can a foreign key point at these columns';

-- Will it have one like the other's, once the migration has made its indexes?  Then the key has
-- the columns of the partition key.
CREATE FUNCTION migrate_ext.will_have_unique_key(relation oid, other oid, columns smallint[])
RETURNS boolean
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT EXISTS (SELECT FROM migrate_ext.migration m
                   WHERE m.source = other AND m.target = relation AND m.state IN ('created', 'logging', 'copying', 'indexing'))
       AND migrate_ext.has_unique_key(other, other, columns)
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_partitioned_table t
           CROSS JOIN pg_catalog.unnest(t.partattrs) k (num)
           LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = k.num
           WHERE (t.partrelid = relation OR t.partrelid IN (SELECT p.relation FROM migrate_ext.partitions_of(will_have_unique_key.relation) p))
             AND NOT EXISTS (SELECT FROM pg_catalog.unnest(columns) c (num)
                             JOIN pg_catalog.pg_attribute o ON o.attrelid = other AND o.attnum = c.num
                             WHERE o.attname = a.attname))
$$;
REVOKE ALL ON FUNCTION migrate_ext.will_have_unique_key(oid, oid, smallint[]) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.will_have_unique_key(oid, oid, smallint[]) IS 'internal: can a foreign key point at these columns once there are indexes';

-- Is there the like of an operator of a foreign key, which compares what is pointed at with what
-- points, for another type on one side?  NULL: the operator's own.
CREATE FUNCTION migrate_ext.fk_comparable(key_operator oid, referenced_type oid, own_type oid)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_amop x
                   JOIN pg_catalog.pg_amop y ON y.amopfamily = x.amopfamily AND y.amopstrategy = 3 AND y.amopmethod = 403
                                            AND y.amoplefttype = COALESCE(referenced_type, x.amoplefttype)
                                            AND y.amoprighttype = COALESCE(own_type, x.amoprighttype)
                   WHERE x.amopopr = key_operator AND x.amopstrategy = 3 AND x.amopmethod = 403)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_comparable(oid, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_comparable(oid, oid, oid) IS 'internal: can a foreign key compare these types';

-- Why a foreign key of the front table can't be had on the back one; no row: it can.
CREATE FUNCTION migrate_ext.fk_out_problems(fk oid, front oid, back oid)
RETURNS TABLE (problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH k AS (
        SELECT k.*, b.relkind AS back_kind, b.relowner AS back_owner, r.relnamespace AS schema
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_class b ON b.oid = back
        JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
        WHERE k.oid = fk
    ), col AS (
        SELECT c.n, f.attname, f.atttypid AS front_type, b.attnum, COALESCE(NULLIF(t.typbasetype, 0), t.oid) AS back_type,
               b.atttypid AS back_declared, k.conpfeqop[c.n] AS operator,
               EXISTS (SELECT FROM migrate_ext.migration m WHERE m.source IN (front, back) AND m.target IN (front, back)
                       AND m.options->'columns' ? f.attname) AS computed
        FROM k
        CROSS JOIN LATERAL pg_catalog.unnest(k.conkey) WITH ORDINALITY c (num, n)
        JOIN pg_catalog.pg_attribute f ON f.attrelid = front AND f.attnum = c.num
        LEFT JOIN pg_catalog.pg_attribute b ON b.attrelid = back AND b.attname = f.attname AND NOT b.attisdropped
        LEFT JOIN pg_catalog.pg_type t ON t.oid = b.atttypid
    )
    -- one that is not enforced (18) is told of by itself, and isn't to be validated
    SELECT 'is not valid, and only valid foreign keys are carried over',
           pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I, or drop it', front::pg_catalog.regclass, k.conname)
    FROM k WHERE NOT k.convalidated AND k.back_kind = 'p' AND pg_catalog.to_jsonb(k)->>'conenforced' IS DISTINCT FROM 'false'
    UNION ALL
    SELECT CASE WHEN col.attnum IS NULL THEN pg_catalog.format('has column %I, which %s lacks', col.attname, back::pg_catalog.regclass)
                WHEN col.computed THEN pg_catalog.format('has column %I, whose value in the target options.columns computes', col.attname)
                ELSE pg_catalog.format('has column %I, whose type in %s can not be compared with what it points at', col.attname, back::pg_catalog.regclass) END,
           'drop it before the swap, and make it again afterwards'
    FROM col
    WHERE col.attnum IS NULL OR col.computed
       OR col.front_type <> col.back_declared AND NOT migrate_ext.fk_comparable(col.operator, NULL, col.back_type)
    UNION ALL
    SELECT pg_catalog.format('points at its own table by (%s), which by itself is not unique on %s',
                             (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY c.n)
                              FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY c (num, n)
                              JOIN pg_catalog.pg_attribute a ON a.attrelid = front AND a.attnum = c.num), back::pg_catalog.regclass),
           'drop it before the swap: a foreign key to the partitioned table needs a unique key of these columns there'
    FROM k
    WHERE k.confrelid = front AND NOT migrate_ext.has_unique_key(back, front, k.confkey)
      AND NOT migrate_ext.will_have_unique_key(back, front, k.confkey)
    UNION ALL
    SELECT 'points at the table that takes over', 'drop it before the swap'
    FROM k WHERE k.confrelid = back
    UNION ALL
    SELECT pg_catalog.format('%s has a constraint of that name which is another one', back::pg_catalog.regclass),
           pg_catalog.format('rename or drop it: ALTER TABLE %s RENAME CONSTRAINT %I TO ...', back::pg_catalog.regclass, k.conname)
    FROM k
    JOIN pg_catalog.pg_constraint o ON o.conrelid = back AND o.contypid = 0 AND o.conname = k.conname
    WHERE (o.contype <> 'f' OR migrate_ext.fk_definition(o.oid) <> migrate_ext.fk_definition(fk))
      AND NOT (o.contype = 'f' AND migrate_ext.is_carried(front, back, 'foreign key', k.conname))
    UNION ALL
    SELECT pg_catalog.format('%s has foreign tables among its partitions, which can not have foreign keys', back::pg_catalog.regclass),
           'drop it before the swap'
    FROM k
    WHERE k.back_kind = 'p' AND EXISTS (
        WITH RECURSIVE tree AS (
            SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = back
            UNION ALL
            SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.inhrelid)
        SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.inhrelid WHERE c.relkind = 'f')
    UNION ALL
    SELECT 'is not enforced: its triggers are disabled',
           pg_catalog.format('drop it, or ALTER TABLE %s ENABLE TRIGGER ALL, and look for rows that break it', front::pg_catalog.regclass)
    FROM k
    WHERE EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgconstraint = fk AND t.tgrelid = front AND t.tgenabled = 'D')
    UNION ALL
    -- the owner made it once; now he makes it again
    SELECT pg_catalog.format('needs privilege REFERENCES on %s, which %s does not have any more', k.confrelid::pg_catalog.regclass, k.back_owner::pg_catalog.regrole),
           pg_catalog.format('GRANT REFERENCES ON %s TO %s', k.confrelid::pg_catalog.regclass, k.back_owner::pg_catalog.regrole)
    FROM k
    WHERE k.confrelid NOT IN (front, back)
      AND NOT (pg_catalog.has_schema_privilege(k.back_owner, k.schema, 'USAGE')
               AND (pg_catalog.has_table_privilege(k.back_owner, k.confrelid, 'REFERENCES')
                    OR (SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(k.back_owner, k.confrelid, c.num, 'REFERENCES'))
                        FROM pg_catalog.unnest(k.confkey) c (num))))
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_problems(oid, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_problems(oid, oid, oid) IS 'internal: why a foreign key can not be carried over';

-- Outgoing foreign keys of both tables that are the same.
CREATE FUNCTION migrate_ext.fk_out_pairs(front oid, back oid)
RETURNS TABLE (front_fk oid, back_fk oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT f.oid, b.oid
    FROM pg_catalog.pg_constraint f
    JOIN pg_catalog.pg_constraint b ON b.conrelid = back AND b.contype = 'f' AND b.conparentid = 0 AND b.conname = f.conname
    WHERE f.conrelid = front AND f.contype = 'f' AND f.conparentid = 0
      AND migrate_ext.fk_definition(f.oid) = migrate_ext.fk_definition(b.oid)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_pairs(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_pairs(oid, oid) IS 'internal: foreign keys that both tables have';

-- Keys on the back table that are ours and have no counterpart any more.
CREATE FUNCTION migrate_ext.fk_out_left_over(front oid, back oid)
RETURNS TABLE (fk oid, name text, referenced oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT b.oid, b.conname, b.confrelid
    FROM pg_catalog.pg_constraint b
    WHERE b.conrelid = back AND b.contype = 'f' AND b.conparentid = 0
      AND NOT EXISTS (SELECT FROM migrate_ext.fk_out_pairs(front, back) p WHERE p.back_fk = b.oid)
      AND migrate_ext.is_carried(front, back, 'foreign key', b.conname)
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_left_over(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_left_over(oid, oid) IS 'internal: foreign keys that were made by us and are to go';

-- Keys that the back table can have and lacks.  ahead: also where one that is left over has the name.
CREATE FUNCTION migrate_ext.fk_out_missing(front oid, back oid, ahead boolean)
RETURNS TABLE (fk oid, name text, referenced oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT f.oid, f.conname, f.confrelid
    FROM pg_catalog.pg_constraint f
    WHERE f.conrelid = front AND f.contype = 'f' AND f.conparentid = 0
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint b WHERE b.conrelid = back AND b.contypid = 0 AND b.conname = f.conname
                      AND NOT (ahead AND b.oid IN (SELECT l.fk FROM migrate_ext.fk_out_left_over(front, back) l)))
      AND NOT EXISTS (SELECT FROM migrate_ext.fk_out_problems(f.oid, front, back))
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_missing(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_missing(oid, oid, boolean) IS 'internal: foreign keys that are still to be made';

-- Their triggers that will sleep, for plan(): where they will be, and named like those of the
-- front's key, a '?' in the place of the number that is not known yet.
CREATE FUNCTION migrate_ext.fk_out_coming_triggers(front oid, back oid)
RETURNS TABLE (fk text, referenced oid, relation oid, name text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT k.name, k.referenced, CASE WHEN k.referenced = front THEN back ELSE t.relation END,
           pg_catalog.regexp_replace(t.name, '[0-9]+$', '?')
    FROM migrate_ext.fk_out_missing(front, back, true) k
    CROSS JOIN LATERAL migrate_ext.fk_out_triggers(k.fk) t
    WHERE k.referenced = front OR t.relation <> front
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_coming_triggers(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_coming_triggers(oid, oid) IS 'internal: triggers of foreign keys that are still to be made';

-- What is still to be done on the back table, in order.  ahead: also with the keys that will have
-- been made by then.
CREATE FUNCTION migrate_ext.fk_out_steps(front oid, back oid, ahead boolean)
RETURNS TABLE (step text, name text, referenced oid, relation oid, statement text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT s.step, s.name, s.referenced, s.relation, s.statement
    FROM (
        SELECT 1 AS place, 'drop' AS step, l.name, l.referenced, back AS relation,
               pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I', back::pg_catalog.regclass, l.name) AS statement
        FROM migrate_ext.fk_out_left_over(front, back) l
        UNION ALL
        SELECT 2, 'add', k.name, k.referenced, back,
               pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', back::pg_catalog.regclass, k.name, pg_catalog.pg_get_constraintdef(k.fk))
        FROM migrate_ext.fk_out_missing(front, back, ahead) k
        UNION ALL
        SELECT 2, 'disable', t.fk, t.referenced, t.relation,
               pg_catalog.format('ALTER TABLE ONLY %s %s', t.relation::pg_catalog.regclass,
                                 pg_catalog.string_agg(pg_catalog.format('DISABLE TRIGGER %I', t.name), ', '))
        FROM migrate_ext.fk_out_coming_triggers(front, back) t
        WHERE ahead
        GROUP BY t.fk, t.referenced, t.relation
        UNION ALL
        SELECT 3, 'disable', f.conname, f.confrelid, t.relation,
               pg_catalog.format('ALTER TABLE ONLY %s %s', t.relation::pg_catalog.regclass,
                                 pg_catalog.string_agg(pg_catalog.format('DISABLE TRIGGER %I', t.name), ', '))
        FROM migrate_ext.fk_out_pairs(front, back) p
        JOIN pg_catalog.pg_constraint f ON f.oid = p.front_fk
        CROSS JOIN LATERAL migrate_ext.fk_out_triggers(p.back_fk) t
        WHERE t.enabled <> 'D'
        GROUP BY f.oid, f.conname, f.confrelid, t.relation
        UNION ALL
        SELECT 4, 'validate', f.conname, f.confrelid, k.conrelid,
               pg_catalog.format('ALTER TABLE ONLY %s VALIDATE CONSTRAINT %I', k.conrelid::pg_catalog.regclass, c.conname)
        FROM migrate_ext.fk_out_pairs(front, back) p
        JOIN pg_catalog.pg_constraint f ON f.oid = p.front_fk
        CROSS JOIN LATERAL migrate_ext.fk_tree(p.back_fk) k
        JOIN pg_catalog.pg_constraint c ON c.oid = k.oid
        WHERE NOT k.convalidated
        UNION ALL
        SELECT 4, 'validate', k.name, k.referenced, c.oid,
               pg_catalog.format('ALTER TABLE ONLY %s VALIDATE CONSTRAINT %I', c.oid::pg_catalog.regclass, k.name)
        FROM migrate_ext.fk_out_missing(front, back, true) k
        CROSS JOIN LATERAL migrate_ext.partitions_of(back) l
        JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind = 'r'
        WHERE ahead) s
    ORDER BY s.place, s.name, s.step, s.relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_steps(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_steps(oid, oid, boolean) IS 'internal: what is still to be done so that a table has the foreign keys of the other';

-- Let the triggers of one table's foreign keys sleep and wake those of the other's: for each table
-- what follows its name in ALTER TABLE ONLY.  ahead: also with the keys that will have been made by then.
CREATE FUNCTION migrate_ext.fk_out_flip(asleep oid, awake oid, ahead boolean)
RETURNS TABLE (relation oid, change text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT t.relation, pg_catalog.string_agg(pg_catalog.format('%s TRIGGER %I', t.what, t.name), ', ')
    FROM (SELECT t.relation, t.name, 'DISABLE' AS what
          FROM migrate_ext.fk_out_pairs(asleep, awake) p CROSS JOIN LATERAL migrate_ext.fk_out_triggers(p.front_fk) t
          UNION ALL
          SELECT t.relation, t.name, 'ENABLE'
          FROM migrate_ext.fk_out_pairs(asleep, awake) p CROSS JOIN LATERAL migrate_ext.fk_out_triggers(p.back_fk) t
          UNION ALL
          SELECT t.relation, t.name, 'DISABLE'
          FROM migrate_ext.fk_out_missing(asleep, awake, true) k CROSS JOIN LATERAL migrate_ext.fk_out_triggers(k.fk) t
          WHERE ahead
          UNION ALL
          SELECT t.relation, t.name, 'ENABLE'
          FROM migrate_ext.fk_out_coming_triggers(asleep, awake) t
          WHERE ahead) t
    GROUP BY t.relation
    ORDER BY t.relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_flip(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_flip(oid, oid, boolean) IS 'internal: changes in a swap for the triggers of outgoing foreign keys';

-- Those that the original loses when it stays on its own, by name: before the swap those that will
-- sleep after it.  other, left: the table in use and the one that stays.
CREATE FUNCTION migrate_ext.fk_out_leaving(other oid, left_one oid, ahead boolean)
RETURNS TABLE (name text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT b.conname
    FROM pg_catalog.pg_constraint b
    WHERE b.conrelid = left_one AND b.contype = 'f' AND b.conparentid = 0
      AND CASE WHEN ahead THEN NOT EXISTS (SELECT FROM migrate_ext.fk_out_problems(b.oid, left_one, other))
               ELSE (EXISTS (SELECT FROM migrate_ext.fk_out_triggers(b.oid) t WHERE t.enabled = 'D')
                     OR migrate_ext.is_carried(other, left_one, 'foreign key', b.conname))
                    AND (migrate_ext.is_carried(other, left_one, 'foreign key', b.conname)
                         OR EXISTS (SELECT FROM migrate_ext.migration m WHERE m.source = left_one)) END
$$;
REVOKE ALL ON FUNCTION migrate_ext.fk_out_leaving(oid, oid, boolean) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.fk_out_leaving(oid, oid, boolean) IS 'internal: foreign keys that a table loses at the end of a migration';
