-- Privileges and row-level security follow the table at a swap, either way: an owner that is no
-- superuser, roles that see and may do a part of it, at each stage.
SET client_min_messages = warning;
CREATE ROLE grants_owner;
CREATE ROLE grants_app;
CREATE ROLE grants_auditor;
CREATE ROLE "grants Ünter";
CREATE ROLE grants_late;
CREATE SCHEMA "Grants 1" AUTHORIZATION grants_owner;
GRANT USAGE ON SCHEMA "Grants 1" TO PUBLIC;
SET search_path = "Grants 1", public;

SET ROLE grants_owner;
-- anything new is for everybody: not so the table, nor what takes its place
ALTER DEFAULT PRIVILEGES IN SCHEMA "Grants 1" GRANT SELECT ON TABLES TO grants_late;
CREATE TABLE tenants (name text PRIMARY KEY, site integer);
CREATE TABLE "Doc" (gone integer, id integer PRIMARY KEY, k integer NOT NULL, "Owner" text NOT NULL, secret text, "odd ""col" integer);
ALTER TABLE "Doc" DROP COLUMN gone;
REVOKE ALL ON "Doc" FROM grants_late;
REVOKE TRUNCATE ON "Doc" FROM grants_owner;
INSERT INTO tenants VALUES ('grants_app', 1), ('grants Ünter', 2);
INSERT INTO "Doc" SELECT i, i % 3, CASE WHEN i % 2 = 0 THEN 'grants_app' ELSE 'grants Ünter' END, 'secret ' || i, i FROM generate_series(1, 10) i;
GRANT SELECT ON tenants TO PUBLIC;
GRANT SELECT, INSERT ON "Doc" TO grants_app WITH GRANT OPTION;
GRANT UPDATE (secret), UPDATE ("odd ""col") ON "Doc" TO grants_app WITH GRANT OPTION;
GRANT SELECT (id, k, "Owner") ON "Doc" TO "grants Ünter";
GRANT REFERENCES (id) ON "Doc" TO PUBLIC;
SET ROLE grants_app;
GRANT SELECT ON "Doc" TO grants_auditor;
GRANT UPDATE (secret) ON "Doc" TO grants_auditor;
SET ROLE grants_owner;
ALTER TABLE "Doc" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON "Doc" TO grants_owner USING (true);
-- the row's own columns in a subquery need a qualifier; another table there
CREATE POLICY "Mine, 100 %" ON "Doc" FOR SELECT TO grants_app, "grants Ünter"
    USING ("Owner" = CURRENT_USER AND EXISTS (SELECT FROM tenants WHERE name = "Owner" AND site IS DISTINCT FROM "Doc".id));
CREATE POLICY auditor ON "Doc" FOR SELECT TO grants_auditor USING (id <= 4);
-- no odd ones, whoever it is
CREATE POLICY few ON "Doc" AS RESTRICTIVE FOR SELECT USING (id < 9 OR CURRENT_USER = 'grants_owner');
CREATE POLICY puts ON "Doc" FOR INSERT TO grants_app WITH CHECK ("Owner" = CURRENT_USER);
CREATE POLICY sets ON "Doc" FOR UPDATE TO grants_app USING ("Owner" = CURRENT_USER) WITH CHECK (length(secret) < 20);
CREATE POLICY none ON "Doc" AS RESTRICTIVE FOR DELETE USING (false) ;
-- reads the table itself
CREATE FUNCTION newest(integer) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0';
CREATE POLICY own_max ON "Doc" FOR DELETE TO grants_owner USING (newest((SELECT max(d.id) FROM "Doc" d WHERE d."Owner" = "Doc"."Owner")) AND "Doc".id > 0);
RESET ROLE;

-- what there is on a table, whatever its name is now; without MAINTAIN, which came with PostgreSQL 17
CREATE FUNCTION pg_temp.security(name regclass) RETURNS TABLE (what text, value text) LANGUAGE sql AS $$
    SELECT 'flags', format('%s %s', relrowsecurity, relforcerowsecurity) FROM pg_class WHERE oid = name
    UNION ALL SELECT 'table', regexp_replace(a::text, 'm[*]?/', '/') FROM pg_class, unnest(relacl) a WHERE oid = name
    UNION ALL SELECT 'column ' || attname, a::text FROM pg_attribute, unnest(attacl) a WHERE attrelid = name AND NOT attisdropped
    UNION ALL SELECT 'policy ' || policyname,
        concat_ws(' | ', permissive, roles, cmd, replace(qual, name::text || '.', 'T.'), replace(with_check, name::text || '.', 'T.'))
    FROM pg_policies WHERE format('%I.%I', schemaname, tablename)::regclass = name
$$;
CREATE TABLE pg_temp.before (what text, value text);
-- what has changed against the beginning, and whether the dependencies are those of the lists
CREATE FUNCTION pg_temp.changed(name regclass) RETURNS TABLE (how text, what text, value text) LANGUAGE sql AS $$
    (SELECT 'now', * FROM pg_temp.security(name) EXCEPT SELECT 'now', * FROM pg_temp.before)
    UNION ALL (SELECT 'before', * FROM pg_temp.before EXCEPT SELECT 'before', * FROM pg_temp.security(name))
    UNION ALL
    (WITH needed AS (SELECT DISTINCT 0 AS sub, a.grantee FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = name
                     UNION SELECT DISTINCT 0, a.grantor FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = name
                     UNION SELECT DISTINCT t.attnum, a.grantee FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = name
                     UNION SELECT DISTINCT t.attnum, a.grantor FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = name),
          there AS (SELECT objsubid AS sub, refobjid FROM pg_shdepend
                    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND classid = 'pg_class'::regclass AND objid = name AND deptype = 'a'),
          wanted AS (SELECT n.* FROM needed n, pg_class c WHERE c.oid = name AND n.grantee NOT IN (0, c.relowner))
     SELECT 'dependency', 'missing', w::text FROM (TABLE wanted EXCEPT TABLE there) w
     UNION ALL SELECT 'dependency', 'too many', w::text FROM (TABLE there EXCEPT TABLE wanted) w)
    ORDER BY 1, 2, 3
$$;
SELECT * FROM pg_temp.security('"Doc"') ORDER BY what COLLATE "C", value COLLATE "C";
INSERT INTO pg_temp.before SELECT * FROM pg_temp.security('"Doc"');

-- what each role sees and may do
CREATE PROCEDURE pg_temp.as_each(id integer) LANGUAGE plpgsql AS $$
DECLARE
    r text; statement text; n bigint;
BEGIN
    FOREACH r IN ARRAY '{grants_owner,grants_app,grants Ünter,grants_auditor,grants_late}'::text[] LOOP
        EXECUTE format('SET LOCAL ROLE %I', r);
        FOREACH statement IN ARRAY ARRAY['SELECT id FROM "Doc"', 'SELECT * FROM "Doc"', 'UPDATE "Doc" SET secret = secret || ''!''',
            format('INSERT INTO "Doc" VALUES (%s, 1, %L)', id, r), 'DELETE FROM "Doc" WHERE id = 4', 'TRUNCATE "Doc"'] LOOP
            BEGIN
                EXECUTE statement;
                GET DIAGNOSTICS n = ROW_COUNT;
                RAISE SQLSTATE 'ZZZZZ';
            EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN
                RAISE INFO '%: %: %', r, statement, n;
            WHEN OTHERS THEN
                RAISE INFO '%: %: %', r, statement, SQLERRM;
            END;
        END LOOP;
    END LOOP;
END
$$;
CALL pg_temp.as_each(11);

SELECT migrate_ext.partition_by_list('"Doc"', 'k', migration => 'doc', options => '{"groups": {"few": [0, 1]}}');
CALL migrate_ext.run('doc', 'catching_up');
SELECT migrate_ext.start('doc');
SELECT helper.wait_until($$ SELECT count(*) = 7 FROM pg_policies WHERE tablename = 'Doc_new' $$);
-- policies were made, and nobody may read the other table, nor a partition past them
SELECT policyname FROM pg_policies WHERE tablename = 'Doc_new' ORDER BY policyname COLLATE "C";
SELECT * FROM migrate_ext.preflight('doc') WHERE object !~ 'index|default$';
SET ROLE grants_late;
SELECT * FROM "Doc_new";
SELECT * FROM "Doc_default";
SET ROLE grants_app;
SELECT * FROM "Doc_new";
RESET ROLE;
-- but who was granted one
GRANT SELECT ON "Doc_default" TO grants_app, grants_late;
SELECT severity, object, problem, remedy FROM migrate_ext.preflight('doc') WHERE object ~ '^priv';
REVOKE SELECT ON "Doc_default" FROM grants_app, grants_late;
CALL migrate_ext.finalize('doc');
SELECT * FROM pg_temp.changed('"Doc"');
CALL pg_temp.as_each(11);
-- own_max reads the table that has the name
SELECT pg_get_expr(polqual, polrelid) ~ '"Doc" d' AS own FROM pg_policy WHERE polname = 'own_max' AND polrelid = '"Doc"'::regclass;
CALL migrate_ext.undo('doc');
SELECT * FROM pg_temp.changed('"Doc"');
CALL pg_temp.as_each(11);

-- changes while it is live are followed ...
SET ROLE grants_owner;
REVOKE SELECT, INSERT ON "Doc" FROM grants_app CASCADE;
GRANT SELECT ON "Doc" TO grants_app;
REVOKE UPDATE ("odd ""col") ON "Doc" FROM grants_app;
GRANT UPDATE (k) ON "Doc" TO grants_late;
DROP POLICY auditor ON "Doc";
ALTER POLICY few ON "Doc" RENAME TO "Few";
ALTER POLICY sets ON "Doc" TO grants_auditor, grants_app;
ALTER POLICY own_max ON "Doc" USING (id < (SELECT max(d.id) FROM "Doc" d));
CREATE POLICY late ON "Doc" TO grants_late USING (id = 1);
ALTER TABLE "Doc" NO FORCE ROW LEVEL SECURITY;
RESET ROLE;
TRUNCATE pg_temp.before;
INSERT INTO pg_temp.before SELECT * FROM pg_temp.security('"Doc"');
CALL migrate_ext.finalize('doc');
SELECT * FROM pg_temp.changed('"Doc"');
-- ... and while it is swapped
SET ROLE grants_owner;
GRANT DELETE ON "Doc" TO grants_late;
REVOKE UPDATE (k) ON "Doc" FROM grants_late;
DROP POLICY "Few" ON "Doc";
DROP POLICY own_max ON "Doc";
CREATE POLICY own_late ON "Doc" FOR UPDATE USING (EXISTS (SELECT FROM "Doc" o WHERE o.id = "Doc".id + 1));
ALTER TABLE "Doc" DISABLE ROW LEVEL SECURITY;
RESET ROLE;
TRUNCATE pg_temp.before;
INSERT INTO pg_temp.before SELECT * FROM pg_temp.security('"Doc"');
CALL migrate_ext.undo('doc');
SELECT * FROM pg_temp.changed('"Doc"');
CALL migrate_ext.finalize('doc');
SELECT * FROM pg_temp.changed('"Doc"');
CALL migrate_ext.complete('doc', drop_original => true);
SELECT * FROM pg_temp.changed('"Doc"');
SELECT migrate_ext.forget('doc');
DROP TABLE "Doc";

-- a target of one's own keeps what its owner granted on it, and his policies
SET ROLE grants_owner;
CREATE TABLE given (id integer PRIMARY KEY, k integer NOT NULL, more text, v varchar);
CREATE TABLE given_parts (id integer, k integer, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE given_p1 PARTITION OF given_parts FOR VALUES IN (1);
REVOKE ALL ON given, given_parts, given_p1 FROM grants_late;
INSERT INTO given VALUES (1, 1, 'x');
GRANT SELECT ON given TO grants_app;
GRANT SELECT, INSERT ON given_parts TO grants_auditor;
GRANT SELECT (id) ON given TO grants_auditor;
GRANT SELECT (k) ON given_parts TO grants_late;
GRANT SELECT (more) ON given TO "grants Ünter";
CREATE POLICY his ON given_parts USING (true);
CREATE POLICY "both" ON given_parts USING (false);
CREATE POLICY "both" ON given USING (k = 1);
CREATE POLICY ours ON given USING (k = 2);
CREATE POLICY ours_changed ON given USING (k = 2);
CREATE POLICY other_type ON given USING (v = 'x');
CREATE POLICY more ON given USING (more = 'x');
RESET ROLE;
SELECT migrate_ext.create_migration('given', 'given_parts',
    options => '{"columns": {"k": "CASE WHEN s.more = ''y'' THEN 0 ELSE s.k END"}, "reverse_columns": {"more": "''x''::text", "k": "s.k"}}');
SELECT migrate_ext.start('given');
SELECT helper.wait_until($$ SELECT count(*) = 5 FROM pg_policies WHERE tablename = 'given_parts' $$);
SELECT severity, object, problem, remedy FROM migrate_ext.preflight('given') WHERE object ~ '^(priv|policy)';
SET ROLE grants_owner;
DROP POLICY more ON given;
REVOKE SELECT (more) ON given FROM "grants Ünter";
-- one that we have made goes and changes with the source's
SELECT policyname, qual FROM pg_policies WHERE tablename = 'given_parts' ORDER BY policyname COLLATE "C";
DROP POLICY ours ON given;
SELECT polname FROM pg_policy WHERE polrelid = 'given'::regclass ORDER BY 1;
ALTER POLICY ours_changed ON given USING (k = 3);
RESET ROLE;
CALL migrate_ext.finalize('given', options => '{"verify": true}');
SELECT * FROM pg_temp.security('given') ORDER BY what COLLATE "C", value COLLATE "C";
-- from now on it is the application's
CALL migrate_ext.undo('given');
SELECT * FROM pg_temp.security('given') ORDER BY what COLLATE "C", value COLLATE "C";
SET ROLE grants_owner;
REVOKE ALL ON given FROM grants_auditor;
DROP POLICY his ON given;
RESET ROLE;
CALL migrate_ext.finalize('given');
SELECT * FROM pg_temp.security('given') ORDER BY what COLLATE "C", value COLLATE "C";
CALL migrate_ext.complete('given', drop_original => true);
SELECT migrate_ext.forget('given');

RESET search_path;
DROP SCHEMA "Grants 1" CASCADE;
DROP OWNED BY grants_owner;
DROP ROLE grants_owner, grants_app, grants_auditor, "grants Ünter", grants_late;
