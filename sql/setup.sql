-- What the other tests stand on. Each of them drops what it makes, so that any can be run alone
-- after this one.
CREATE EXTENSION migrate_ext;
SELECT extname, extversion, nspname AS schema
FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'migrate_ext';

CREATE EXTENSION amcheck;
CREATE SCHEMA helper;
GRANT USAGE ON SCHEMA helper TO PUBLIC;

-- What \d shows, without the triggers' arguments: those are numbers of migrations.
CREATE FUNCTION helper.describe(name regclass) RETURNS TABLE (what text, definition text)
LANGUAGE sql AS $$
    (SELECT 'column', concat_ws(' ', quote_ident(attname), format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
                                CASE WHEN attgenerated <> '' THEN 'GENERATED' END, pg_get_expr(adbin, adrelid),
                                CASE attidentity WHEN 'a' THEN 'ALWAYS AS IDENTITY' WHEN 'd' THEN 'BY DEFAULT AS IDENTITY' END)
     FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE attrelid = name AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
    UNION ALL
    (SELECT 'index', pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = name ORDER BY 2)
    UNION ALL
    (SELECT 'constraint', format('%I %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = name AND contype <> 'n' ORDER BY 2)
    UNION ALL
    (SELECT 'trigger', format('%I %s %s', tgname, tgfoid::regproc, tgenabled) FROM pg_trigger WHERE tgrelid = name ORDER BY 2)
$$;

-- Everything that is wrong between the two tables of a migration: rows that only one of them has
-- (as text, so 1.0 is not 1.00), rows in a partition that is not theirs, values of a unique key
-- that stand there twice, indexes that lack a row.
CREATE FUNCTION helper.check(migration text) RETURNS TABLE (rows bigint, wrong text)
LANGUAGE plpgsql
-- every row is looked at
SET enable_indexscan = off SET enable_bitmapscan = off SET enable_indexonlyscan = off
AS $$
DECLARE
    m record;
    columns text;
    i record;
    found bigint;
BEGIN
    SELECT source, target INTO STRICT m FROM migrate_ext.migrations v WHERE v.migration = $1;
    SELECT string_agg(format('%I::text', attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute WHERE attrelid = m.source AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('SELECT count(*) FROM %s', m.source) INTO rows;
    FOR wrong IN EXECUTE format(
        'SELECT ''only in the source: '' || left(r, 200) FROM (SELECT ROW(%1$s)::text AS r FROM %2$s EXCEPT ALL SELECT ROW(%1$s)::text FROM %3$s) d
         UNION ALL
         SELECT ''only in the target: '' || left(r, 200) FROM (SELECT ROW(%1$s)::text AS r FROM %3$s EXCEPT ALL SELECT ROW(%1$s)::text FROM %2$s) d
         ORDER BY 1 LIMIT 20', columns, m.source, m.target)
    LOOP
        RETURN NEXT;
    END LOOP;
    FOR i IN SELECT relid, pg_get_partition_constraintdef(relid) AS bound FROM pg_partition_tree(m.target) WHERE isleaf ORDER BY relid::text
    LOOP
        CONTINUE WHEN i.bound IS NULL;
        EXECUTE format('SELECT count(*) FROM %s WHERE NOT (%s)', i.relid::regclass, i.bound) INTO found;
        CONTINUE WHEN found = 0;
        wrong := format('%s rows are in partition %s and do not belong there', found, i.relid::regclass);
        RETURN NEXT;
    END LOOP;
    FOR i IN
        SELECT x.indexrelid::regclass AS index, x.indrelid::regclass AS relation, x.indisunique,
               COALESCE(pg_get_expr(x.indpred, x.indrelid), 'true') AS predicate,
               k.columns, k.not_null, a.amname
        FROM (SELECT m.source::oid AS relid UNION ALL SELECT relid FROM pg_partition_tree(m.target) WHERE isleaf) t
        JOIN pg_index x ON x.indrelid = t.relid
        JOIN pg_class c ON c.oid = x.indexrelid
        JOIN pg_am a ON a.oid = c.relam
        CROSS JOIN LATERAL (SELECT string_agg(pg_get_indexdef(x.indexrelid, n, true), ', ') AS columns,
                                   string_agg(pg_get_indexdef(x.indexrelid, n, true) || ' IS NOT NULL', ' AND ') AS not_null
                            FROM generate_series(1, x.indnkeyatts) n) k
        ORDER BY x.indexrelid::regclass::text
    LOOP
        IF i.amname = 'btree' THEN
            BEGIN
                PERFORM bt_index_check(i.index, true);
            EXCEPTION WHEN index_corrupted THEN
                wrong := format('index %s: %s', i.index, SQLERRM);
                RETURN NEXT;
            END;
        END IF;
        IF i.indisunique THEN
            EXECUTE format('SELECT count(*) FROM (SELECT FROM %s WHERE (%s) AND %s GROUP BY %s HAVING count(*) > 1) d',
                           i.relation, i.predicate, i.not_null, i.columns) INTO found;
            IF found > 0 THEN
                wrong := format('unique index %s: %s values are there more than once', i.index, found);
                RETURN NEXT;
            END IF;
        END IF;
    END LOOP;
    wrong := 'nothing';
    RETURN NEXT;
END
$$;

-- A whole life in one session. The statements are executed in state logging (and the rows copied
-- then), live, swapped, live after an undo, and swapped again; $stage in them is a number from 1 to 5.
-- Says what is wrong before and after them, and in the end how many rows they touched in each stage
-- and how many there are.
CREATE PROCEDURE helper.live_through(migration text, VARIADIC statements text[])
LANGUAGE plpgsql AS $$
DECLARE
    stages CONSTANT text[] := '{logging,live,swapped,undone,swapped again}';
    statement text;
    touched bigint;
    counts bigint[];
    summary text[];
    rows bigint;
BEGIN
    FOR stage IN 1 .. 5 LOOP
        CASE stage
            WHEN 1 THEN CALL migrate_ext.run(migration, 'logging');
            WHEN 2 THEN CALL migrate_ext.run(migration);
            WHEN 4 THEN CALL migrate_ext.undo(migration);
            ELSE CALL migrate_ext.finalize(migration);
        END CASE;
        rows := helper.complain(migration, 'before ' || stages[stage]);
        counts := '{}';
        FOREACH statement IN ARRAY statements LOOP
            EXECUTE replace(statement, '$stage', stage::text);
            GET DIAGNOSTICS touched = ROW_COUNT;
            counts := counts || touched;
        END LOOP;
        COMMIT;
        rows := helper.complain(migration, stages[stage]);
        summary := summary || format('%s %s', stages[stage], counts);
    END LOOP;
    RAISE INFO '%: %; % rows', migration, array_to_string(summary, ', '), rows;
END
$$;

-- Says what is wrong and returns the number of rows. While changes are only logged there is nothing to compare.
CREATE FUNCTION helper.complain(migration text, stage text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    result record;
BEGIN
    IF stage LIKE '%logging' THEN
        RETURN 0;
    END IF;
    FOR result IN SELECT * FROM helper.check(migration) LOOP
        IF result.wrong <> 'nothing' THEN
            RAISE INFO '%: WRONG, %: %', migration, stage, result.wrong;
        END IF;
    END LOOP;
    RETURN result.rows;
END
$$;

-- Poll until a query gives true.
CREATE FUNCTION helper.wait_until(query text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    reached boolean;
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXECUTE query INTO reached;
        IF reached THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RAISE 'not within 30 seconds: %', query;
END
$$;

-- SQLSTATE, message, detail and hint of what a query raises, with a # for whatever matches "hide": figures of the
-- server's own.
CREATE FUNCTION helper.try(query text, hide text DEFAULT '$^') RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE query;
    RAISE assert_failure USING MESSAGE = 'no error: ' || query;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN NEXT sqlstate || ': ' || message;
    IF detail <> '' THEN RETURN NEXT 'detail: ' || regexp_replace(detail, hide, '#', 'g'); END IF;
    IF hint <> '' THEN RETURN NEXT 'hint: ' || regexp_replace(hint, hide, '#', 'g'); END IF;
END
$$;

-- The numbers of a migration's last verification.
CREATE FUNCTION helper.verified(migration text, OUT checked_rows bigint, OUT missing bigint, OUT extra bigint,
    OUT different bigint, OUT skipped bigint, OUT failed bigint, OUT stale_key bigint)
LANGUAGE sql AS $$
    SELECT v.checked_rows, v.missing, v.extra, v.different, v.skipped, v.failed, v.stale_key
    FROM migrate_ext.verifications v WHERE v.migration = $1 ORDER BY v.verified_at DESC LIMIT 1
$$;
