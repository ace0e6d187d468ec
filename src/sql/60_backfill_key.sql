-- The sharding key in place: filled row by row, enforced.

CREATE FUNCTION migrate_ext.backfill_key(
    source      regclass,
    column_name text,
    options     jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_backfill_key';
COMMENT ON FUNCTION migrate_ext.backfill_key(regclass, text, jsonb) IS
'begins a migration of kind key: UPDATEs, in short transactions, the rows whose column is NULL with the value given to add_sharding_key. options.on_null_key: error or skip. Returns the migration''s name';

CREATE PROCEDURE migrate_ext.enforce_key(source regclass, column_name text)
LANGUAGE c
AS 'MODULE_PATHNAME', 'migrate_ext_enforce_key';
COMMENT ON PROCEDURE migrate_ext.enforce_key(regclass, text) IS
'makes a column NOT NULL without a long lock: by a check constraint, validated while the table is written';

-- What stops the end of a migration of kind key, and what will be noticed.
CREATE FUNCTION migrate_ext.preflight_key(migration_id bigint)
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (
        SELECT * FROM migrate_ext.migration WHERE id = migration_id AND state NOT IN ('completed', 'cancelled')
    )
    SELECT 'error', 'failed_rows',
           pg_catalog.count(*) || CASE WHEN pg_catalog.count(*) = 1 THEN ' row' ELSE ' rows' END || ' could not be filled',
           'see migrate_ext.failed_rows: mend them and call finalize, which tries them again, or call it with option accept_failed'
    FROM migrate_ext.failed_row f JOIN m ON m.id = f.migration
    HAVING pg_catalog.count(*) > 0

    UNION ALL
    SELECT 'error', 'migration ' || pg_catalog.quote_ident(m.name), 'is paused' || COALESCE(': ' || m.pause_reason, ''),
           pg_catalog.format('SELECT migrate_ext.resume(%L)', m.name)
    FROM m
    WHERE m.paused

    UNION ALL
    SELECT 'error', 'table with OID ' || m.source::oid, 'has been dropped', pg_catalog.format('CALL migrate_ext.cancel(%L)', m.name)
    FROM m
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = m.source)

    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, 0),
           'fires for every row that is filled, as the table''s owner',
           'disable it meanwhile, if it must not'
    FROM m
    JOIN pg_catalog.pg_trigger t ON t.tgrelid = m.source
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = m.definition->>'column' AND NOT a.attisdropped
    -- of UPDATE (16), of this column or any; ours are meant to
    WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & 16 <> 0
      AND (t.tgattr = ''::pg_catalog.int2vector OR a.attnum = ANY (t.tgattr::pg_catalog.int2[]))
      AND p.pronamespace <> 'migrate_ext'::pg_catalog.regnamespace

    UNION ALL
    SELECT 'warning', 'column ' || pg_catalog.quote_ident(m.definition->>'column') || ' of ' || m.source::text,
           'is not filled by a trigger: rows that the application writes without it go on lacking it',
           'let the application give it, and CALL migrate_ext.enforce_key when all rows have it'
    FROM m
    JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = m.definition->>'column' AND NOT a.attisdropped
    JOIN migrate_ext.sharding_key k ON k.relation = m.source AND k.attnum = a.attnum AND NOT k.fill

    UNION ALL
    SELECT 'info', 'migration ' || pg_catalog.quote_ident(o.name),
           'carries over every row that is filled', 'nothing'
    FROM m
    JOIN migrate_ext.migration o ON o.source = m.source AND o.kind = 'partition'
                                AND o.state IN ('logging', 'copying', 'indexing', 'catching_up', 'live')
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_key(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_key(bigint) IS 'internal: preflight of a migration of kind key';
