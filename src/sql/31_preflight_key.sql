-- What preflight() tells about keys: the partition key, which the unique keys of
-- the partitioned table must contain, and numbers that may outgrow a column.
--
-- None of this stops a swap.  All but the greatest values and the texts of
-- statements, which preflight_key.c brings, comes from the catalogs and from
-- statistics: no row of the user's is read here, and no expression evaluated.
-- Runs as superuser; it is called for those who have the rights of the owner.

-- The columns of a target's partition key, at any level.
CREATE FUNCTION migrate_ext.key_columns_of(root oid)
RETURNS TABLE (attname name)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT DISTINCT a.attname
    FROM pg_catalog.pg_partitioned_table p
    JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
    WHERE p.partrelid = root OR p.partrelid IN (SELECT relation FROM migrate_ext.partitions_of(root))
$$;
REVOKE ALL ON FUNCTION migrate_ext.key_columns_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.key_columns_of(oid) IS 'internal: columns of the partition key of a table and of those below it';

-- Unique keys of the source: their columns as people write them, the names of
-- those that are no expressions, and which names a row, as relinfo_identity()
-- finds it.  added is what the partitioned table needs beside them, or NULL.
CREATE FUNCTION migrate_ext.unique_keys_of(source oid, target oid)
RETURNS TABLE (index oid, columns text, attnames name[], plain boolean, names boolean, added text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT i.indexrelid, c.columns, c.attnames, pg_catalog.cardinality(c.attnames) = i.indnkeyatts,
           i.indisprimary AND i.indimmediate
           OR i.indisreplident AND NOT EXISTS (SELECT FROM pg_catalog.pg_index p
                                               WHERE p.indrelid = source AND p.indisprimary AND p.indimmediate),
           (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(k.attname), ', ' ORDER BY k.attname)
            FROM migrate_ext.key_columns_of(target) k WHERE k.attname <> ALL (c.attnames))
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL (
        -- an expression is the only thing here that waits for a lock
        SELECT pg_catalog.string_agg(CASE WHEN a.attname IS NOT NULL THEN pg_catalog.quote_ident(a.attname)
                                          ELSE pg_catalog.pg_get_indexdef(i.indexrelid, n, true) END, ', ' ORDER BY n) AS columns,
               COALESCE(pg_catalog.array_agg(a.attname ORDER BY a.attname) FILTER (WHERE a.attname IS NOT NULL), '{}') AS attnames
        FROM pg_catalog.generate_series(1, i.indnkeyatts) n
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND a.attnum > 0) c
    WHERE i.indrelid = source AND i.indisunique
$$;
REVOKE ALL ON FUNCTION migrate_ext.unique_keys_of(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.unique_keys_of(oid, oid) IS 'internal: unique keys of a source, and what the target needs beside them';

-- The highest value that a column of this type can have, NULL if it is no integer.
CREATE FUNCTION migrate_ext.integer_end(type oid)
RETURNS numeric
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT CASE COALESCE(NULLIF(t.typbasetype, 0), t.oid)
           WHEN 'pg_catalog.int2'::pg_catalog.regtype THEN 32767
           WHEN 'pg_catalog.int4'::pg_catalog.regtype THEN 2147483647
           WHEN 'pg_catalog.int8'::pg_catalog.regtype THEN 9223372036854775807 END
    FROM pg_catalog.pg_type t
    WHERE t.oid = type
$$;
REVOKE ALL ON FUNCTION migrate_ext.integer_end(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.integer_end(oid) IS 'internal: the highest value of an integer type';

-- How far the sequences have come that a column takes its values from: its own,
-- that of its default, and those of the columns that a foreign key points at.
CREATE FUNCTION migrate_ext.sequences_at(relation oid, attribute smallint)
RETURNS bigint
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH col AS (
        SELECT relation AS relid, attribute AS attnum
        UNION
        SELECT f.confrelid, f.confkey[n]
        FROM pg_catalog.pg_constraint f
        CROSS JOIN LATERAL pg_catalog.generate_subscripts(f.conkey, 1) n
        WHERE f.conrelid = relation AND f.contype = 'f' AND f.conkey[n] = attribute
    ), used AS (
        SELECT d.objid AS sequence
        FROM col
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = col.relid
                                   AND d.refobjsubid = col.attnum AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                   AND d.deptype IN ('a', 'i')
        UNION
        SELECT d.refobjid
        FROM col
        JOIN pg_catalog.pg_attrdef f ON f.adrelid = col.relid AND f.adnum = col.attnum
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
                                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    )
    -- not evaluated for an index, whatever the order of the joins
    SELECT pg_catalog.max(CASE WHEN c.relkind = 'S' THEN pg_catalog.pg_sequence_last_value(c.oid) END)
    FROM used JOIN pg_catalog.pg_class c ON c.oid = used.sequence
$$;
REVOKE ALL ON FUNCTION migrate_ext.sequences_at(oid, smallint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.sequences_at(oid, smallint) IS 'internal: the last value of the sequences that a column takes its values from';

-- Values that one of the two columns of a name can't hold.  seen: what is
-- known of the table's values beside its sequences, by column.
CREATE FUNCTION migrate_ext.preflight_ranges(migration_id bigint, seen jsonb)
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH col AS (
        SELECT m.source, m.target, m.state = 'swapped' AS swapped, s.attname,
               pg_catalog.format_type(s.atttypid, s.atttypmod) AS source_type,
               pg_catalog.format_type(t.atttypid, t.atttypmod) AS target_type,
               s.atttypid = t.atttypid AS same_type,
               s.atttypid IN ('pg_catalog.varchar'::pg_catalog.regtype, 'pg_catalog.bpchar'::pg_catalog.regtype)
               AND t.atttypid IN ('pg_catalog.varchar'::pg_catalog.regtype, 'pg_catalog.text'::pg_catalog.regtype) AS is_string,
               s.atttypmod AS source_mod, t.atttypmod AS target_mod,
               migrate_ext.integer_end(s.atttypid) AS source_end, migrate_ext.integer_end(t.atttypid) AS target_end,
               m.options->'columns' ? s.attname AS computed, m.options->'reverse_columns' ? s.attname AS given_back,
               -- the application's side: the target's, once it is there
               (SELECT pg_catalog.max(v) FROM (VALUES ((seen->>s.attname)::numeric),
                   (migrate_ext.sequences_at(m.source, s.attnum)), (migrate_ext.sequences_at(m.target, t.attnum))) x (v)) AS reached
        FROM migrate_ext.migration m
        JOIN pg_catalog.pg_attribute s ON s.attrelid = m.source AND s.attnum > 0 AND NOT s.attisdropped AND s.attgenerated = ''
        JOIN pg_catalog.pg_attribute t ON t.attrelid = m.target AND t.attname = s.attname AND NOT t.attisdropped AND t.attgenerated = ''
        WHERE m.id = migration_id AND m.state NOT IN ('completed', 'cancelled')
    ), told AS (
        SELECT c.*, LEAST(source_end, target_end) AS least_end,
               CASE WHEN reached IS NULL THEN ''
                    ELSE pg_catalog.format('; the greatest so far is %s, %s %% of that', reached,
                                           pg_catalog.trim_scale(pg_catalog.round(100 * reached / LEAST(source_end, target_end), 1))) END AS so_far,
               -- what the source can hold, the target can, as far as lengths tell
               (same_type AND source_type !~ '^numeric' OR is_string) AND (target_mod < 0 OR source_mod BETWEEN 0 AND target_mod) AS fits
        FROM col c
    )
    SELECT 'warning', 'column ' || pg_catalog.quote_ident(attname) || ' of ' || target::text,
           pg_catalog.format('is %s, and %s in the source: values beyond %s can not be carried over%s', target_type, source_type, least_end, so_far),
           'rows with such values stand in failed_rows and stop the swap: make the target with ' || source_type
    FROM told
    WHERE target_end < source_end AND NOT swapped AND NOT COALESCE(computed, false)

    UNION ALL
    SELECT CASE WHEN reached < least_end / 2 THEN 'info' ELSE 'warning' END, 'column ' || pg_catalog.quote_ident(attname) || ' of ' || source::text,
           pg_catalog.format('is %s, and %s in the target: values beyond %s that are written after the swap can not be carried back, and undo refuses while they are there%s',
                             source_type, target_type, least_end, so_far),
           'complete the migration or undo it before numbers come that far'
    FROM told
    WHERE source_end < target_end AND NOT COALESCE(given_back, false)

    UNION ALL
    -- the same on both sides
    SELECT 'warning', 'column ' || pg_catalog.quote_ident(attname) || ' of ' || CASE WHEN swapped THEN target ELSE source END::text,
           pg_catalog.format('is %s, which ends at %s%s', source_type, least_end, so_far),
           'the partitioned table has the same type: make a target of your own with bigint (create_migration) to have more room after the swap'
    FROM told
    WHERE source_end = target_end AND reached >= least_end * 0.8

    UNION ALL
    SELECT CASE WHEN fits THEN 'info' ELSE 'warning' END, 'column ' || pg_catalog.quote_ident(attname) || ' of ' || target::text,
           pg_catalog.format(CASE WHEN fits THEN 'is %s, and %s in the source: a value written after the swap that does not fit there is not carried back'
                                  ELSE 'is %s, and %s in the source: a value that only one of them can hold is not carried to the other' END,
                             target_type, source_type),
           'such rows stand in failed_rows: ' || CASE WHEN fits THEN 'they keep undo back' ELSE 'before the swap they stop it, after it they keep undo back' END
    FROM told
    WHERE (source_end IS NULL OR target_end IS NULL) AND (NOT same_type OR source_mod <> target_mod)
      AND NOT COALESCE(computed, false) AND NOT COALESCE(given_back, false)
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_ranges(bigint, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_ranges(bigint, jsonb) IS 'internal: values that a column of source or target can not hold';

-- INSERT ... ON CONFLICT that means something else, or nothing, after the swap.
-- statements: texts that the caller may see; functions are looked for here, all
-- of pg_proc once.  The texts are searched, not parsed: what is built from
-- pieces at run time isn't found, and what stands in a comment is.
CREATE FUNCTION migrate_ext.preflight_statements(migration_id bigint, statements text[])
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (
        SELECT * FROM migrate_ext.migration WHERE id = migration_id AND state NOT IN ('swapped', 'completed', 'cancelled')
    ), wider AS (
        SELECT u.*, con.conname
        FROM m
        CROSS JOIN LATERAL migrate_ext.unique_keys_of(m.source, m.target) u
        LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = u.index AND con.conrelid = m.source
        WHERE u.added IS NOT NULL
    ), texts AS (
        SELECT 'statement ' || pg_catalog.quote_literal(
                   CASE WHEN pg_catalog.length(q.line) > 120 THEN pg_catalog.left(q.line, 117) || '...' ELSE q.line END) AS object,
               s.query
        FROM pg_catalog.unnest(statements) s (query)
        CROSS JOIN LATERAL (SELECT pg_catalog.btrim(pg_catalog.regexp_replace(s.query, '\s+', ' ', 'g')) AS line) q
        UNION ALL
        SELECT pg_catalog.pg_describe_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0), p.prosrc
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'migrate_ext') AND p.prosrc ~* 'on\s+conflict'
    ), inserts AS (
        -- one statement has at most one ON CONFLICT; of a quoted name the case counts for more than it does here
        SELECT t.object, pg_catalog.btrim(COALESCE(i.match[1], '')) AS arbiter
        FROM m
        CROSS JOIN LATERAL (SELECT pg_catalog.regexp_replace(m.table_name, '([^\w])', '\\\1', 'g') AS name) e
        CROSS JOIN texts t
        CROSS JOIN LATERAL pg_catalog.regexp_matches(t.query,
            '\minsert\s+into\s+(?:(?:"[^"]*"|[\w$]+)\s*\.\s*)?(?:"' || e.name || '"|' || e.name || '(?![\w$"]))[^;]*\mon\s+conflict\M\s*(\([^()]*\)|on\s+constraint\s+(?:"[^"]*"|[\w$]+))?', 'gi') i (match)
    ), arbiters AS (
        SELECT DISTINCT i.object, i.arbiter,
               (SELECT pg_catalog.array_agg(x.name ORDER BY x.name COLLATE "C")
                FROM pg_catalog.regexp_split_to_table(pg_catalog.substr(i.arbiter, 2, GREATEST(pg_catalog.length(i.arbiter) - 2, 0)), ',') c (word)
                CROSS JOIN LATERAL (SELECT CASE WHEN c.word ~ '"' THEN pg_catalog.btrim(c.word, E' \n\r\t"')
                                                ELSE pg_catalog.lower(pg_catalog.btrim(c.word, E' \n\r\t')) END AS name) x
                WHERE i.arbiter LIKE '(%') AS columns,
               pg_catalog.btrim(pg_catalog.regexp_replace(i.arbiter, '^on\s+constraint\s+', '', 'i'), '"') AS constraint_name
        FROM inserts i
    )
    SELECT 'warning', a.object,
           pg_catalog.format('has ON CONFLICT %s, which fails after the swap with 42P10: there the key is (%s, %s)', a.arbiter, w.columns, w.added),
           pg_catalog.format('write ON CONFLICT (%s, %s); with a unique index of its own on these columns that works before the swap as well: make it before the migration is started', w.columns, w.added)
    FROM arbiters a
    JOIN wider w ON w.plain AND (SELECT pg_catalog.array_agg(x::text ORDER BY x::text COLLATE "C") FROM pg_catalog.unnest(w.attnames) x) = a.columns

    UNION ALL
    SELECT 'warning', a.object,
           pg_catalog.format('has ON CONFLICT%s, which after the swap no longer sees a row of another partition that has the same (%s)',
                             CASE WHEN a.arbiter = '' THEN ' without columns' ELSE ' ' || a.arbiter END, w.columns),
           CASE WHEN w.names THEN 'until migrate_ext.complete such an INSERT raises 23505, then the row stands twice'
                ELSE 'the row then stands twice, and keeps undo back' END
    FROM arbiters a
    JOIN wider w ON a.arbiter = '' OR a.columns IS NULL AND pg_catalog.lower(w.conname::text) = pg_catalog.lower(a.constraint_name)
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_statements(bigint, text[]) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_statements(bigint, text[]) IS 'internal: statements with ON CONFLICT on a key that gets wider';

CREATE FUNCTION migrate_ext.preflight_key_notes(migration_id bigint, seen jsonb, statements text[])
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (
        SELECT * FROM migrate_ext.migration WHERE id = migration_id
    )
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, u.index, 0),
           pg_catalog.format('is unique on (%s); on the partitioned table, only together with (%s): ON CONFLICT (%1$s) fails there with 42P10, and a value may stand in two partitions%3$s',
                             u.columns, u.added, CASE WHEN u.names THEN ' once the migration is completed' ELSE '' END),
           'look for ON CONFLICT in the application; '
               || CASE WHEN u.names THEN 'until migrate_ext.complete the original goes on refusing duplicates'
                       ELSE 'duplicates are not refused after the swap, but keep undo back while they are there' END
    FROM m
    CROSS JOIN LATERAL migrate_ext.unique_keys_of(m.source, m.target) u
    WHERE m.state <> 'completed' AND u.added IS NOT NULL

    UNION ALL
    -- what the fill trigger had to do, see fill_count.c
    SELECT CASE WHEN f.last IS NULL AND f.inserted > 0 THEN 'info' ELSE 'warning' END,
           'column ' || pg_catalog.quote_ident(a.attname) || ' of ' || m.source::text,
           CASE WHEN f.last IS NOT NULL AND f.filled = 0
                THEN pg_catalog.format('is left to the fill trigger by the application: rows whose number is not known, the last one at %s',
                                       pg_catalog.to_char(pg_catalog.to_timestamp(f.last), 'YYYY-MM-DD HH24:MI:SS'))
                WHEN f.last IS NOT NULL
                THEN pg_catalog.format('is left to the fill trigger by the application: %s about %s inserted, the last one at %s',
                                       CASE WHEN f.filled = 1 THEN '1 row of' ELSE f.filled || ' rows of' END, GREATEST(f.inserted, f.filled),
                                       pg_catalog.to_char(pg_catalog.to_timestamp(f.last), 'YYYY-MM-DD HH24:MI:SS'))
                WHEN f.inserted > 0
                THEN pg_catalog.format('was given by the application in each of about %s rows inserted', f.inserted)
                ELSE 'is filled by a trigger where the application does not give it; no INSERT has been counted yet' END
               || ' (since add_sharding_key, or the last reset of statistics)',
           CASE WHEN f.last IS NULL AND f.inserted > 0 THEN 'nothing'
                ELSE 'let the application give it before the swap: on a partitioned table no trigger can, as the row''s partition is chosen before, and such an INSERT fails'
                     || CASE WHEN f.last IS NOT NULL THEN '. The time of the last one must not change any more' ELSE '' END END
    FROM m
    JOIN migrate_ext.sharding_key k ON k.relation = m.source AND k.fill
    JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attnum = k.attnum AND NOT a.attisdropped
    JOIN migrate_ext.key_columns_of(m.target) key ON key.attname = a.attname
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = 'migrate_ext'::pg_catalog.regnamespace AND c.relname = 'fill_' || k.id AND c.relkind = 'S'
    CROSS JOIN LATERAL (
        SELECT COALESCE(pg_catalog.pg_stat_get_tuples_inserted(c.oid), 0) AS filled,
               -- a counter that somebody dropped has counted none of them
               CASE WHEN c.oid IS NOT NULL
                    THEN GREATEST(pg_catalog.pg_stat_get_tuples_inserted(m.source) - COALESCE(pg_catalog.pg_stat_get_tuples_returned(c.oid), 0), 0)
                    ELSE 0 END AS inserted,
               CASE WHEN c.oid IS NOT NULL THEN pg_catalog.pg_sequence_last_value(c.oid) END AS last) f
    WHERE m.state NOT IN ('swapped', 'completed', 'cancelled')

    UNION ALL
    -- foreign keys that point at the source and can't point at the target
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_constraint'::pg_catalog.regclass, f.fk, 0), p.problem,
           'it ' || CASE WHEN m.state = 'swapped' THEN 'stays' ELSE 'will stay' END
               || ' on the original, where reverse sync keeps it enforced until migrate_ext.complete, which refuses while it is there, or drops it by its option {"incoming_fks": "drop"}. Else: '
               || p.remedy
    FROM m
    CROSS JOIN LATERAL migrate_ext.fk_in_keys(m.source, m.target) f
    CROSS JOIN LATERAL migrate_ext.fk_in_problems(f.fk, m.source, m.target) p
    WHERE m.state NOT IN ('completed', 'cancelled') AND NOT (m.state = 'swapped' AND f.asleep)

    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, 0),
           pg_catalog.format('fires before a row is written, and its function names the partition key (%s): where it gives a row a key of another partition, the statement fails on the partitioned table', k.names),
           'let the application give the key'
    FROM m
    CROSS JOIN LATERAL migrate_ext.triggers_of(m.source) t
    JOIN pg_catalog.pg_trigger g ON g.oid = t.oid AND g.tgtype & 3 = 3 AND g.tgtype & 20 <> 0 -- BEFORE, ROW; INSERT or UPDATE
    JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
    CROSS JOIN LATERAL (
        SELECT pg_catalog.string_agg(pg_catalog.quote_ident(c.attname), ', ' ORDER BY c.attname) AS names
        FROM migrate_ext.key_columns_of(m.target) c
        WHERE ' ' || pg_catalog.regexp_replace(p.prosrc, '[^[:alnum:]_$]+', ' ', 'g') || ' '
              ~* (' ' || pg_catalog.regexp_replace(c.attname, '[^[:alnum:]_]+', ' ', 'g') || ' ')) k
    WHERE m.state NOT IN ('swapped', 'completed', 'cancelled') AND k.names IS NOT NULL

    UNION ALL
    SELECT * FROM migrate_ext.preflight_ranges(migration_id, seen)

    UNION ALL
    SELECT * FROM migrate_ext.preflight_statements(migration_id, statements)
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_key_notes(bigint, jsonb, text[]) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_key_notes(bigint, jsonb, text[]) IS 'internal: what will be noticed of keys at a swap';

CREATE FUNCTION migrate_ext.preflight(migration text)
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_preflight';
COMMENT ON FUNCTION migrate_ext.preflight(text) IS
'what stands in the way of the swap (severity error), what will surprise after it (warning), and what is good to know (info)';
