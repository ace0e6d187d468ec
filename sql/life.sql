-- A whole life, in this session, without any worker.
SET client_min_messages = warning;
CREATE TABLE life (
    id serial PRIMARY KEY,
    site int NOT NULL,
    note text UNIQUE,
    at date DEFAULT '2024-01-01'
);
CREATE INDEX life_site ON life (site);
INSERT INTO life (site, note) SELECT i % 7, 'n' || i FROM generate_series(1, 1000) i;
RESET client_min_messages;

SELECT migrate_ext.partition_by_range('life', 'id', 300);
CALL migrate_ext.run('life', 'logging');
SELECT state, goal FROM migrate_ext.migrations WHERE migration = 'life';
UPDATE life SET site = 99 WHERE id IN (1, 500);
DELETE FROM life WHERE id = 2;
INSERT INTO life (site, note) VALUES (5, 'while logging');
SELECT log_entries FROM migrate_ext.progress WHERE migration = 'life';
CALL migrate_ext.run('life');
SELECT state, goal FROM migrate_ext.migrations WHERE migration = 'life';
SELECT log_entries FROM migrate_ext.progress WHERE migration = 'life';
(TABLE life EXCEPT TABLE life_new) UNION ALL (TABLE life_new EXCEPT TABLE life);

-- live: writes go to both
UPDATE life SET note = 'both' WHERE id = 10;
UPDATE life SET id = 2 WHERE id = 11;
DELETE FROM life WHERE id = 12;
INSERT INTO life (site, note) VALUES (6, 'while live') RETURNING id;
BEGIN;
UPDATE life SET note = 'gone' WHERE id = 20;
SAVEPOINT a;
UPDATE life SET note = 'never' WHERE id = 21;
ROLLBACK TO a;
UPDATE life SET site = -1 WHERE id = 22;
COMMIT;
COPY life (id, site, note) FROM stdin;
5000	1	copied
5001	2	copied too
\.
INSERT INTO life (id, site, note) VALUES (5000, 7, 'conflict') ON CONFLICT (id) DO UPDATE SET note = excluded.note;
MERGE INTO life USING (VALUES (5001), (5002)) v(id) ON life.id = v.id
    WHEN MATCHED THEN DELETE
    WHEN NOT MATCHED THEN INSERT (id, site, note) VALUES (v.id, 0, 'merged');
(TABLE life EXCEPT TABLE life_new) UNION ALL (TABLE life_new EXCEPT TABLE life);
SELECT tableoid::regclass, count(*) FROM life_new GROUP BY 1 ORDER BY 1;

CALL migrate_ext.finalize('life');
SELECT state, source, target, original FROM migrate_ext.migrations WHERE migration = 'life';
SELECT * FROM helper.describe('life');
SELECT * FROM helper.describe('life_orig');
SELECT direction, attempts >= 1 AS attempts, hold_ms > 0 AS held FROM migrate_ext.swaps WHERE migration = 'life';

-- swapped: writes go to the original as well, the sequence goes on
INSERT INTO life (site, note) VALUES (8, 'after') RETURNING id;
UPDATE life SET id = 9000 WHERE id = 30;
DELETE FROM life WHERE id BETWEEN 40 AND 50;
INSERT INTO life (id, site, note) VALUES (60, 0, 'taken');
(TABLE life EXCEPT TABLE life_orig) UNION ALL (TABLE life_orig EXCEPT TABLE life);
CALL migrate_ext.finalize('life');
CALL migrate_ext.cancel('life');

CALL migrate_ext.undo('life');
SELECT state, source, target, original FROM migrate_ext.migrations WHERE migration = 'life';
SELECT * FROM helper.describe('life');
INSERT INTO life (site, note) VALUES (9, 'back') RETURNING id;
(TABLE life EXCEPT TABLE life_new) UNION ALL (TABLE life_new EXCEPT TABLE life);

CALL migrate_ext.finalize('life');
INSERT INTO life (site, note) VALUES (10, 'forth') RETURNING id;
CALL migrate_ext.verify('life');
SELECT complete, missing, extra, different FROM migrate_ext.verifications WHERE migration = 'life' ORDER BY verified_at DESC LIMIT 1;
CALL migrate_ext.complete('life', drop_original => true);
SELECT to_regclass('life_orig') IS NULL AS dropped;
INSERT INTO life (site, note) VALUES (11, 'on') RETURNING id;
SELECT count(*) FROM life;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'life'::regclass;
SELECT migrate_ext.forget('life');
SELECT count(*) FROM pg_class WHERE relname ~ '^log_' AND relnamespace = 'migrate_ext'::regnamespace;
DROP TABLE life;
