-- What stands in the way of a swap, and what will surprise.
--
-- preflight_errors() is also asked under the swap's lock: every branch is a
-- look-up by index, and it is one statement whose plan is kept.  "front" is the
-- table the application uses, "back" the one that takes over: source and target
-- before the swap, target and source (the original) before its undo.
--
-- Whatever depends on the front table in a way not known to be harmless is
-- listed, so that an object of a kind nobody thought of stops the swap instead
-- of being left behind.

CREATE FUNCTION migrate_ext.carry_problem(class oid, object oid, refclass oid, front oid, back oid) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_carry_problem';
REVOKE ALL ON FUNCTION migrate_ext.carry_problem(oid, oid, oid, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.carry_problem(oid, oid, oid, oid, oid) IS
    'internal: why an object that names the table can not follow it at a swap';

CREATE FUNCTION migrate_ext.preflight_errors(front oid, back oid)
RETURNS TABLE (object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    -- what depends on the table, its columns, its row type or that one's array type
    SELECT CASE WHEN rule.ev_class <> front
                THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, rule.ev_class, 0)
                ELSE pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) END,
           CASE WHEN carry.problem IS NOT NULL THEN carry.problem
                WHEN con.contype = 'f' THEN 'is of one of the two tables or their partitions, and points at the one that is swapped out'
                WHEN con.contype = 'x' THEN 'is not carried over to a partitioned table'
                WHEN d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND rel.relkind IN ('r', 'p', 'f') THEN 'inherits from the table'
                ELSE 'belongs to the table that is swapped out, and would stay there' END,
           CASE WHEN d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass
                THEN 'take the table out of the publication, and put the partitioned one in after the swap'
                WHEN con.contype = 'x' THEN 'drop the constraint'
                ELSE 'drop it before the swap, and make it again afterwards' END
    FROM (SELECT d.classid, d.objid, d.objsubid, d.refclassid
          FROM pg_catalog.pg_depend d
          WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = front
          UNION
          SELECT d.classid, d.objid, d.objsubid, d.refclassid
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_type t ON t.oid = c.reltype
          JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
                                     AND d.refobjid IN (t.oid, t.typarray)
          WHERE c.oid = front) d
    LEFT JOIN pg_catalog.pg_class rel ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND rel.oid = d.objid
    LEFT JOIN pg_catalog.pg_constraint con ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND con.oid = d.objid
    LEFT JOIN pg_catalog.pg_trigger trg ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND trg.oid = d.objid
    LEFT JOIN pg_catalog.pg_rewrite rule ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND rule.oid = d.objid
    LEFT JOIN pg_catalog.pg_attrdef def ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND def.oid = d.objid
    LEFT JOIN pg_catalog.pg_type typ ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND typ.oid = d.objid
    LEFT JOIN pg_catalog.pg_policy pol ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND pol.oid = d.objid
    -- what names the table or its row type follows it: '' if it does, NULL if it is no such thing
    CROSS JOIN LATERAL (SELECT CASE WHEN d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass OR rule.oid IS NOT NULL
                                         OR d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass OR pol.polrelid <> front
                                         OR def.adrelid <> front
                                         OR d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass OR con.contype = 'c' AND con.conrelid <> front
                                    THEN COALESCE(migrate_ext.carry_problem(d.classid, d.objid, d.refclassid, front, back), '') END) carry (problem)
    LEFT JOIN pg_catalog.pg_statistic_ext stx ON d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND stx.oid = d.objid
    WHERE CASE WHEN rel.oid = front THEN false -- a partition key's column belongs to its table
               WHEN carry.problem IS NOT NULL THEN carry.problem <> ''
               WHEN rel.oid IS NOT NULL AND d.objsubid = 0 THEN
                   -- its TOAST table, sequences, indexes and partitions
                   NOT (rel.relkind IN ('t', 'S')
                        OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid = rel.oid AND i.indrelid = front)
                        OR rel.relispartition AND EXISTS (SELECT FROM pg_catalog.pg_inherits i
                                                          WHERE i.inhrelid = rel.oid AND i.inhparent = front))
               -- foreign keys of the table and of others: see below
               WHEN con.oid IS NOT NULL THEN con.contype NOT IN ('c', 'p', 'u', 't', 'f', 'n')
                                             OR con.conrelid <> front AND CASE WHEN con.contype = 'f'
                                                                             THEN con.conparentid = 0 AND COALESCE(pg_catalog.pg_partition_root(con.conrelid), con.conrelid) IN (front, back)
                                                                             ELSE true END
               WHEN trg.oid IS NOT NULL THEN NOT trg.tgisinternal AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass -- else: see below
               WHEN def.oid IS NOT NULL OR pol.oid IS NOT NULL THEN false
               WHEN stx.oid IS NOT NULL THEN stx.stxrelid <> front
               WHEN typ.oid IS NOT NULL THEN NOT (typ.typrelid = front AND typ.typtype = 'c' OR typ.typcategory = 'A')
               ELSE true END

    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0), p.problem, p.remedy
    FROM pg_catalog.pg_constraint k
    CROSS JOIN LATERAL migrate_ext.fk_out_problems(k.oid, front, back) p
    WHERE k.conrelid = front AND k.contype = 'f' AND k.conparentid = 0

    UNION ALL
    -- what PostgreSQL has since 18, and what of it is not carried over; the catalogs of older ones lack these columns
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0),
           CASE WHEN (j.k->>'conperiod')::boolean THEN 'is a key over periods of time, which is not carried over'
                WHEN k.contype = 'f' THEN 'is not enforced, and such foreign keys are not carried over'
                ELSE 'is not validated, and the partitioned table has none or a valid one' END,
           CASE WHEN k.contype = 'n' THEN 'validate it' ELSE 'drop it before the swap, and make it again afterwards' END
    FROM pg_catalog.pg_constraint k
    CROSS JOIN LATERAL (SELECT pg_catalog.to_jsonb(k) AS k) j
    WHERE k.conrelid = front AND k.conparentid = 0
      AND ((j.k->>'conperiod')::boolean OR k.contype = 'f' AND NOT (j.k->>'conenforced')::boolean OR k.contype = 'n' AND NOT k.convalidated)

    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, front, a.attnum), 'is a virtual generated column, which is not carried over',
           'drop it, or make a stored one, or a view that computes it'
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = front AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = 'v'

    UNION ALL
    -- one that can't point at the partitioned table stays on the original, which reverse sync writes; the other way round it can't
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_constraint'::pg_catalog.regclass, f.fk, 0), p.problem,
           p.remedy || ', or call undo with option {"incoming_fks": "drop"}'
    FROM migrate_ext.migration m
    CROSS JOIN LATERAL migrate_ext.fk_in_keys(front, back) f
    CROSS JOIN LATERAL migrate_ext.fk_in_problems(f.fk, front, back) p
    WHERE m.source = back AND m.target = front AND m.state = 'swapped' AND NOT f.asleep
      AND (m.request->'options'->>'incoming_fks') IS DISTINCT FROM 'drop'

    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, 0), p.problem, p.remedy
    FROM migrate_ext.triggers_of(front) t
    CROSS JOIN LATERAL migrate_ext.trigger_problems(t.oid, front, back) p

    UNION ALL
    -- what names a column that the other table does not have
    SELECT 'privileges of ' || CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END
               || ' on column ' || pg_catalog.quote_ident(g.attname) || ' of '
               || pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, front, 0),
           pg_catalog.string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type) || ' would stay with the table that is swapped out: '
               || back::pg_catalog.regclass || ' has no such column',
           pg_catalog.format('REVOKE %s ON %s FROM %s',
                             pg_catalog.string_agg(pg_catalog.format('%s (%I)', g.privilege_type, g.attname), ', '),
                             front::pg_catalog.regclass,
                             CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END)
    FROM (SELECT att.attname, a.grantee, a.privilege_type
          FROM pg_catalog.pg_attribute att, pg_catalog.aclexplode(att.attacl) a
          WHERE att.attrelid = front AND att.attnum > 0 AND NOT att.attisdropped
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute o
                            WHERE o.attrelid = back AND o.attname = att.attname AND NOT o.attisdropped)) g
    GROUP BY g.grantee, g.attname

    UNION ALL
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0),
           'uses ' || pg_catalog.string_agg(DISTINCT pg_catalog.quote_ident(att.attname), ', ') || ', which '
               || back::pg_catalog.regclass || ' does not have',
           'drop it before the swap, or give that table the column'
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_attribute att ON att.attrelid = front AND att.attnum = d.refobjsubid
    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = front AND d.refobjsubid > 0
      AND (d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
           AND EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.oid = d.objid AND p.polrelid = front)
           OR d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute o
                      WHERE o.attrelid = back AND o.attname = att.attname AND NOT o.attisdropped)
    GROUP BY d.classid, d.objid

    UNION ALL
    -- what stands in the table's own row
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, front, 0), p.problem, p.remedy
    FROM pg_catalog.pg_class f
    JOIN pg_catalog.pg_class b ON b.oid = back
    CROSS JOIN LATERAL (VALUES
        (f.relkind = 'r' AND f.relreplident <> 'd' AND b.relreplident <> f.relreplident
         AND (f.relreplident = 'i' AND migrate_ext.replica_index(front, back) IS NULL
              OR EXISTS (SELECT FROM migrate_ext.migration m WHERE m.source = front AND m.target = back AND NOT m.made_target)),
         'has a replica identity that the partitioned table does not have',
         pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY ..., and each of its partitions', back::pg_catalog.regclass)),
        (f.relowner <> b.relowner, 'has another owner than ' || back::pg_catalog.regclass::text,
         pg_catalog.format('ALTER TABLE %s OWNER TO %s', back::pg_catalog.regclass, f.relowner::pg_catalog.regrole)),
        (f.relnamespace <> b.relnamespace, 'is in another schema than ' || back::pg_catalog.regclass::text,
         pg_catalog.format('ALTER TABLE %s SET SCHEMA %s', back::pg_catalog.regclass, f.relnamespace::pg_catalog.regnamespace))
    ) p (present, problem, remedy)
    WHERE f.oid = front AND p.present

    UNION ALL
    SELECT 'publication ' || pg_catalog.quote_ident(p.pubname),
           'publishes all tables, and so the original and the partitioned one both',
           'drop it before the swap, and make it again for the tables that subscribers have'
    FROM pg_catalog.pg_publication p
    WHERE p.puballtables

    UNION ALL
    SELECT 'publication ' || pg_catalog.quote_ident(p.pubname),
           'publishes all tables of the schema, and so the original and the partitioned one both',
           'take the schema out of it, and put in the tables that subscribers have'
    FROM pg_catalog.pg_class f
    JOIN pg_catalog.pg_publication_namespace pn ON pn.pnnspid = f.relnamespace
    JOIN pg_catalog.pg_publication p ON p.oid = pn.pnpubid
    WHERE f.oid = front

    UNION ALL
    -- by their own names subscribers don't know the partitions
    SELECT 'publication ' || pg_catalog.quote_ident(p.pubname), 'would publish the partitions by their own names',
           pg_catalog.format('ALTER PUBLICATION %I SET (publish_via_partition_root = true)', p.pubname)
    FROM pg_catalog.pg_publication_rel pr
    JOIN pg_catalog.pg_publication p ON p.oid = pr.prpubid AND NOT p.pubviaroot
    JOIN pg_catalog.pg_class b ON b.oid = back AND b.relkind = 'p'
    WHERE pr.prrelid = front

    UNION ALL
    SELECT 'publication ' || pg_catalog.quote_ident(p.pubname), 'publishes ' || back::pg_catalog.regclass || ' as well',
           pg_catalog.format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, back::pg_catalog.regclass)
    FROM pg_catalog.pg_publication_rel pr
    JOIN pg_catalog.pg_publication p ON p.oid = pr.prpubid
    JOIN pg_catalog.pg_publication_rel other ON other.prpubid = pr.prpubid AND other.prrelid = back
    WHERE pr.prrelid = front

    UNION ALL
    SELECT 'subscription ' || pg_catalog.quote_ident(s.subname), x.problem, x.remedy
    FROM pg_catalog.pg_subscription_rel sr
    JOIN pg_catalog.pg_subscription s ON s.oid = sr.srsubid
    CROSS JOIN LATERAL (VALUES
        (sr.srsubstate <> 'r', 'has not copied the table yet', 'wait until pg_subscription_rel.srsubstate is r'),
        (EXISTS (SELECT FROM pg_catalog.pg_subscription_rel other WHERE other.srsubid = sr.srsubid AND other.srrelid = back),
         'writes into ' || back::pg_catalog.regclass || ' as well',
         'take that table out of the publication, and refresh the subscription')
    ) x (present, problem, remedy)
    WHERE sr.srrelid = front AND x.present

    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, front, l.objsubid),
           'has a security label of provider ' || l.provider || ', and ' || back::pg_catalog.regclass || ' does not have the column',
           'remove the label, or give that table the column'
    FROM pg_catalog.pg_seclabel l
    JOIN pg_catalog.pg_attribute att ON att.attrelid = front AND att.attnum = l.objsubid
    WHERE l.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND l.objoid = front AND l.objsubid > 0
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute o
                      WHERE o.attrelid = back AND o.attname = att.attname AND NOT o.attisdropped)

    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid, 0),
           'is marked as the one to cluster by, which a partitioned table can not be',
           pg_catalog.format('ALTER TABLE %s SET WITHOUT CLUSTER', front::pg_catalog.regclass)
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = front AND i.indisclustered

    UNION ALL
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0),
           'belongs to ' || pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0),
           pg_catalog.format('ALTER EXTENSION %I DROP TABLE %s', e.extname, front::pg_catalog.regclass)
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = front AND d.deptype = 'e'

    UNION ALL
    SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, front, 0),
           'inherits from ' || i.inhparent::pg_catalog.regclass,
           pg_catalog.format('ALTER TABLE %s NO INHERIT %s', front::pg_catalog.regclass, i.inhparent::pg_catalog.regclass)
    FROM pg_catalog.pg_inherits i
    WHERE i.inhrelid = front

    UNION ALL
    SELECT 'table with OID ' || o.oid, 'has been dropped', 'CALL migrate_ext.cancel, or after a swap migrate_ext.complete'
    FROM (VALUES (front), (back)) o (oid)
    WHERE o.oid <> 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.oid)
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_errors(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_errors(oid, oid) IS 'internal: what stops a swap';

-- Partitions below a table, of all levels, without locking them.
CREATE FUNCTION migrate_ext.partitions_of(root oid)
RETURNS TABLE (relation oid)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH RECURSIVE tree AS (
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = root
        UNION ALL
        SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.inhrelid)
    SELECT inhrelid FROM tree
$$;
REVOKE ALL ON FUNCTION migrate_ext.partitions_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.partitions_of(oid) IS 'internal: all partitions below a table';

-- What does not stop a swap, but will be noticed.  More of it, about keys, is in
-- 31_preflight_key.sql.
CREATE FUNCTION migrate_ext.preflight_notes(migration_id bigint)
RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH m AS (
        SELECT * FROM migrate_ext.migration WHERE id = migration_id
    )
    SELECT 'error', 'failed_rows',
           pg_catalog.count(*) || CASE WHEN pg_catalog.count(*) = 1 THEN ' row' ELSE ' rows' END || ' could not be carried over',
           pg_catalog.format('see migrate_ext.failed_rows: put them right and call %s, which tries them again, or swap without them by its option accept_failed',
                             CASE WHEN pg_catalog.bool_or(f.reverse) THEN 'undo' ELSE 'finalize' END)
    FROM migrate_ext.failed_row f JOIN m ON m.id = f.migration AND f.reverse = (m.state = 'swapped')
    HAVING pg_catalog.count(*) > 0

    UNION ALL
    SELECT 'warning', 'failed_rows',
           pg_catalog.count(*) || CASE WHEN pg_catalog.count(*) = 1 THEN ' row is' ELSE ' rows are' END || ' in '
               || CASE WHEN f.reverse THEN m.target ELSE m.source END::text || ' only, as the last swap was told to accept',
           CASE WHEN f.reverse THEN 'finalize brings them back' ELSE 'undo brings them back' END
    FROM migrate_ext.failed_row f JOIN m ON m.id = f.migration AND f.reverse <> (m.state = 'swapped')
    GROUP BY f.reverse, m.source, m.target

    UNION ALL
    SELECT 'error', 'migration ' || pg_catalog.quote_ident(m.name), 'is paused' || COALESCE(': ' || m.pause_reason, ''),
           pg_catalog.format('SELECT migrate_ext.resume(%L)', m.name)
    FROM m
    WHERE m.paused

    UNION ALL
    SELECT 'error', 'migration ' || pg_catalog.quote_ident(m.name),
           pg_catalog.format('rows differ, as last compared: %s missing, %s extra, %s different', v.missing, v.extra, v.different)
               || CASE WHEN v.stale_key > 0
                       THEN pg_catalog.format(', %s with a key derived from what has changed since', v.stale_key) ELSE '' END,
           pg_catalog.format('migrate_ext.differences(%1$L) shows them, SELECT migrate_ext.repair(%1$L) puts them right', m.name)
    FROM m
    CROSS JOIN LATERAL (SELECT * FROM migrate_ext.verification v WHERE v.migration = m.id ORDER BY v.id DESC LIMIT 1) v
    WHERE v.missing + v.extra + v.different + v.stale_key > 0 AND v.verified_at > m.live_at

    UNION ALL
    SELECT 'warning', 'partition ' || p.partdefid::pg_catalog.regclass,
           CASE WHEN d.rows = 1 THEN '1 row stands' ELSE d.rows || ' rows stand' END || ' in the default partition',
           'nothing is lost: but no partition can be added for a range or a value of theirs while they stand there'
    FROM m
    JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = m.target
    CROSS JOIN LATERAL (SELECT migrate_ext.default_rows(m.id) AS rows) d
    WHERE p.partdefid <> 0 AND d.rows > 0

    UNION ALL
    SELECT 'warning', 'migration ' || pg_catalog.quote_ident(m.name),
           'can not be undone: options.columns computes ' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ')
               || ', and options.reverse_columns does not give it back',
           'make the migration anew with options.reverse_columns'
    FROM m
    CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(COALESCE(m.options->'columns', '{}')) c (name)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = c.name AND NOT a.attisdropped
    WHERE NOT COALESCE(m.options->'reverse_columns' ? c.name, false)
    GROUP BY m.name

    UNION ALL
    SELECT 'warning', 'column ' || pg_catalog.quote_ident(t.attname) || ' of ' || m.target::text,
           'has no counterpart in the source: what the application writes there after the swap is not carried back, and after an undo keeps finalize from swapping forth again',
           'none, if you may want to undo'
    FROM m
    JOIN pg_catalog.pg_attribute t ON t.attrelid = m.target AND t.attnum > 0 AND NOT t.attisdropped AND t.attgenerated = ''
    WHERE m.state NOT IN ('completed', 'cancelled')
      AND NOT COALESCE(m.options->'columns' ? t.attname, false)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute s
                      WHERE s.attrelid = m.source AND s.attname = t.attname AND NOT s.attisdropped)

    UNION ALL
    -- the list of columns as SELECT * gives it
    SELECT 'warning', m.target::text, 'has other columns than the source, or in another order',
           'prepared statements with SELECT * fail once after the swap with "cached plan must not change result type"'
    FROM m
    WHERE (SELECT pg_catalog.array_agg(a.attname || ' ' || a.atttypid || ' ' || a.atttypmod ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute a WHERE a.attrelid = m.source AND a.attnum > 0 AND NOT a.attisdropped)
       <> (SELECT pg_catalog.array_agg(a.attname || ' ' || a.atttypid || ' ' || a.atttypmod ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute a WHERE a.attrelid = m.target AND a.attnum > 0 AND NOT a.attisdropped)

    UNION ALL
    SELECT 'warning', 'prepared transaction ' || pg_catalog.quote_literal(p.gid),
           'holds a lock on ' || pg_catalog.string_agg(DISTINCT l.relation::pg_catalog.regclass::text, ', '),
           'finalize and undo wait until it is committed or rolled back'
    FROM m
    JOIN pg_catalog.pg_locks l ON l.relation IN (m.source, m.target) AND l.pid IS NULL
    JOIN pg_catalog.pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
    JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
    WHERE p.database = pg_catalog.current_database()
    GROUP BY p.gid

    UNION ALL
    SELECT 'warning', 'process ' || a.pid,
           pg_catalog.format('user %s, %s since %s, has a snapshot from before the table went live',
                             a.usename, a.state, pg_catalog.to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS')),
           'finalize and undo wait for the end of its transaction'
    FROM m
    JOIN pg_catalog.pg_stat_activity a ON a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
    WHERE m.state IN ('live', 'swapped') AND a.xact_start < m.live_at AND a.backend_type = 'client backend'
      AND pg_catalog.age(a.backend_xmin) >= pg_catalog.age(m.stable_xid::pg_catalog.xid)

    UNION ALL
    SELECT 'info', 'process ' || a.pid,
           pg_catalog.format('user %s, %s, is in a transaction since %s', a.usename, a.state,
                             pg_catalog.to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS')),
           'going live and the swap wait for transactions that are older than they are'
    FROM m
    JOIN pg_catalog.pg_stat_activity a ON a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
    WHERE m.state NOT IN ('live', 'swapped', 'completed', 'cancelled') AND a.backend_type = 'client backend'
      AND a.backend_xmin IS NOT NULL AND a.xact_start < pg_catalog.now() - INTERVAL '5 minutes'

    UNION ALL
    SELECT 'warning', 'replication slot ' || pg_catalog.quote_ident(s.slot_name),
           'holds a snapshot from before the table went live: a standby reads with it',
           'finalize and undo wait for it'
    FROM m
    JOIN pg_catalog.pg_replication_slots s ON s.xmin IS NOT NULL
    WHERE m.state IN ('live', 'swapped')
      AND pg_catalog.age(s.xmin) >= pg_catalog.age(m.stable_xid::pg_catalog.xid)

    UNION ALL
    -- a target of the user's own keeps what he granted on it; see carry_is_exact()
    SELECT 'warning', 'privileges of ' || CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END
               || ' on ' || g.target::pg_catalog.regclass,
           pg_catalog.string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type) || ' come into force with the swap: on '
               || g.source::pg_catalog.regclass || ' they are not granted',
           pg_catalog.format('REVOKE %s ON %s FROM %s', pg_catalog.string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type),
                             g.target::pg_catalog.regclass,
                             CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END)
    FROM (SELECT m.source, m.target, a.grantee, a.privilege_type
          FROM m
          JOIN pg_catalog.pg_class b ON b.oid = m.target
          CROSS JOIN LATERAL pg_catalog.aclexplode(b.relacl) a
          WHERE NOT m.made_target AND m.state NOT IN ('swapped', 'completed', 'cancelled') AND a.grantee <> b.relowner
            AND NOT EXISTS (SELECT FROM migrate_ext.event e WHERE e.migration = m.id AND e.kind = 'renamed')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_class f, pg_catalog.aclexplode(f.relacl) o
                            WHERE f.oid = m.source AND o.grantee = a.grantee AND o.privilege_type = a.privilege_type)) g
    GROUP BY g.source, g.target, g.grantee

    UNION ALL
    SELECT 'warning', 'privileges of ' || CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END
               || ' on partitions of ' || g.target::pg_catalog.regclass,
           pg_catalog.format('%s %s granted on %s: whoever names a partition meets neither the privileges nor the row-level security of the table',
                             pg_catalog.string_agg(DISTINCT g.privilege_type, ', '),
                             CASE WHEN pg_catalog.count(DISTINCT g.privilege_type) = 1 THEN 'is' ELSE 'are' END,
                             CASE WHEN pg_catalog.count(DISTINCT g.partition) = 1 THEN pg_catalog.min(g.partition::pg_catalog.regclass::text)
                                  ELSE pg_catalog.count(DISTINCT g.partition) || ' partitions' END),
           'REVOKE them, unless they are meant so'
    FROM (SELECT m.target, c.oid AS partition, a.grantee, a.privilege_type
          FROM m
          CROSS JOIN LATERAL migrate_ext.partitions_of(m.target) p
          JOIN pg_catalog.pg_class c ON c.oid = p.relation
          CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
          WHERE m.state NOT IN ('completed', 'cancelled') AND a.grantee <> c.relowner
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_class f, pg_catalog.aclexplode(f.relacl) o
                            WHERE f.oid = CASE WHEN m.state = 'swapped' THEN m.target ELSE m.source END
                              AND NOT f.relrowsecurity
                              AND o.grantee = a.grantee AND o.privilege_type = a.privilege_type)) g
    GROUP BY g.target, g.grantee

    UNION ALL
    SELECT 'warning', 'table ' || m.source, 'has storage parameters that not all partitions have: '
               || pg_catalog.string_agg(o.option, ', '),
           'ALTER TABLE ... SET on the partitions'
    FROM m
    JOIN pg_catalog.pg_class s ON s.oid = m.source
    CROSS JOIN LATERAL pg_catalog.unnest(s.reloptions) o (option)
    WHERE m.target IS NOT NULL AND NOT m.made_target AND m.state NOT IN ('completed', 'cancelled')
      AND EXISTS (SELECT FROM migrate_ext.partitions_of(m.target) p JOIN pg_catalog.pg_class c ON c.oid = p.relation
                  WHERE c.relkind = 'r' AND NOT o.option = ANY (COALESCE(c.reloptions, '{}')))
    GROUP BY m.source

    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_statistic_ext'::pg_catalog.regclass, x.oid, 0),
           'has expressions, and is not made on ' || m.target::text, 'make one there'
    FROM m
    JOIN pg_catalog.pg_statistic_ext x ON x.stxrelid = m.source AND x.stxexprs IS NOT NULL
    WHERE NOT m.made_target AND m.state NOT IN ('swapped', 'completed', 'cancelled')

    UNION ALL
    -- those of a target that we made are carried over
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0),
           'is not on ' || m.target::text || ', whose constraints are left as they are', 'add one of its name, where the application relies on it'
    FROM m
    JOIN pg_catalog.pg_constraint k ON k.conrelid = m.source AND k.contype = 'c'
    WHERE NOT m.made_target AND m.state NOT IN ('swapped', 'completed', 'cancelled')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conrelid = m.target AND o.contype = 'c' AND o.conname = k.conname)

    UNION ALL
    SELECT 'warning', 'column ' || pg_catalog.quote_ident(a.attname) || ' of ' || m.target::text,
           'takes its values from a sequence of its own, not from that of the source',
           'set it beyond the greatest value of the source by setval()'
    FROM m
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = m.target
                               AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
    JOIN pg_catalog.pg_class q ON q.oid = d.objid AND q.relkind = 'S'
    JOIN pg_catalog.pg_attribute a ON a.attrelid = m.target AND a.attnum = d.refobjsubid
    WHERE m.state NOT IN ('swapped', 'completed', 'cancelled')

    UNION ALL
    SELECT 'info', 'publication ' || pg_catalog.quote_ident(p.pubname),
           'goes on publishing ' || t.front::pg_catalog.regclass || ' by this name, from the table that takes over',
           'nothing, on subscribers neither; where their key lacks a column of the new one, they still find their rows'
    FROM (SELECT CASE WHEN m.state = 'swapped' THEN m.target ELSE m.source END AS front FROM m
          WHERE m.state NOT IN ('completed', 'cancelled')) t
    JOIN pg_catalog.pg_publication_rel pr ON pr.prrelid = t.front
    JOIN pg_catalog.pg_publication p ON p.oid = pr.prpubid

    UNION ALL
    -- what the publisher sends as a key is not known here: most likely that of the front table
    SELECT 'warning', 'subscription ' || pg_catalog.quote_ident(s.subname),
           'must get ' || k.columns || ', part of the new key, with each UPDATE and DELETE, or it stops at the first one',
           'on the publisher: ALTER TABLE ... REPLICA IDENTITY FULL, before the swap'
    FROM (SELECT CASE WHEN m.state = 'swapped' THEN m.target ELSE m.source END AS front,
                 CASE WHEN m.state = 'swapped' THEN m.source ELSE m.target END AS back
          FROM m WHERE m.state NOT IN ('completed', 'cancelled')) t
    JOIN pg_catalog.pg_subscription_rel sr ON sr.srrelid = t.front
    JOIN pg_catalog.pg_subscription s ON s.oid = sr.srsubid
    CROSS JOIN LATERAL (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
                        FROM pg_catalog.pg_partitioned_table pt
                        JOIN pg_catalog.pg_attribute a ON a.attrelid = t.back AND a.attnum = ANY (pt.partattrs)
                        WHERE pt.partrelid = t.back
                          AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                                          JOIN pg_catalog.pg_attribute f ON f.attrelid = t.front AND f.attnum = ANY (i.indkey)
                                          WHERE i.indrelid = t.front AND i.indisprimary AND f.attname = a.attname)) k
    WHERE k.columns IS NOT NULL

    UNION ALL
    SELECT 'info', pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class, 0),
           'reads ' || m.target || ', which becomes the table that the application uses', 'nothing'
    FROM m
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = m.target
                               AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    WHERE r.ev_class <> m.target AND m.state NOT IN ('swapped', 'completed', 'cancelled')
    GROUP BY r.ev_class, m.target
$$;
REVOKE ALL ON FUNCTION migrate_ext.preflight_notes(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.preflight_notes(bigint) IS 'internal: what will be noticed at a swap';
