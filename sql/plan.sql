-- plan(): every statement to come, and whether those are run indeed.
SET client_min_messages = warning;
CREATE ROLE plan_stranger;
CREATE TABLE planned (id serial PRIMARY KEY, k integer NOT NULL, t text, CONSTRAINT planned_u UNIQUE (k, id));
CREATE INDEX planned_lower ON planned (lower(t), k DESC) WHERE k > 0;
ALTER INDEX planned_lower ALTER COLUMN 1 SET STATISTICS 50;
CREATE INDEX planned_k ON planned (k);
CREATE INDEX planned_k2 ON planned USING hash (k);
CREATE FUNCTION plan_note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER note AFTER INSERT ON planned FOR EACH ROW EXECUTE FUNCTION plan_note(' ON public.planned ');
CREATE TRIGGER asleep AFTER DELETE ON planned EXECUTE FUNCTION plan_note();
ALTER TABLE planned DISABLE TRIGGER asleep;
INSERT INTO planned (k, t) SELECT i % 4, i FROM generate_series(1, 20) i;
SELECT migrate_ext.partition_by_list('planned', 'k', options => '{"groups": {"low": [0, 1]}}');

-- what a step costs whom; a migration's number is told as N
CREATE FUNCTION pg_temp.plan() RETURNS TABLE (step integer, statement text, lock text, note text) LANGUAGE sql AS $$
    SELECT step, regexp_replace(statement, '(log_|\(''|"id": )\d+', '\1N', 'g'), lock, note FROM migrate_ext.plan('planned')
$$;
\pset format unaligned
SELECT * FROM pg_temp.plan();
\pset format aligned

-- it changes nothing, and is the same again
CREATE TEMPORARY TABLE told AS SELECT * FROM migrate_ext.plan('planned');
SELECT count(*) FROM (TABLE told EXCEPT ALL SELECT * FROM migrate_ext.plan('planned')) d;

-- what an event trigger saw of it
CREATE TABLE seen (n serial, tag text, object text);
CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF tg_event = 'sql_drop' THEN
        INSERT INTO seen (tag, object) SELECT tg_tag, object_identity FROM pg_event_trigger_dropped_objects() WHERE original;
    ELSIF tg_tag !~ '^DROP' THEN
        INSERT INTO seen (tag, object) SELECT command_tag, object_identity FROM pg_event_trigger_ddl_commands() c
        WHERE tg_tag = c.command_tag; -- without what a statement makes by the way
    END IF;
END
$$;
CREATE EVENT TRIGGER see_ddl ON ddl_command_end EXECUTE FUNCTION see();
CREATE EVENT TRIGGER see_drop ON sql_drop EXECUTE FUNCTION see();
CALL migrate_ext.run('planned');
SELECT statement FROM pg_temp.plan() LIMIT 3;
CALL migrate_ext.finalize('planned');
SELECT step, statement FROM pg_temp.plan() LIMIT 1;
CALL migrate_ext.complete('planned', true);
SELECT * FROM pg_temp.plan();
DROP EVENT TRIGGER see_ddl;
DROP EVENT TRIGGER see_drop;

-- side by side: of the plan what an event trigger can see
CREATE TEMPORARY TABLE side_by_side AS
SELECT p.statement, s.tag, s.object
FROM (SELECT row_number() OVER (ORDER BY step) AS n, statement FROM told
      WHERE statement !~ '^(INSERT|--|ANALYZE)' AND note IS DISTINCT FROM 'equivalent; in the swap''s transaction') p
FULL JOIN (SELECT row_number() OVER (ORDER BY n) AS n, tag, object FROM seen) s USING (n);
SELECT count(*), count(statement) AS told, count(object) AS seen FROM side_by_side;
SELECT statement, tag, object FROM side_by_side
WHERE regexp_replace(regexp_replace(COALESCE(statement, ''), '^CREATE (OR REPLACE|UNIQUE) ', 'CREATE '), '^(\w+ \w+) .*', '\1') <> COALESCE(CASE tag WHEN 'COMMENT' THEN 'COMMENT ON' ELSE tag END, '')
   -- the object: a trigger and its table, or one name, with its schema where the statement has it
   OR EXISTS (SELECT FROM regexp_split_to_table(object, ' on ') o (name)
              WHERE strpos(statement, o.name) = 0 AND strpos(statement, split_part(o.name, '.', 2) || ' ON ') = 0);

-- the names after the swap were those told, too
SELECT m[1] AS renamed, m[2] AS to_name, to_regclass(m[2]) IS NOT NULL OR m[2] ~ '_orig$' AS there
FROM told, regexp_match(statement, 'ALTER (?:TABLE|INDEX) (\S+) RENAME TO (\S+)') m WHERE m IS NOT NULL;
SELECT migrate_ext.forget('planned');
DROP TABLE planned, seen;
DROP FUNCTION see(), plan_note();

-- a target of two levels, with a replica identity, names at 63 bytes
CREATE TABLE a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_ab (id integer NOT NULL, k integer NOT NULL, t text);
CREATE UNIQUE INDEX planned_ident ON a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_ab (id);
ALTER TABLE a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_ab REPLICA IDENTITY USING INDEX planned_ident;
CREATE TABLE deep (id integer NOT NULL, k integer NOT NULL, t text) PARTITION BY RANGE (k);
CREATE TABLE deep_1 PARTITION OF deep FOR VALUES FROM (0) TO (10) PARTITION BY HASH (id);
CREATE TABLE deep_1_0 PARTITION OF deep_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE deep_2 PARTITION OF deep DEFAULT;
SELECT migrate_ext.create_migration('a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_ab', 'deep', 'deep');
SELECT statement FROM migrate_ext.plan('deep') WHERE statement ~ 'INDEX|RENAME|IDENTITY';

-- adopted: compared instead of copied
CALL migrate_ext.cancel('deep');
SELECT migrate_ext.forget('deep');
INSERT INTO deep VALUES (1, 1, 'one');
SELECT migrate_ext.create_migration('a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_ab', 'deep', 'deep');
SELECT statement FROM migrate_ext.plan('deep') WHERE statement ~ '^(INSERT|--)';

-- wrong calls
SELECT * FROM migrate_ext.plan(NULL);
SELECT * FROM migrate_ext.plan('nothing');
SET ROLE plan_stranger;
SELECT * FROM migrate_ext.plan('deep');
RESET ROLE;
CALL migrate_ext.cancel('deep');
SELECT migrate_ext.forget('deep');
DROP TABLE deep, a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_ab;
DROP ROLE plan_stranger;
