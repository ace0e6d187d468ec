-- Triggers follow the table: through finalize, undo, finalize and complete.
SET client_min_messages = warning;
CREATE TABLE "Trig's" (gone integer, id integer PRIMARY KEY, "K k" integer NOT NULL, v text);
ALTER TABLE "Trig's" DROP COLUMN gone;
INSERT INTO "Trig's" SELECT i, i, 'v' || i FROM generate_series(1, 15) i;
CREATE TABLE fired (n integer GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired (what) VALUES (concat_ws(' ', TG_NAME, TG_WHEN, TG_LEVEL, TG_OP, TG_ARGV[0]));
    IF TG_WHEN = 'BEFORE' AND TG_LEVEL = 'ROW' AND TG_OP <> 'DELETE' THEN
        NEW.v := NEW.v || '+';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE FUNCTION fire_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired (what) SELECT concat_ws(' ', TG_NAME, TG_WHEN, TG_LEVEL, TG_OP, (SELECT count(*) FROM came));
    RETURN NULL;
END $$;
CREATE FUNCTION gives_key() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW."K k" := COALESCE(NEW."K k", 1); RETURN NEW; END';
CREATE TRIGGER "b ON public.""Trig's"" x" BEFORE INSERT OR UPDATE OF v, "K k" ON "Trig's" FOR EACH ROW WHEN (NEW.v IS NOT NULL) EXECUTE FUNCTION fire('an ''argument''');
CREATE TRIGGER "a after" AFTER INSERT OR UPDATE OR DELETE ON "Trig's" FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER changed AFTER UPDATE ON "Trig's" FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION fire();
CREATE TRIGGER statement BEFORE INSERT OR TRUNCATE ON "Trig's" EXECUTE FUNCTION fire();
CREATE TRIGGER transition AFTER INSERT ON "Trig's" REFERENCING NEW TABLE AS came EXECUTE FUNCTION fire_all();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON "Trig's" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER "of replica" AFTER INSERT ON "Trig's" FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER always AFTER INSERT ON "Trig's" FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER off AFTER INSERT ON "Trig's" FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER key BEFORE INSERT ON "Trig's" FOR EACH ROW EXECUTE FUNCTION gives_key();
ALTER TABLE "Trig's" ENABLE REPLICA TRIGGER "of replica", ENABLE ALWAYS TRIGGER always, DISABLE TRIGGER off;

CREATE FUNCTION triggers(side text) RETURNS TABLE (name name, enabled text, definition text) LANGUAGE sql AS
    $$ SELECT name, enabled::text, definition FROM migrate_ext.triggers_of(side::regclass) ORDER BY name $$;
CREATE PROCEDURE works() LANGUAGE plpgsql AS $$
DECLARE
    told text;
BEGIN
    INSERT INTO "Trig's" VALUES (20, 3, 'new'), (21, 13, NULL);
    SET CONSTRAINTS ALL IMMEDIATE;
    UPDATE "Trig's" SET v = 'x' WHERE id = 20;
    UPDATE "Trig's" SET id = id WHERE id = 20;
    SELECT string_agg(t::text, ' ') INTO told FROM "Trig's" t WHERE id >= 20;
    RAISE INFO '%', told;
    DELETE FROM "Trig's" WHERE id >= 20;
    FOR told IN SELECT what FROM fired ORDER BY n LOOP
        RAISE INFO '%', told;
    END LOOP;
    DELETE FROM fired;
END $$;
CREATE TABLE before AS SELECT * FROM triggers('"Trig''s"');
SELECT * FROM before;
CALL works();

SELECT migrate_ext.partition_by_range('"Trig''s"', 'K k', 10, 0, 20, 0, migration => 't');
CALL migrate_ext.run('t');
CALL works();
-- what a partitioned table can't have is told, and what may fail there
CREATE TRIGGER each AFTER INSERT ON "Trig's" REFERENCING NEW TABLE AS came FOR EACH ROW EXECUTE FUNCTION fire_all();
CREATE TRIGGER always BEFORE DELETE ON "Trig's_new" FOR EACH ROW EXECUTE FUNCTION fire();
SELECT severity, object, problem, remedy FROM migrate_ext.preflight('t') WHERE object LIKE 'trigger%' ORDER BY 1, 2;
CALL migrate_ext.finalize('t');
DROP TRIGGER each ON "Trig's";
DROP TRIGGER always ON "Trig's_new";

CALL migrate_ext.finalize('t');
TABLE before EXCEPT ALL SELECT * FROM triggers('"Trig''s"');
SELECT count(*) FROM triggers('"Trig''s"');
SELECT name, enabled FROM triggers('"Trig''s_orig"');
CALL works();
-- TRUNCATE of both fires once; what is changed while swapped is followed
BEGIN;
TRUNCATE "Trig's";
SELECT what FROM fired;
ROLLBACK;
DROP TRIGGER changed ON "Trig's";
ALTER TABLE "Trig's" DISABLE TRIGGER always;
CREATE TRIGGER newer AFTER DELETE ON "Trig's" EXECUTE FUNCTION fire();

CALL migrate_ext.undo('t');
(TABLE before EXCEPT ALL SELECT * FROM triggers('"Trig''s"')) UNION ALL (SELECT * FROM triggers('"Trig''s"') EXCEPT ALL TABLE before) ORDER BY 1, 2;
SELECT name, enabled FROM triggers('"Trig''s_new"');
CALL works();
BEGIN;
TRUNCATE "Trig's";
SELECT what FROM fired;
ROLLBACK;
-- and while live, of a name that was there
DROP TRIGGER newer ON "Trig's";
DROP TRIGGER "a after" ON "Trig's";
CREATE TRIGGER "a after" AFTER DELETE ON "Trig's" FOR EACH ROW EXECUTE FUNCTION fire('instead');
-- a state, which partitions have before the swap, and a new partition after it
ALTER TABLE "Trig's" ENABLE TRIGGER always, DISABLE TRIGGER late;
CALL migrate_ext.finalize('t');
CREATE TABLE another PARTITION OF "Trig's" FOR VALUES FROM (20) TO (30);
SELECT t.tgname, t.tgenabled AS root, string_agg(DISTINCT p.tgenabled::text, ' ') AS partitions, count(*)
FROM pg_trigger t
JOIN pg_inherits i ON i.inhparent = t.tgrelid
JOIN pg_trigger p ON p.tgrelid = i.inhrelid AND p.tgparentid = t.oid
WHERE t.tgrelid = '"Trig''s"'::regclass AND t.tgname !~ '^!' GROUP BY 1, 2 ORDER BY 1;
(TABLE before EXCEPT ALL SELECT * FROM triggers('"Trig''s"')) UNION ALL (SELECT * FROM triggers('"Trig''s"') EXCEPT ALL TABLE before) ORDER BY 1, 2;
CALL migrate_ext.complete('t');
CALL works();
SELECT name, enabled FROM triggers('"Trig''s_orig"');

SELECT migrate_ext.forget('t');
DROP TABLE "Trig's", "Trig's_orig", fired, before;
DROP FUNCTION fire(), fire_all(), gives_key(), triggers(text);
DROP PROCEDURE works();
