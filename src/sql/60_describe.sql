-- What a table is, and what hangs on it, as one value that can be compared:
-- describe(); and what differs between two of them: catalog_difference().
--
-- describe_parts() finds it, one row a thing: {kind: {name: description}}.  It
-- is also asked under a swap's locks (rehearse): every branch is a look-up by
-- index, and it is inlined into a statement whose plan is kept.  No OID and
-- nothing else that another object of the same name would not have; what
-- PostgreSQL keeps on a partitioned table's partitions (storage parameters,
-- replica identity, access method, tablespace) is read there.

CREATE FUNCTION migrate_ext.describe_grants(acl aclitem[], owner oid)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.jsonb_object_agg(g.grantee, g.privileges)
    FROM (SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee,
                 pg_catalog.jsonb_agg(p.privilege ORDER BY p.privilege COLLATE "C") AS privileges
          FROM pg_catalog.aclexplode(acl) a
          CROSS JOIN LATERAL (SELECT a.privilege_type || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
                                     || CASE WHEN a.grantor <> owner
                                             THEN ' BY ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantor)) ELSE '' END AS privilege) p
          GROUP BY 1) g
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_grants(aclitem[], oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_grants(aclitem[], oid) IS 'internal: privileges by grantee';

CREATE FUNCTION migrate_ext.describe_labels(class oid, object oid, part integer)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.jsonb_object_agg(l.provider, l.label)
    FROM pg_catalog.pg_seclabel l WHERE l.classoid = class AND l.objoid = object AND l.objsubid = part
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_labels(oid, oid, integer) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_labels(oid, oid, integer) IS 'internal: security labels of an object, by provider';

CREATE FUNCTION migrate_ext.describe_columns(relation oid)
RETURNS TABLE (name text, description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT a.attname::text, pg_catalog.jsonb_build_object(
               'position', pg_catalog.row_number() OVER (ORDER BY a.attnum),
               'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
               'collation', CASE WHEN a.attcollation <> t.typcollation
                                 THEN (SELECT pg_catalog.format('%I.%I', n.nspname, k.collname) FROM pg_catalog.pg_collation k
                                       JOIN pg_catalog.pg_namespace n ON n.oid = k.collnamespace WHERE k.oid = a.attcollation) END,
               'not_null', a.attnotnull,
               'default', CASE WHEN a.attgenerated = '' THEN e.expression END,
               'generated', CASE WHEN a.attgenerated <> '' THEN e.expression END,
               'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
               'storage', CASE a.attstorage WHEN 'p' THEN 'plain' WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END,
               'compression', CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
               'statistics', CASE WHEN a.attstattarget >= 0 THEN a.attstattarget END,
               -- pg_attver is no option: some builds of the server number each column there
               -- of a partitioned table n_distinct_inherited is what n_distinct is of another; the other one does nothing
               'options', (SELECT pg_catalog.jsonb_object_agg(CASE o.option_name WHEN 'n_distinct_inherited' THEN 'n_distinct' ELSE o.option_name END, o.option_value)
                           FROM pg_catalog.pg_options_to_table(a.attoptions) o
                           WHERE o.option_name NOT IN ('pg_attver', CASE c.relkind WHEN 'p' THEN 'n_distinct' ELSE 'n_distinct_inherited' END)),
               'grants', CASE WHEN a.attacl IS NOT NULL THEN migrate_ext.describe_grants(a.attacl, c.relowner) END,
               'labels', migrate_ext.describe_labels('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, a.attnum),
               'comment', pg_catalog.col_description(c.oid, a.attnum))
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    LEFT JOIN LATERAL (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS expression) e ON true
    WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_columns(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_columns(oid) IS 'internal: columns of a table or view';

CREATE FUNCTION migrate_ext.describe_indexes(relation oid)
RETURNS TABLE (name text, description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT c.relname::text, pg_catalog.jsonb_build_object(
               'method', am.amname, 'unique', i.indisunique, 'primary', i.indisprimary, 'exclusion', i.indisexclusion,
               'immediate', i.indimmediate, 'valid', i.indisvalid, 'clustered', i.indisclustered,
               'nulls_not_distinct', i.indnullsnotdistinct, 'keys', k.keys, 'include', k.include,
               'where', pg_catalog.pg_get_expr(i.indpred, i.indrelid),
               'options', (SELECT pg_catalog.jsonb_object_agg(o.option_name, o.option_value) FROM pg_catalog.pg_options_to_table(c.reloptions) o),
               'tablespace', (SELECT s.spcname FROM pg_catalog.pg_tablespace s WHERE s.oid = c.reltablespace),
               'statistics', (SELECT pg_catalog.jsonb_object_agg(a.attnum, a.attstattarget) FROM pg_catalog.pg_attribute a
                              WHERE a.attrelid = c.oid AND a.attstattarget >= 0),
               'extensions', (SELECT pg_catalog.jsonb_agg(x.extname ORDER BY x.extname) FROM pg_catalog.pg_depend d
                              JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
                              WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'x'
                                AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass),
               'comment', pg_catalog.obj_description(c.oid, 'pg_class'))
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_am am ON am.oid = c.relam
    CROSS JOIN LATERAL (
        SELECT pg_catalog.jsonb_agg(pg_catalog.concat_ws(' ', x.key,
                   CASE WHEN n.at <= i.indnkeyatts THEN
                       pg_catalog.concat_ws(' ',
                           (SELECT 'COLLATE ' || pg_catalog.quote_ident(l.collname) FROM pg_catalog.pg_collation l WHERE l.oid = i.indcollation[n.at - 1]),
                           (SELECT o.opcname FROM pg_catalog.pg_opclass o WHERE o.oid = i.indclass[n.at - 1]),
                           (SELECT a.attoptions::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = n.at),
                           CASE WHEN i.indoption[n.at - 1] & 1 <> 0 THEN 'DESC' END,
                           CASE WHEN i.indoption[n.at - 1] & 2 <> 0 THEN 'NULLS FIRST' END) END)
                   ORDER BY n.at) FILTER (WHERE n.at <= i.indnkeyatts) AS keys,
               pg_catalog.jsonb_agg(x.key ORDER BY n.at) FILTER (WHERE n.at > i.indnkeyatts) AS include
        FROM pg_catalog.generate_series(1, i.indnatts) n (at)
        CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_indexdef(i.indexrelid, n.at, false) AS key) x) k
    WHERE i.indrelid = relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_indexes(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_indexes(oid) IS 'internal: indexes of a table';

CREATE FUNCTION migrate_ext.describe_triggers(relation oid)
RETURNS TABLE (name text, description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT t.tgname::text, pg_catalog.jsonb_build_object(
               'definition', pg_catalog.pg_get_triggerdef(t.oid),
               'enabled', CASE t.tgenabled WHEN 'O' THEN 'origin' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' ELSE 'disabled' END,
               'comment', pg_catalog.obj_description(t.oid, 'pg_trigger'))
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    -- ours come and go with the migration
    WHERE t.tgrelid = relation AND NOT t.tgisinternal AND p.pronamespace <> 'migrate_ext'::pg_catalog.regnamespace
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_triggers(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_triggers(oid) IS 'internal: user triggers of a table or view';

CREATE FUNCTION migrate_ext.describe_rules(relation oid)
RETURNS TABLE (name text, description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT r.rulename::text, pg_catalog.jsonb_build_object(
               'definition', pg_catalog.pg_get_ruledef(r.oid),
               'enabled', CASE r.ev_enabled WHEN 'O' THEN 'origin' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' ELSE 'disabled' END,
               'comment', pg_catalog.obj_description(r.oid, 'pg_rewrite'))
    FROM pg_catalog.pg_rewrite r
    WHERE r.ev_class = relation AND r.rulename <> '_RETURN'
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_rules(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_rules(oid) IS 'internal: rules of a table or view';

-- What depends on a table, its columns, its row type or that one's array type.
CREATE FUNCTION migrate_ext.dependents_of(relation oid)
RETURNS TABLE (classid oid, objid oid, objsubid integer)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT d.classid, d.objid, d.objsubid
    FROM pg_catalog.pg_depend d
    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = relation
    UNION
    SELECT d.classid, d.objid, d.objsubid
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_type t ON t.oid = c.reltype
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN (t.oid, t.typarray)
    WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION migrate_ext.dependents_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.dependents_of(oid) IS 'internal: what depends on a table or its row type';

CREATE FUNCTION migrate_ext.describe_readers(relation oid)
RETURNS TABLE (kind text, name text, description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH RECURSIVE reader (relation) AS (
        SELECT r.ev_class
        FROM migrate_ext.dependents_of(relation) d
        JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
        WHERE r.ev_class <> relation
        UNION
        SELECT r.ev_class
        FROM reader b
        CROSS JOIN LATERAL migrate_ext.dependents_of(b.relation) d
        JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
        WHERE r.ev_class <> b.relation
    )
    -- views that read it, and those that read them
    SELECT 'views', pg_catalog.format('%I.%I', n.nspname, v.relname), pg_catalog.jsonb_build_object(
               'kind', CASE v.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END,
               'owner', pg_catalog.pg_get_userbyid(v.relowner),
               'definition', pg_catalog.pg_get_viewdef(v.oid),
               'options', (SELECT pg_catalog.jsonb_object_agg(o.option_name, o.option_value) FROM pg_catalog.pg_options_to_table(v.reloptions) o),
               'populated', CASE WHEN v.relkind = 'm' THEN v.relispopulated END,
               'tablespace', (SELECT s.spcname FROM pg_catalog.pg_tablespace s WHERE s.oid = v.reltablespace),
               'grants', migrate_ext.describe_grants(COALESCE(v.relacl, pg_catalog.acldefault('r', v.relowner)), v.relowner),
               'columns', (SELECT pg_catalog.jsonb_object_agg(x.name, x.description) FROM migrate_ext.describe_columns(v.oid) x),
               'indexes', (SELECT pg_catalog.jsonb_object_agg(x.name, x.description) FROM migrate_ext.describe_indexes(v.oid) x),
               'triggers', (SELECT pg_catalog.jsonb_object_agg(x.name, x.description) FROM migrate_ext.describe_triggers(v.oid) x),
               'rules', (SELECT pg_catalog.jsonb_object_agg(x.name, x.description) FROM migrate_ext.describe_rules(v.oid) x),
               'labels', migrate_ext.describe_labels('pg_catalog.pg_class'::pg_catalog.regclass, v.oid, 0),
               'comment', pg_catalog.obj_description(v.oid, 'pg_class'))
    FROM (SELECT DISTINCT b.relation FROM reader b) b
    JOIN pg_catalog.pg_class v ON v.oid = b.relation AND v.relkind IN ('v', 'm')
    JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace

    UNION ALL
    SELECT 'functions', p.oid::pg_catalog.regprocedure::text, pg_catalog.jsonb_build_object(
               'owner', pg_catalog.pg_get_userbyid(p.proowner),
               'definition', CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END,
               'grants', migrate_ext.describe_grants(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner),
               'labels', migrate_ext.describe_labels('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0),
               'comment', pg_catalog.obj_description(p.oid, 'pg_proc'))
    FROM (SELECT DISTINCT d.objid FROM migrate_ext.dependents_of(relation) d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass) d
    JOIN pg_catalog.pg_proc p ON p.oid = d.objid

    UNION ALL
    -- of a kind that has no place elsewhere: other tables' columns of the row type, rules, children
    SELECT 'others', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), pg_catalog.jsonb_build_object(
               'definition', pg_catalog.pg_get_ruledef(r.oid), 'comment', pg_catalog.obj_description(r.oid, 'pg_rewrite'))
    FROM migrate_ext.dependents_of(relation) d
    LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
    LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
    LEFT JOIN pg_catalog.pg_class rc ON rc.oid = r.ev_class
    LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef e ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND e.oid = d.objid
    LEFT JOIN pg_catalog.pg_type t ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.objid
    WHERE CASE WHEN c.oid = relation THEN false -- a column that another one, or the partition key, is made of
               WHEN c.oid IS NOT NULL AND d.objsubid = 0 THEN
                   c.relkind IN ('r', 'p', 'f') AND NOT (c.relispartition AND EXISTS (SELECT FROM pg_catalog.pg_inherits i
                                                                                      WHERE i.inhrelid = c.oid AND i.inhparent = relation))
               WHEN r.oid IS NOT NULL THEN r.ev_class <> relation AND rc.relkind NOT IN ('v', 'm')
               WHEN k.oid IS NOT NULL THEN k.conrelid <> relation AND k.contype <> 'f'
               WHEN e.oid IS NOT NULL THEN e.adrelid <> relation
               WHEN t.oid IS NOT NULL THEN NOT (t.typrelid = relation AND t.typtype = 'c' OR t.typcategory = 'A')
               ELSE d.classid NOT IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass,
                                      'pg_catalog.pg_policy'::pg_catalog.regclass, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass,
                                      'pg_catalog.pg_publication_rel'::pg_catalog.regclass) END
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_readers(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_readers(oid) IS 'internal: views, functions and whatever else depends on a table';

-- What stands in the table's own row, and in those of its partitions.
CREATE FUNCTION migrate_ext.describe_table(relation oid)
RETURNS TABLE (name text, description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH leaf AS MATERIALIZED (
        SELECT c.oid, c.relam, c.reltablespace, c.reloptions, c.relreplident, c.reltoastrelid, c.relpersistence
        FROM (SELECT relation AS oid UNION ALL SELECT p.relation FROM migrate_ext.partitions_of(relation) p) r
        JOIN pg_catalog.pg_class c ON c.oid = r.oid
        WHERE c.relkind <> 'p' AND (c.oid = relation OR c.relispartition)
    ), common AS (
        SELECT CASE WHEN pg_catalog.min(l.relam) = pg_catalog.max(l.relam)
                    THEN (SELECT a.amname FROM pg_catalog.pg_am a WHERE a.oid = pg_catalog.min(l.relam)) END AS access_method,
               CASE WHEN pg_catalog.min(l.reltablespace) = pg_catalog.max(l.reltablespace)
                    THEN (SELECT s.spcname FROM pg_catalog.pg_tablespace s WHERE s.oid = pg_catalog.min(l.reltablespace))
                    ELSE '(not the same for all partitions)' END AS tablespace,
               CASE WHEN pg_catalog.min(i.identity) = pg_catalog.max(i.identity) THEN pg_catalog.min(i.identity)
                    ELSE '(not the same for all partitions)' END AS replica_identity
        FROM leaf l
        CROSS JOIN LATERAL (
            SELECT CASE l.relreplident WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full'
                        -- a partition's index is known by the name of the one it is attached to
                        ELSE (SELECT 'index ' || c.relname FROM pg_catalog.pg_index i
                              LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = i.indexrelid
                              JOIN pg_catalog.pg_class c ON c.oid = COALESCE(h.inhparent, i.indexrelid)
                              WHERE i.indrelid = l.oid AND i.indisreplident) END COLLATE "C" AS identity) i
    )
    SELECT x.name, x.description
    FROM pg_catalog.pg_class c
    CROSS JOIN common l
    CROSS JOIN LATERAL (VALUES
        ('kind', pg_catalog.to_jsonb(CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                                         WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE c.relkind::text END)),
        ('owner', pg_catalog.to_jsonb(pg_catalog.pg_get_userbyid(c.relowner))),
        ('schema', (SELECT pg_catalog.to_jsonb(n.nspname) FROM pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace)),
        ('persistence', pg_catalog.to_jsonb(c.relpersistence)),
        ('of_type', CASE WHEN c.reloftype <> 0 THEN pg_catalog.to_jsonb(pg_catalog.format_type(c.reloftype, NULL)) END),
        ('access_method', pg_catalog.to_jsonb(l.access_method)),
        ('tablespace', pg_catalog.to_jsonb(l.tablespace)),
        ('replica_identity', pg_catalog.to_jsonb(l.replica_identity)),
        ('options', (SELECT pg_catalog.jsonb_object_agg(g.name, g.value)
                     FROM (SELECT o.name, o.value
                           FROM leaf l
                           CROSS JOIN LATERAL (
                               SELECT p.option_name AS name, p.option_value AS value FROM pg_catalog.pg_options_to_table(l.reloptions) p
                               UNION ALL
                               SELECT 'toast.' || p.option_name, p.option_value
                               FROM pg_catalog.pg_class t, pg_catalog.pg_options_to_table(t.reloptions) p WHERE t.oid = l.reltoastrelid) o
                           GROUP BY o.name, o.value
                           HAVING pg_catalog.count(*) = (SELECT pg_catalog.count(*) FROM leaf)) g)),
        ('row_security', CASE WHEN c.relrowsecurity OR c.relforcerowsecurity
                              THEN pg_catalog.jsonb_build_object('enabled', c.relrowsecurity, 'forced', c.relforcerowsecurity) END),
        ('grants', migrate_ext.describe_grants(COALESCE(c.relacl, pg_catalog.acldefault('r', c.relowner)), c.relowner)),
        ('labels', migrate_ext.describe_labels('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0)),
        ('extensions', (SELECT pg_catalog.jsonb_agg(e.extname ORDER BY e.extname)
                        FROM pg_catalog.pg_depend d
                        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                          AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype IN ('e', 'x'))),
        ('inherits', (SELECT pg_catalog.jsonb_agg(i.inhparent::pg_catalog.regclass::text ORDER BY i.inhseqno)
                      FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)),
        ('partition_bound', pg_catalog.to_jsonb(pg_catalog.pg_get_expr(c.relpartbound, c.oid))),
        -- with the columns of all levels: each unique key has them
        ('partition_key', CASE WHEN c.relkind = 'p' THEN pg_catalog.jsonb_build_object(
             'definition', pg_catalog.pg_get_partkeydef(c.oid),
             'columns', (SELECT pg_catalog.jsonb_agg(k.attname ORDER BY k.attname) FROM migrate_ext.key_columns_of(c.oid) k)) END),
        ('comment', pg_catalog.to_jsonb(pg_catalog.obj_description(c.oid, 'pg_class')))
    ) x (name, description)
    WHERE c.oid = relation AND x.description IS NOT NULL
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_table(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_table(oid) IS 'internal: what holds of a table as a whole';

CREATE FUNCTION migrate_ext.describe_parts(relation oid)
RETURNS TABLE (kind text, name text, description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT 'table', x.name, x.description FROM migrate_ext.describe_table(relation) x

    UNION ALL
    SELECT 'columns', x.name, x.description FROM migrate_ext.describe_columns(relation) x

    UNION ALL
    SELECT 'indexes', x.name, x.description FROM migrate_ext.describe_indexes(relation) x

    UNION ALL
    SELECT 'triggers', x.name, x.description FROM migrate_ext.describe_triggers(relation) x

    UNION ALL
    SELECT 'rules', x.name, x.description FROM migrate_ext.describe_rules(relation) x

    UNION ALL
    SELECT x.kind, x.name, x.description FROM migrate_ext.describe_readers(relation) x

    UNION ALL
    -- a key's columns by themselves, to be told from those that partitioning adds
    SELECT 'constraints', k.conname::text, pg_catalog.jsonb_build_object(
               'type', CASE k.contype WHEN 'c' THEN 'check' WHEN 'f' THEN 'foreign key' WHEN 'p' THEN 'primary key'
                                      WHEN 'u' THEN 'unique' ELSE 'exclusion' END,
               'columns', CASE WHEN k.contype IN ('p', 'u')
                               THEN (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY u.n)
                                     FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u (attnum, n)
                                     JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum) END,
               'definition', CASE WHEN k.contype NOT IN ('p', 'u') THEN pg_catalog.pg_get_constraintdef(k.oid) END,
               'valid', k.convalidated, 'deferrable', k.condeferrable, 'deferred', k.condeferred,
               'comment', pg_catalog.obj_description(k.oid, 'pg_constraint'))
    FROM pg_catalog.pg_constraint k
    -- of a NOT NULL, a constraint since 18, its column tells
    WHERE k.conrelid = relation AND k.contype NOT IN ('t', 'n')
      -- a key to the table itself has one to each partition below it
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.oid = k.conparentid AND o.conrelid = relation)

    UNION ALL
    SELECT 'incoming_foreign_keys', pg_catalog.format('%s %I', k.conrelid::pg_catalog.regclass, k.conname), pg_catalog.jsonb_build_object(
               'definition', pg_catalog.pg_get_constraintdef(k.oid),
               'references', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY u.n)
                              FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY u (attnum, n)
                              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum),
               'valid', k.convalidated,
               'comment', pg_catalog.obj_description(k.oid, 'pg_constraint'))
    FROM migrate_ext.dependents_of(relation) d -- pg_constraint has no index on confrelid
    JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid
    WHERE k.confrelid = relation AND k.contype = 'f' AND k.conparentid = 0 AND k.conrelid <> relation
      -- one that sleeps is there for a swap
      AND NOT EXISTS (SELECT FROM migrate_ext.fk_in_triggers(k.oid) t WHERE t.enabled = 'D')

    UNION ALL
    SELECT 'statistics', pg_catalog.format('%s.%I', s.stxnamespace::pg_catalog.regnamespace, s.stxname), pg_catalog.jsonb_build_object(
               'definition', pg_catalog.pg_get_statisticsobjdef(s.oid),
               'owner', pg_catalog.pg_get_userbyid(s.stxowner),
               'target', CASE WHEN s.stxstattarget >= 0 THEN s.stxstattarget END,
               'comment', pg_catalog.obj_description(s.oid, 'pg_statistic_ext'))
    FROM pg_catalog.pg_statistic_ext s
    WHERE s.stxrelid = relation

    UNION ALL
    SELECT 'policies', p.polname::text, pg_catalog.jsonb_build_object(
               'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
               'permissive', p.polpermissive,
               'roles', (SELECT pg_catalog.jsonb_agg(r.name ORDER BY r.name COLLATE "C")
                         FROM (SELECT CASE WHEN u.oid = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(u.oid)) END AS name
                               FROM pg_catalog.unnest(p.polroles) u (oid)) r),
               'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
               'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
               'comment', pg_catalog.obj_description(p.oid, 'pg_policy'))
    FROM pg_catalog.pg_policy p
    WHERE p.polrelid = relation

    UNION ALL
    SELECT 'publications', p.pubname::text, pg_catalog.jsonb_build_object(
               'publishes', CASE WHEN p.puballtables THEN 'all tables' WHEN r.oid IS NULL THEN 'the schema' ELSE 'the table' END,
               'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attname)
                           FROM pg_catalog.unnest(r.prattrs) u (attnum)
                           JOIN pg_catalog.pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = u.attnum),
               'where', pg_catalog.pg_get_expr(r.prqual, r.prrelid),
               'insert', p.pubinsert, 'update', p.pubupdate, 'delete', p.pubdelete, 'truncate', p.pubtruncate,
               'via_partition_root', p.pubviaroot)
    FROM pg_catalog.pg_publication p
    JOIN pg_catalog.pg_class c ON c.oid = relation
    LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
    WHERE r.oid IS NOT NULL OR p.puballtables
       OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace)

    UNION ALL
    SELECT 'subscriptions', s.subname::text, pg_catalog.jsonb_build_object('state', r.srsubstate, 'lsn', r.srsublsn)
    FROM pg_catalog.pg_subscription_rel r
    JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid
    WHERE r.srrelid = relation

    UNION ALL
    SELECT 'sequences', pg_catalog.format('%s.%I', c.relnamespace::pg_catalog.regnamespace, c.relname), pg_catalog.jsonb_build_object(
               'column', a.attname, 'of_identity', d.deptype = 'i',
               'owner', pg_catalog.pg_get_userbyid(c.relowner), 'persistence', c.relpersistence,
               'type', pg_catalog.format_type(q.seqtypid, NULL), 'start', q.seqstart, 'increment', q.seqincrement,
               'min', q.seqmin, 'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle,
               'last_value', pg_catalog.pg_sequence_last_value(c.oid),
               'grants', migrate_ext.describe_grants(COALESCE(c.relacl, pg_catalog.acldefault('s', c.relowner)), c.relowner),
               'labels', migrate_ext.describe_labels('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0),
               'comment', pg_catalog.obj_description(c.oid, 'pg_class'))
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
    JOIN pg_catalog.pg_sequence q ON q.seqrelid = c.oid
    JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = relation
      AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')

    UNION ALL
    SELECT 'partitions', c.oid::pg_catalog.regclass::text, pg_catalog.jsonb_build_object('bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid))
    FROM migrate_ext.partitions_of(relation) p
    JOIN pg_catalog.pg_class c ON c.oid = p.relation
    WHERE c.relispartition
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_parts(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_parts(oid) IS 'internal: a relation and all that hangs on it, a row a thing';

-- All of it as one value.  Where a definition names the table itself it says
-- <table>: of two tables that have exchanged their names, and of one under both
-- of its own, the texts are alike.  (As JSON text, where a quote is \".)
CREATE FUNCTION migrate_ext.describe_relation(relation oid)
RETURNS TABLE (description jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.regexp_replace(
               pg_catalog.regexp_replace(d.text, '(?<![\w$.])' || n.schema_name || '\.' || n.table_name || '(?![\w$])', '<table>', 'g'),
               '(?<![\w$.])' || n.table_name || '\.', '<table>.', 'g')::pg_catalog.jsonb
    FROM (SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_object_agg(k.kind, k.things))::text AS text
          FROM (SELECT p.kind, pg_catalog.jsonb_object_agg(p.name, p.description) AS things
                FROM migrate_ext.describe_parts(relation) p GROUP BY p.kind) k) d
    CROSS JOIN (SELECT pg_catalog.regexp_replace(pg_catalog.regexp_replace(pg_catalog.to_jsonb(pg_catalog.quote_ident(n.nspname))::text, '^"|"$', '', 'g'), '([^\w])', '\\\1', 'g') AS schema_name,
                       pg_catalog.regexp_replace(pg_catalog.regexp_replace(pg_catalog.to_jsonb(pg_catalog.quote_ident(c.relname))::text, '^"|"$', '', 'g'), '([^\w])', '\\\1', 'g') AS table_name
                FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation) n
$$;
REVOKE ALL ON FUNCTION migrate_ext.describe_relation(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.describe_relation(oid) IS 'internal: describe() without looking at who asks';

-- What partitioning itself changes, and catalog_difference() leaves out: nothing
-- else.  A list for people and for the function; the README has it with a
-- column a PostgreSQL major.  Rules: any, whatever it is; key, the partition
-- key's columns are added; needs, the thing can't be where these lack.
CREATE FUNCTION migrate_ext.partitioning_changes()
RETURNS TABLE (kind text, field text, rule text, reason text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    VALUES ('table', 'kind', 'any', 'a table is a partitioned table'),
           ('table', 'partition_key', 'any', 'and has a partition key'),
           ('partitions', NULL, 'any', 'and partitions'),
           ('constraints', 'columns', 'key', 'a primary key or unique constraint has the partition key''s columns added'),
           ('indexes', 'keys', 'key', 'and so has its index, and each unique one'),
           ('columns', 'not_null', 'key', 'columns so added to the primary key are NOT NULL'),
           ('incoming_foreign_keys', NULL, 'needs', 'none can point at a key that has become wider')
$$;
REVOKE ALL ON FUNCTION migrate_ext.partitioning_changes() FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.partitioning_changes() IS 'internal: what catalog_difference leaves out';

CREATE FUNCTION migrate_ext.catalog_difference_rows(a jsonb, b jsonb)
RETURNS TABLE (path text, a jsonb, b jsonb)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH RECURSIVE step (path, a, b) AS (
        SELECT '{}'::text[], $1, $2
        UNION ALL
        -- a kind of thing that one has none of is one without things
        SELECT s.path || k.name, n.a, n.b
        FROM step s
        CROSS JOIN LATERAL (SELECT pg_catalog.jsonb_object_keys(s.a) UNION SELECT pg_catalog.jsonb_object_keys(s.b)) k (name)
        CROSS JOIN LATERAL (SELECT s.a->k.name AS a, s.b->k.name AS b) v
        CROSS JOIN LATERAL (SELECT CASE WHEN s.path = '{}' THEN COALESCE(v.a, '{}') ELSE v.a END AS a,
                                   CASE WHEN s.path = '{}' THEN COALESCE(v.b, '{}') ELSE v.b END AS b) n
        WHERE pg_catalog.jsonb_typeof(s.a) = 'object' AND pg_catalog.jsonb_typeof(s.b) = 'object' AND n.a IS DISTINCT FROM n.b
    ), found AS (
        SELECT s.*,
               -- of the partition key's columns, only where one of them has one and the other none
               CASE WHEN $1 #> '{table,partition_key}' IS NULL THEN $2 #> '{table,partition_key,columns}'
                    WHEN $2 #> '{table,partition_key}' IS NULL THEN $1 #> '{table,partition_key,columns}' END AS key,
               CASE WHEN $1 #> '{table,partition_key}' IS NULL THEN s.a ELSE s.b END AS plain,
               CASE WHEN $1 #> '{table,partition_key}' IS NULL THEN s.b ELSE s.a END AS partitioned
        FROM step s
        WHERE NOT COALESCE(pg_catalog.jsonb_typeof(s.a) = 'object' AND pg_catalog.jsonb_typeof(s.b) = 'object', false)
    )
    SELECT pg_catalog.array_to_string(f.path, ' > '), f.a, f.b
    FROM found f
    WHERE NOT EXISTS (
        SELECT FROM migrate_ext.partitioning_changes() c
        WHERE f.key IS NOT NULL AND c.kind = f.path[1]
          AND (c.field IS NULL OR c.field = f.path[CASE WHEN c.kind = 'table' THEN 2 ELSE 3 END])
          AND CASE c.rule
              WHEN 'any' THEN true
              WHEN 'needs' THEN f.partitioned IS NULL AND NOT f.plain->'references' @> f.key
              ELSE CASE WHEN c.kind = 'columns' THEN f.key ? f.path[2] AND f.partitioned = 'true'
                        -- the old columns first, and after them none but the partition key's
                        ELSE (SELECT pg_catalog.bool_and(CASE WHEN n.at <= pg_catalog.jsonb_array_length(f.plain) THEN n.value = f.plain->>(n.at - 1)::integer
                                                              ELSE EXISTS (SELECT FROM pg_catalog.jsonb_array_elements_text(f.key) k (name)
                                                                           WHERE n.value = k.name OR pg_catalog.starts_with(n.value, pg_catalog.quote_ident(k.name) || ' ')) END)
                                     AND pg_catalog.count(*) > pg_catalog.jsonb_array_length(f.plain)
                              FROM pg_catalog.jsonb_array_elements_text(f.partitioned) WITH ORDINALITY n (value, at)) END
              END)
    ORDER BY f.path COLLATE "C"
$$;
REVOKE ALL ON FUNCTION migrate_ext.catalog_difference_rows(jsonb, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.catalog_difference_rows(jsonb, jsonb) IS 'internal: catalog_difference() of arguments that are there';

CREATE FUNCTION migrate_ext.describe(relation regclass) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_describe';
COMMENT ON FUNCTION migrate_ext.describe(regclass) IS
'a relation and all that hangs on it, without OIDs and with its own name as <table>: to be kept, and compared by catalog_difference; for its owner';

CREATE FUNCTION migrate_ext.catalog_difference(a jsonb, b jsonb)
RETURNS TABLE (path text, a jsonb, b jsonb)
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_catalog_difference';
COMMENT ON FUNCTION migrate_ext.catalog_difference(jsonb, jsonb) IS
'what differs between two results of describe, but for what partitioning itself changes';
