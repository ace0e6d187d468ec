-- Functions and procedures that steer a migration: wrong calls change nothing.
SET client_min_messages = warning;
CREATE TABLE steer (id int PRIMARY KEY, v text);
INSERT INTO steer SELECT i, 'v' || i FROM generate_series(1, 100) i;
CREATE ROLE steer_stranger;
RESET client_min_messages;

SELECT migrate_ext.partition_by_hash('steer', 'id', 4);

-- unknown names, NULLs
SELECT migrate_ext.start('nosuch');
SELECT migrate_ext.start(NULL);
SELECT migrate_ext.pause('nosuch');
SELECT migrate_ext.resume(NULL);
SELECT migrate_ext.forget('nosuch');
CALL migrate_ext.finalize('nosuch');
CALL migrate_ext.finalize(NULL);
CALL migrate_ext.run('steer', NULL);
CALL migrate_ext.wait_for('steer', 'nosuch');
CALL migrate_ext.run('steer', 'swapped');
CALL migrate_ext.run('steer', 'live', '-1 second');

-- settings and options
SELECT migrate_ext.configure('steer', 'nosuch', '1');
SELECT migrate_ext.configure('steer', 'workers', 'many');
SELECT migrate_ext.configure('steer', 'workers', '1000');
SELECT migrate_ext.configure('steer', 'workers', NULL);
CALL migrate_ext.finalize('steer', options => '{"nosuch": 1}');
CALL migrate_ext.finalize('steer', options => '{"blockers": "shoot"}');
CALL migrate_ext.finalize('steer', options => '[]');
CALL migrate_ext.finalize('steer', options => NULL);

-- wrong state
CALL migrate_ext.finalize('steer');
CALL migrate_ext.undo('steer');
CALL migrate_ext.complete('steer');
CALL migrate_ext.verify('steer');
SELECT migrate_ext.swap('steer');
SELECT migrate_ext.unswap('steer');
SELECT migrate_ext.forget('steer');

-- a procedure in a transaction block
BEGIN;
CALL migrate_ext.finalize('steer');
ROLLBACK;
BEGIN;
CALL migrate_ext.wait_for('steer', 'live');
ROLLBACK;
SET application_name = 'steer' \; CALL migrate_ext.wait_for('steer', 'live');

-- READ ONLY
BEGIN READ ONLY;
SELECT migrate_ext.start('steer');
ROLLBACK;

-- somebody else
SET ROLE steer_stranger;
SELECT migrate_ext.start('steer');
CALL migrate_ext.finalize('steer');
SELECT count(*) FROM migrate_ext.migrations;
RESET ROLE;

-- the codes of the same
\set VERBOSITY sqlstate
SELECT migrate_ext.start('nosuch');
SELECT migrate_ext.start(NULL);
CALL migrate_ext.run('steer', 'swapped');
CALL migrate_ext.run('steer', 'live', '-1 second');
SELECT migrate_ext.configure('steer', 'nosuch', '1');
CALL migrate_ext.finalize('steer', options => '{"nosuch": 1}');
CALL migrate_ext.finalize('steer');
SELECT migrate_ext.swap('steer');
SELECT migrate_ext.forget('steer');
BEGIN;
CALL migrate_ext.undo('steer');
ROLLBACK;
BEGIN READ ONLY;
SELECT migrate_ext.start('steer');
ROLLBACK;
SET ROLE steer_stranger;
SELECT migrate_ext.start('steer');
RESET ROLE;
\set VERBOSITY default

-- pause and resume; a rolled back call leaves nothing
SELECT migrate_ext.pause('steer', 'lunch');
SELECT migrate_ext.pause('steer');
SELECT paused, pause_reason FROM migrate_ext.migrations WHERE migration = 'steer';
CALL migrate_ext.run('steer');
SELECT migrate_ext.resume('steer');
BEGIN;
SELECT migrate_ext.configure('steer', 'workers', '0');
SELECT migrate_ext.pause('steer');
ROLLBACK;
SELECT paused, goal FROM migrate_ext.migrations WHERE migration = 'steer';
SELECT migrate_ext.configure('steer', 'batch_target_ms', '100');

-- cancel: as if nothing had been; again is a NOTICE
CALL migrate_ext.cancel('steer');
CALL migrate_ext.cancel('steer');
SELECT state FROM migrate_ext.migrations WHERE migration = 'steer';
SELECT to_regclass('steer_new') IS NULL AS target_gone, count(*) FROM steer;
SELECT migrate_ext.start('steer');
CALL migrate_ext.wait_for('steer', 'live');
SELECT migrate_ext.forget('steer');
SELECT count(*) FROM migrate_ext.migrations WHERE migration = 'steer';

DROP TABLE steer;
DROP ROLE steer_stranger;
