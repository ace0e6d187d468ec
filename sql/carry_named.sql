-- What names the table in a stored query, or is of its row type, follows it at a swap and back again,
-- and stays what it is: OID, owner, privileges, comment, options.
SET client_min_messages = warning;
CREATE ROLE named_owner;
CREATE ROLE named_reader;
CREATE SCHEMA "Odd ""schema";
GRANT USAGE, CREATE ON SCHEMA public, "Odd ""schema" TO named_owner;
GRANT USAGE ON SCHEMA "Odd ""schema" TO named_reader;
SET search_path = public, pg_temp;

-- a column dropped before the migration: the numbers of columns differ between both tables
CREATE TABLE named (gone text, id integer PRIMARY KEY, "Odd ""col" text, gone_too integer, k integer NOT NULL, unused text);
CREATE TABLE other (id integer PRIMARY KEY, note text);
-- a join lists what is dropped only later
CREATE VIEW joined AS SELECT n.id, "Odd ""col", o.note FROM named n LEFT JOIN other o USING (id);
CREATE VIEW joined_twice AS SELECT j.id, j.a, j.b FROM (named n JOIN other o USING (id)) AS j (id, x, a, y, z, w, b) JOIN named m USING (id);
ALTER TABLE named DROP COLUMN gone, DROP COLUMN gone_too;
INSERT INTO named SELECT i, 'v' || i, i % 3, 'u' FROM generate_series(1, 9) i;
INSERT INTO other SELECT i, 'note ' || i FROM generate_series(1, 9) i;

CREATE VIEW "Odd ""schema"."Odd ""view" WITH (security_barrier, security_invoker = false, check_option = local) AS
    SELECT id, "Odd ""col" AS "V", k FROM named WHERE k < 5;
ALTER VIEW "Odd ""schema"."Odd ""view" ALTER COLUMN k SET DEFAULT 2;
ALTER VIEW "Odd ""schema"."Odd ""view" OWNER TO named_owner;
COMMENT ON VIEW "Odd ""schema"."Odd ""view" IS 'a comment';
COMMENT ON COLUMN "Odd ""schema"."Odd ""view"."V" IS 'on a column';
GRANT SELECT, INSERT, UPDATE, DELETE ON named TO named_owner;
GRANT SELECT (id, "V"), INSERT (id, "V") ON "Odd ""schema"."Odd ""view" TO named_reader;
CREATE VIEW on_view AS SELECT id, "V" FROM "Odd ""schema"."Odd ""view";
CREATE RECURSIVE VIEW walk_down (id) AS SELECT id FROM named WHERE id = 9 UNION ALL SELECT n.id FROM walk_down w JOIN named n ON n.id = w.id - 1;
CREATE VIEW whole AS SELECT n, n.id FROM named n;
CREATE VIEW renamed AS SELECT a, c FROM named AS t (a, b, c);
CREATE VIEW nested AS
    WITH c AS (SELECT id, k FROM named) SELECT id, (SELECT count(*) FROM named x WHERE x.k = c.k AND x.unused IS NOT NULL) AS same, 'named'::regclass AS which FROM c
    UNION ALL SELECT max(id), 0, NULL FROM named GROUP BY unused HAVING count(*) > 100;
CREATE VIEW through_rules AS SELECT id, k FROM named;
CREATE RULE ins AS ON INSERT TO through_rules DO INSTEAD INSERT INTO named (id, "Odd ""col", k, unused) VALUES (NEW.id, 'by rule', NEW.k, 'u') RETURNING id, k;
CREATE RULE upd AS ON UPDATE TO through_rules WHERE OLD.k > 0 DO INSTEAD UPDATE named SET k = NEW.k WHERE named.id = OLD.id;
CREATE RULE upd_else AS ON UPDATE TO through_rules DO INSTEAD NOTHING;
CREATE RULE del AS ON DELETE TO through_rules DO INSTEAD (DELETE FROM named WHERE named.id = OLD.id; INSERT INTO other SELECT -OLD.id, 'deleted');
CREATE MATERIALIZED VIEW counted AS SELECT k, count(*) FROM named GROUP BY k;
CREATE UNIQUE INDEX ON counted (k);
-- rules of other tables, and of the table itself
CREATE RULE also AS ON INSERT TO other DO ALSO UPDATE named SET unused = NEW.note WHERE id = NEW.id;
CREATE RULE "Odd ""rule" AS ON DELETE TO named WHERE OLD.id = 5 DO INSTEAD INSERT INTO other VALUES (OLD.id * -100, OLD."Odd ""col");
CREATE RULE off AS ON UPDATE TO named DO INSTEAD NOTHING;
ALTER TABLE named DISABLE RULE off;
COMMENT ON RULE "Odd ""rule" ON named IS 'of a rule';
-- functions: bodies of SQL, arguments and results of the row type
CREATE FUNCTION body(above integer DEFAULT 0) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER BEGIN ATOMIC SELECT count(*) FROM named WHERE id > above; SELECT count(k) FROM named WHERE id > above; END;
COMMENT ON FUNCTION body IS 'with a body';
ALTER FUNCTION body OWNER TO named_owner;
REVOKE EXECUTE ON FUNCTION body FROM PUBLIC;
GRANT EXECUTE ON FUNCTION body TO named_reader;
CREATE FUNCTION scalar_body() RETURNS text LANGUAGE sql RETURN (SELECT "Odd ""col" FROM named WHERE id = 3);
CREATE FUNCTION label(named) RETURNS text LANGUAGE sql AS $$ SELECT $1.id || ':' || $1."Odd ""col" $$;
CREATE FUNCTION label_atomic(n named) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT n.id || ':' || n."Odd ""col"; END;
CREATE FUNCTION rows_of() RETURNS SETOF named LANGUAGE plpgsql AS $$ DECLARE r named; BEGIN FOR r IN SELECT * FROM named ORDER BY id LIMIT 2 LOOP RETURN NEXT r; END LOOP; END $$;
CREATE FUNCTION rows_atomic() RETURNS SETOF named LANGUAGE sql BEGIN ATOMIC SELECT * FROM named ORDER BY id LIMIT 2; END;
CREATE FUNCTION many(named[] DEFAULT NULL, whose regclass DEFAULT 'named') RETURNS regclass LANGUAGE sql AS 'SELECT whose';
CREATE PROCEDURE nothing_much(n named) LANGUAGE sql BEGIN ATOMIC SELECT n.id; END;
CREATE FUNCTION writes(i integer) RETURNS text LANGUAGE sql BEGIN ATOMIC
    INSERT INTO named ("Odd ""col", k, id) VALUES ('written', 0, i) RETURNING named."Odd ""col";
    UPDATE named SET k = 1, unused = "Odd ""col" WHERE id = i;
    INSERT INTO named (k, id) VALUES (7, i + 1);
    DELETE FROM named n USING other o WHERE o.id = n.id AND n.id = i;
    SELECT concat_ws(' ', n.id - i, k, "Odd ""col", unused) FROM named n WHERE id = i; END;
-- a policy and a default of another table
CREATE TABLE guarded (id integer, of_table regclass DEFAULT 'named'::regclass);
CREATE POLICY "p" ON guarded USING (id IN (SELECT n.id FROM named n WHERE n.k = 1));
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
INSERT INTO guarded SELECT generate_series(1, 9);
GRANT SELECT ON guarded TO named_reader;
GRANT SELECT (id, k) ON named TO named_reader;

-- all there is to know, but for what partitioning changes; in the order of the definitions
CREATE VIEW definitions AS
    SELECT pg_describe_object(c.tableoid, c.oid, 0) AS object, concat_ws(' | ', pg_get_viewdef(c.oid), c.relowner::regrole, c.relacl, c.reloptions, obj_description(c.oid, 'pg_class'),
               col_description(c.oid, 2), (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || COALESCE(a.attacl::text, ''), ', ' ORDER BY attnum) FROM pg_attribute a WHERE a.attrelid = c.oid)) AS definition
    FROM pg_class c WHERE c.relkind IN ('v', 'm') AND c.relnamespace IN ('public'::regnamespace, '"Odd ""schema"'::regnamespace) AND c.relname <> 'definitions'
    UNION ALL
    SELECT pg_describe_object(r.tableoid, r.oid, 0), concat_ws(' | ', pg_get_ruledef(r.oid), r.ev_enabled, obj_description(r.oid, 'pg_rewrite'))
    FROM pg_rewrite r WHERE r.rulename <> '_RETURN' AND r.ev_class::regclass::text ~ '^(named|other|through)'
    UNION ALL
    SELECT pg_describe_object(p.tableoid, p.oid, 0), concat_ws(' | ', pg_get_functiondef(p.oid), p.proowner::regrole, p.proacl, obj_description(p.oid, 'pg_proc'))
    FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.oid::regprocedure::text ~ 'named|^(body|scalar|rows_|writes)'
    UNION ALL
    SELECT pg_describe_object(p.tableoid, p.oid, 0), pg_get_expr(p.polqual, p.polrelid) FROM pg_policy p
    UNION ALL
    SELECT pg_describe_object(d.tableoid, d.oid, 0), pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid IN ('guarded'::regclass, '"Odd ""schema"."Odd ""view"'::regclass)
    UNION ALL
    SELECT 'type ' || t.typname, concat_ws(' | ', t.typrelid::regclass, c.reltype::regtype, t.typarray::regtype, (SELECT count(*) FROM pg_depend d WHERE d.objid = t.oid AND d.refobjid = t.typrelid))
    FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid WHERE c.relname ~ '^named(_new|_orig)?$';
CREATE TABLE before AS SELECT * FROM definitions;
CREATE FUNCTION changed() RETURNS TABLE (what text, object text, definition text) LANGUAGE sql AS $$
    SELECT 'is', * FROM (TABLE definitions EXCEPT TABLE before) x WHERE object !~ '_(new|orig)$'
    UNION ALL SELECT 'was', * FROM (TABLE before EXCEPT TABLE definitions) x WHERE object !~ '_(new|orig)$'
    ORDER BY 2, 1 $$;
-- statements of the application through everything there is
CREATE PROCEDURE use(stage integer) LANGUAGE plpgsql AS $$
DECLARE
    said text;
    i integer := stage * 1000;
BEGIN
    SET ROLE named_reader;
    INSERT INTO "Odd ""schema"."Odd ""view" (id, "V") VALUES (i, 'through a view');
    SELECT "V" INTO STRICT said FROM "Odd ""schema"."Odd ""view" WHERE id = i;
    IF (SELECT array_agg(id ORDER BY id) FROM guarded) <> '{1,4,7}' THEN RAISE 'policy'; END IF;
    IF body() <> (SELECT count(*) FROM named) THEN RAISE 'body'; END IF;
    RESET ROLE;
    BEGIN
        INSERT INTO "Odd ""schema"."Odd ""view" (id, "V", k) VALUES (i + 1, 'too great', 7);
        RAISE 'check option';
    EXCEPTION WHEN with_check_option_violation THEN NULL;
    END;
    INSERT INTO through_rules VALUES (i + 2, 1), (i + 3, 0);
    UPDATE through_rules SET k = 2 WHERE id IN (i + 2, i + 3);
    DELETE FROM through_rules WHERE id = i + 2;
    INSERT INTO other VALUES (i + 3, 'said');
    DELETE FROM named WHERE id = 5;
    DELETE FROM other WHERE id < -100;
    REFRESH MATERIALIZED VIEW CONCURRENTLY counted;
    RAISE INFO '%', (SELECT json_build_object('joined', (SELECT count(note) FROM joined), 'twice', (SELECT count(b) || max(a) FROM joined_twice), 'chain', (SELECT count(*) FROM on_view), 'down', (SELECT count(*) FROM walk_down),
        'whole', (SELECT min(n::text) FROM whole n WHERE id = 1), 'renamed', (SELECT max(c) FROM renamed), 'nested', (SELECT sum(same) FROM nested), 'which', (SELECT max(which::text) FROM nested),
        'rules', (SELECT unused FROM named WHERE id = i + 3), 'refreshed', (SELECT sum(count) FROM counted), 'scalar', scalar_body(), 'label', (SELECT label(n) || n.label || label_atomic(n) FROM named n WHERE id = 1),
        'rows', (SELECT string_agg(r::text, ' ') FROM rows_of() r), 'rows', (SELECT string_agg(r::text, ' ') FROM rows_atomic() r), 'many', many(), 'writes', writes(i + 4)));
END $$;
CALL use(1);
SELECT relation, tuples FROM (SELECT 'named' AS relation, count(*) AS tuples FROM named UNION ALL SELECT 'counted', count(*) FROM counted) x;

SELECT migrate_ext.partition_by_hash('named', 'id', 3);
GRANT SELECT, INSERT, UPDATE, DELETE ON named_new TO named_owner;
GRANT SELECT (id, k) ON named_new TO named_reader;
CALL migrate_ext.run('named');
SELECT severity, object, problem FROM migrate_ext.preflight('named') WHERE severity = 'error';
-- a plan made before the swap, and a materialized view that is not made anew
PREPARE through AS SELECT count(*) > 0 FROM on_view;
EXECUTE through;
SELECT pg_relation_filenode('counted') AS counted \gset
CALL migrate_ext.finalize('named');
SELECT * FROM changed();
SELECT relkind, pg_relation_filenode('counted') = :counted AS not_refreshed FROM pg_class WHERE oid = 'named'::regclass;
EXECUTE through;
CALL use(2);
SELECT * FROM helper.check('named');
CALL migrate_ext.undo('named');
SELECT * FROM changed();
SELECT relkind FROM pg_class WHERE oid = 'named'::regclass;
EXECUTE through;
CALL use(3);
SELECT * FROM helper.check('named');
-- what is made while live follows as well, and what is made while swapped goes back
CREATE VIEW made_live AS SELECT id FROM named;
CALL migrate_ext.finalize('named');
CREATE VIEW made_swapped AS SELECT id FROM named;
CALL migrate_ext.undo('named');
CALL migrate_ext.finalize('named');
SELECT v.view_name, v.table_name FROM information_schema.view_table_usage v WHERE v.view_name LIKE 'made%' ORDER BY 1;
DROP VIEW made_live, made_swapped;
SELECT * FROM changed();
CALL use(4);
SELECT statement FROM migrate_ext.plan('named') WHERE statement ~ 'straggler';
CALL migrate_ext.complete('named', drop_original => true);
SELECT * FROM changed();
CALL use(5);
-- as a dump would make them: each definition is valid
DO $$
DECLARE d record;
BEGIN
    FOR d IN SELECT c.oid::regclass AS view, pg_get_viewdef(c.oid) AS query FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', d.view, d.query);
    END LOOP;
END $$;
SELECT * FROM changed();
SELECT migrate_ext.forget('named');
DROP TABLE named, other, guarded CASCADE;
DROP TABLE before;
DROP FUNCTION changed();
DROP PROCEDURE use;
DROP SCHEMA "Odd ""schema" CASCADE;
DROP FUNCTION IF EXISTS writes, body, scalar_body, rows_of, rows_atomic;

-- what can't follow is an error of preflight that says why
CREATE TABLE stuck (id integer PRIMARY KEY, k integer NOT NULL, v text, w integer);
ALTER TABLE stuck DROP COLUMN v;
INSERT INTO stuck VALUES (1, 1, 1);
CREATE VIEW grouped AS SELECT id, w FROM stuck GROUP BY id;
CREATE VIEW says_only AS SELECT id FROM ONLY stuck;
CREATE FUNCTION writes(integer) RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO stuck VALUES ($1, 1); END;
CREATE FUNCTION locks() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT id FROM stuck FOR UPDATE; END;
CREATE TABLE holds (id integer, one stuck, many stuck[]);
CREATE DOMAIN stuck_domain AS stuck;
CREATE TYPE has_stuck AS (x integer, y stuck);
CREATE FUNCTION some_rows() RETURNS SETOF stuck LANGUAGE sql AS 'SELECT * FROM stuck';
CREATE VIEW constant_row AS SELECT '(2,,)'::stuck AS const, ROW(1, 2, 3)::stuck;
CREATE MATERIALIZED VIEW mat AS SELECT s FROM stuck s;
CREATE VIEW from_function AS SELECT r.id FROM some_rows() r;
CREATE RULE conflict AS ON INSERT TO stuck WHERE NEW.id < 0 DO INSTEAD INSERT INTO holds (id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
SELECT migrate_ext.partition_by_list('stuck', 'k');
CREATE RULE conflict AS ON INSERT TO stuck_new DO ALSO NOTHING;
CALL migrate_ext.run('stuck');
SELECT object, problem, remedy FROM migrate_ext.preflight('stuck') WHERE severity = 'error' ORDER BY 1;
-- where something uses the other table's row type, too, they don't change places
CREATE FUNCTION of_other(stuck_new) RETURNS integer LANGUAGE sql AS 'SELECT $1.id';
CREATE FUNCTION of_row(stuck) RETURNS integer LANGUAGE sql AS 'SELECT $1.id';
CREATE VIEW whole AS SELECT s FROM stuck s;
SELECT object, problem FROM migrate_ext.preflight('stuck') WHERE severity = 'error' AND object ~ 'of_row|whole' ORDER BY 1;
CALL migrate_ext.finalize('stuck');
\echo :LAST_ERROR_SQLSTATE
DROP FUNCTION of_other;
CALL migrate_ext.cancel('stuck');
SELECT migrate_ext.forget('stuck');
DROP TABLE stuck CASCADE;
DROP TABLE holds;
-- ON CONFLICT, and MERGE, in functions
CREATE TABLE merged (gone integer, id integer PRIMARY KEY, v text, n integer);
ALTER TABLE merged DROP COLUMN gone;
CREATE FUNCTION upsert(integer) RETURNS text LANGUAGE sql BEGIN ATOMIC
    INSERT INTO merged AS m (n, id) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET n = excluded.n + m.n, v = COALESCE(m.v, '') || '!' WHERE m.n < 9 RETURNING concat_ws(' ', id, v, n); END;
CREATE FUNCTION merge(integer) RETURNS text LANGUAGE sql BEGIN ATOMIC
    MERGE INTO merged m USING (VALUES ($1)) x (id) ON m.id = x.id WHEN MATCHED THEN UPDATE SET v = 'matched' WHEN NOT MATCHED THEN INSERT (n, id) VALUES (-1, x.id);
    SELECT concat_ws(' ', id, v, n) FROM merged WHERE id = $1; END;
SELECT upsert(1), merge(1), merge(2), upsert(2);
SELECT migrate_ext.partition_by_hash('merged', 'id', 2);
CALL migrate_ext.run('merged');
CALL migrate_ext.finalize('merged');
SELECT upsert(1), merge(1), merge(3), upsert(3);
TABLE merged ORDER BY id;
-- what waited for the swap may not write to the table that is swapped out
INSERT INTO merged_orig (id) VALUES (10);
-- but the action of a foreign key of its own may
CREATE TABLE parent (n integer PRIMARY KEY);
INSERT INTO parent SELECT generate_series(-9, 9);
ALTER TABLE merged_orig ADD CONSTRAINT cascades FOREIGN KEY (n) REFERENCES parent ON DELETE CASCADE;
DELETE FROM parent WHERE n = 9;
ALTER TABLE merged_orig DROP CONSTRAINT cascades;
DROP TABLE parent;
CALL migrate_ext.undo('merged');
SELECT upsert(1), merge(1), merge(4), upsert(4);
INSERT INTO merged_new (id) VALUES (10);
TABLE merged ORDER BY id;
CALL migrate_ext.cancel('merged');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'merged'::regclass;
SELECT migrate_ext.forget('merged');
DROP FUNCTION upsert, merge;
DROP TABLE merged;
REVOKE ALL ON SCHEMA public FROM named_owner, named_reader;
DROP ROLE named_owner, named_reader;

-- A trigger whose WHEN uses whole rows: the types stay with their tables, and the trigger goes on working once the original is gone.
SET client_min_messages = error;
CREATE SCHEMA whole_rows;
SET search_path = whole_rows;
CREATE TABLE w (id int PRIMARY KEY, v text);
INSERT INTO w VALUES (1, 'a'), (2, 'b');
CREATE TABLE changed (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO whole_rows.changed VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER note AFTER UPDATE ON w FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION note();
CREATE FUNCTION label(w) RETURNS text LANGUAGE sql AS 'SELECT $1.v';
SELECT migrate_ext.partition_by_hash('w', 'id', 2);
CALL migrate_ext.run('w');
SELECT severity, object, problem FROM migrate_ext.preflight('w') WHERE severity = 'error';
DROP FUNCTION label;
CALL migrate_ext.finalize('w', '1 minute');
CALL migrate_ext.complete('w', drop_original => true);
UPDATE w SET v = v WHERE id = 1;
UPDATE w SET v = 'c' WHERE id = 2;
DELETE FROM w WHERE id = 1;
TABLE changed;
TABLE w;
SELECT migrate_ext.forget('w');
DROP SCHEMA whole_rows CASCADE;
