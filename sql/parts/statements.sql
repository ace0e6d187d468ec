-- Statements of every kind on table acts, the same in each state. They begin and end with known rows,
-- so that the last line, a digest of those, must be the same whatever listens.
DELETE FROM acts;
INSERT INTO acts SELECT i, i, 'v' || i FROM generate_series(1, 30) i;

-- DML
WITH done AS (UPDATE acts SET v = x.v FROM (VALUES (1, 'one'), (2, 'two')) x (id, v) WHERE acts.id = x.id RETURNING acts.*) TABLE done ORDER BY id;
UPDATE acts SET id = id + 100 WHERE id IN (3, 4);
UPDATE acts SET id = -id WHERE id < 7;
WITH done AS (DELETE FROM acts USING (VALUES (8), (9)) x (id) WHERE acts.id = x.id RETURNING acts.id) TABLE done ORDER BY id;
INSERT INTO acts VALUES (8, 8, 'again'), (9, 9, 'again') RETURNING v;
INSERT INTO acts VALUES (200, 200, 'fine'), (10, 201, 'not');

-- ON CONFLICT
INSERT INTO acts VALUES (10, 300, 'ignored'), (31, 31, 'new') ON CONFLICT (id) DO NOTHING RETURNING id;
INSERT INTO acts VALUES (11, 300, 'put'), (32, 32, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v || acts.v RETURNING *;
INSERT INTO acts VALUES (12, 300, 'put') ON CONFLICT (id) DO UPDATE SET v = excluded.v WHERE acts.u > 1000;
INSERT INTO acts VALUES (33, 33, 'new'), (33, 34, 'twice') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
INSERT INTO acts VALUES (10, 300, 'ignored'), (34, 34, 'new') ON CONFLICT DO NOTHING;

-- MERGE
MERGE INTO acts USING (VALUES (13, 'del'), (14, 'upd'), (15, 'none'), (16, 'upd'), (35, 'ins'), (36, 'none')) x (id, act) ON acts.id = x.id
    WHEN MATCHED AND act = 'del' THEN DELETE
    WHEN MATCHED AND act = 'upd' THEN UPDATE SET v = act, u = acts.u + 500
    WHEN MATCHED THEN DO NOTHING
    WHEN NOT MATCHED AND act = 'ins' THEN INSERT VALUES (x.id, x.id, 'merged')
    WHEN NOT MATCHED THEN DO NOTHING;

-- COPY
COPY acts FROM stdin;
40	40	copied
41	41	\N
\.
COPY acts (u, id) FROM stdin;
42	42
43	40
\.
COPY (SELECT count(*) FROM acts) TO stdout;

-- several times the same row in one transaction; savepoints
BEGIN;
INSERT INTO acts VALUES (50, 50, 'a');
UPDATE acts SET v = 'b' WHERE id = 50;
SAVEPOINT s1;
UPDATE acts SET v = 'c' WHERE id = 50;
SAVEPOINT s2;
DELETE FROM acts WHERE id = 50;
INSERT INTO acts VALUES (51, 51, 'never');
ROLLBACK TO s2;
UPDATE acts SET v = v || 'd', id = 52 WHERE id = 50;
RELEASE s1;
SAVEPOINT s3;
UPDATE acts SET v = v || 'e' WHERE id = 52;
SELECT 1 / 0;
ROLLBACK TO s3;
INSERT INTO acts VALUES (50, 53, 'f');
COMMIT;
SELECT * FROM acts WHERE id BETWEEN 50 AND 60 ORDER BY id;
BEGIN;
DELETE FROM acts WHERE id IN (17, 18);
INSERT INTO acts VALUES (17, 17, 'back');
INSERT INTO acts VALUES (55, 55, 'short');
DELETE FROM acts WHERE id = 55;
INSERT INTO acts VALUES (55, 55, 'long');
COMMIT;
BEGIN;
DELETE FROM acts;
SELECT count(*) FROM acts;
ROLLBACK;

-- exceptions in PL/pgSQL, each a savepoint
DO $$
BEGIN
    FOR i IN 19 .. 22 LOOP
        BEGIN
            UPDATE acts SET v = 'loop' WHERE id = i;
            INSERT INTO acts VALUES (60 + i % 2, 60 + i, 'loop');
        EXCEPTION WHEN unique_violation THEN
            UPDATE acts SET v = v || ' failed' WHERE id = i;
        END;
    END LOOP;
END $$;
SELECT * FROM acts WHERE id BETWEEN 19 AND 22 OR id IN (60, 61) ORDER BY id;

-- cursors, row locks
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM acts WHERE id BETWEEN 23 AND 26 ORDER BY id FOR UPDATE;
FETCH c;
UPDATE acts SET v = 'current' WHERE CURRENT OF c;
FETCH c;
DELETE FROM acts WHERE CURRENT OF c;
FETCH c;
UPDATE acts SET id = id + 300 WHERE CURRENT OF c;
COMMIT;
BEGIN;
SELECT id FROM acts WHERE id = 27 FOR KEY SHARE;
SELECT id FROM acts WHERE id = 27 FOR UPDATE;
UPDATE acts SET v = 'locked' WHERE id = 27;
SELECT id FROM acts WHERE id = 28 FOR NO KEY UPDATE;
ROLLBACK;

-- several changes of the table in one statement
WITH gone AS (DELETE FROM acts WHERE id IN (28, 29) RETURNING *),
     back AS (INSERT INTO acts SELECT id + 400, u, 'moved' FROM gone RETURNING id),
     changed AS (UPDATE acts SET v = 'cte' WHERE id = 30 RETURNING id)
SELECT count(*) FROM back, changed;
WITH once AS (UPDATE acts SET v = v || '!' WHERE id = 30) UPDATE acts SET v = 'lost' WHERE id = 30;
CREATE FUNCTION pg_temp.touch(n integer) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    UPDATE acts SET v = v || 'touched' WHERE id = n;
    RETURN n + 70;
END $$;
INSERT INTO acts SELECT pg_temp.touch(n), n + 70, 'touching' FROM generate_series(19, 21) n;
UPDATE acts SET v = pg_temp.touch(20) || v WHERE id = 10;

-- a key that is checked at the end: values exchanged by one statement, and by two
UPDATE acts SET u = CASE u WHEN 19 THEN 20 ELSE 19 END WHERE u IN (19, 20);
BEGIN;
UPDATE acts SET u = 21 WHERE u = 19;
UPDATE acts SET u = 19 WHERE id = 21;
COMMIT;
BEGIN;
UPDATE acts SET u = 19;
ROLLBACK;

-- other kinds of transactions
BEGIN ISOLATION LEVEL REPEATABLE READ;
UPDATE acts SET v = 'rr' WHERE id = 31;
UPDATE acts SET id = 500 WHERE id = 32;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO acts SELECT 501, count(*) + 600, 'ssi' FROM acts;
DELETE FROM acts WHERE id = 31;
COMMIT;
BEGIN;
UPDATE acts SET v = 'prepared' WHERE id = 9;
INSERT INTO acts VALUES (502, 502, 'prepared');
PREPARE TRANSACTION 'acts';
COMMIT PREPARED 'acts';
BEGIN;
DELETE FROM acts WHERE id = 9;
PREPARE TRANSACTION 'acts';
ROLLBACK PREPARED 'acts';
PREPARE put (integer, text) AS UPDATE acts SET v = $2 WHERE id = $1;
EXECUTE put (9, 'executed');
EXECUTE put (8, 'executed');
DEALLOCATE put;

-- as an apply worker of logical replication does
SET session_replication_role = replica;
UPDATE acts SET v = 'replica' WHERE id = 502;
INSERT INTO acts VALUES (503, 503, 'replica');
DELETE FROM acts WHERE id = 501;
RESET session_replication_role;

-- DDL after changes, in their transaction
BEGIN;
UPDATE acts SET v = 'ddl' WHERE id = 10;
ALTER TABLE acts ADD COLUMN added integer DEFAULT 7;
UPDATE acts SET v = 'ddl' WHERE id = 11;
INSERT INTO acts (id, u, added) VALUES (600, 600, 8);
CREATE INDEX acts_added ON acts (added);
ALTER TABLE acts ALTER COLUMN v SET STATISTICS 10;
LOCK TABLE acts;
UPDATE acts SET id = 601 WHERE id = 600;
ROLLBACK;
BEGIN;
UPDATE acts SET v = 'ddl' WHERE id = 10;
TRUNCATE acts;
INSERT INTO acts VALUES (1, 1, 'after');
ROLLBACK;
BEGIN;
UPDATE acts SET v = 'ddl' WHERE id = 10;
DROP TABLE acts CASCADE;
ROLLBACK;

-- many rows
INSERT INTO acts SELECT i, i, 'many' FROM generate_series(1000, 2999) i;
UPDATE acts SET id = id + 2000, u = u + 2000 WHERE id >= 1000;
UPDATE acts SET v = v || id WHERE id >= 1000;
DELETE FROM acts WHERE id >= 1000 AND id % 100 <> 0;

SELECT count(*), sum(id), md5(string_agg(acts::text, ',' ORDER BY id)) FROM acts;
DROP FUNCTION pg_temp.touch;
