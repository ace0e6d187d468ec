-- What somebody else does to a migration's tables behind its back, in every state, and in a swap between its look and its locks. The
-- application's writes go on: a WARNING would tell of one that fails. Is it noticed, does the migration go on when it is mended, and are
-- both tables equal in the end ("whole")?
SET client_min_messages = warning;
CREATE SCHEMA tamper;
CREATE EXTENSION dblink SCHEMA tamper;
SET search_path = tamper, public;

-- {front} is what the application uses, {back} the other one; {new} is the partitioned one, {old} the other one
CREATE TABLE harm (n integer GENERATED ALWAYS AS IDENTITY, name text, states text[], harm text, mend text);
CREATE TABLE result (i integer GENERATED ALWAYS AS IDENTITY, n integer, state text, told text, ended text);

CREATE FUNCTION tamper.spell(statement text, swapped boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    names text[] := '{front,t,back,t_new,new,t_new,old,t,sync,!migrate_ext_sync,truncate,!migrate_ext_truncate}';
BEGIN
    IF swapped THEN
        names := '{front,t,back,t_orig,new,t,old,t_orig,sync,!migrate_ext_reverse,truncate,!migrate_ext_reverse_truncate}';
    END IF;
    FOR i IN 1 .. cardinality(names) BY 2 LOOP
        statement := replace(statement, '{' || names[i] || '}', names[i + 1]);
    END LOOP;
    statement := regexp_replace(statement, '(!\w+)', '"\1"', 'g');
    RETURN replace(statement, '{log}', (SELECT 'migrate_ext.log_' || max(id) FROM migrate_ext.migration));
END
$$;

-- Statements in another session; what they fail with, or NULL.  No snapshot is held meanwhile.
CREATE PROCEDURE tamper.await(connection text, INOUT told text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 60000 LOOP
        COMMIT;
        EXIT WHEN dblink_is_busy(connection) = 0;
        PERFORM pg_sleep(0.002);
    END LOOP;
    IF dblink_is_busy(connection) = 1 THEN
        RAISE '% does not come to an end', connection;
    END IF;
    told := NULL;
    LOOP
        BEGIN
            PERFORM FROM dblink_get_result(connection) AS r (x text);
            EXIT WHEN NOT FOUND;
        EXCEPTION WHEN OTHERS THEN
            told := sqlstate || ' ' || sqlerrm;
        END;
    END LOOP;
END
$$;
CREATE PROCEDURE tamper.say(connection text, statements text, INOUT told text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
    told := NULL;
    IF statements <> '' THEN
        PERFORM dblink_send_query(connection, statements);
        CALL tamper.await(connection, told);
    END IF;
END
$$;
CREATE PROCEDURE tamper.must(connection text, statements text) LANGUAGE plpgsql AS $$
DECLARE
    told text;
BEGIN
    CALL tamper.say(connection, statements, told);
    IF told IS NOT NULL THEN
        RAISE WARNING '%: %', statements, told;
    END IF;
END
$$;
-- until the runner stands at the point that the holder holds
CREATE PROCEDURE tamper.wait_point() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        COMMIT;
        IF EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted) THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RAISE 'nobody comes to the point';
END
$$;

-- the migration at rest in a state; "paved" is catching_up with the reverse triggers made; "swap" and "undo" are live and swapped ones on their way, between the look and the locks
CREATE PROCEDURE tamper.bring(state text, swapped boolean) LANGUAGE plpgsql AS $$
DECLARE
    told text;
BEGIN
    CALL tamper.must('runner', 'CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v text);
        INSERT INTO t SELECT i, i * 5, ''row '' || i FROM generate_series(1, 50) i;
        SELECT migrate_ext.partition_by_range(''t'', ''k'', 100, 0, 300, 0)');
    IF state <> 'created' THEN
        CALL tamper.must('runner', format('CALL migrate_ext.run(''t'', %L)',
                                          CASE WHEN swapped OR state = 'swap' THEN 'live' WHEN state = 'paved' THEN 'catching_up' ELSE state END));
    END IF;
    IF state = 'paved' THEN
        CALL tamper.must('holder', 'BEGIN; LOCK t IN ROW EXCLUSIVE MODE');
        CALL tamper.say('runner', 'CALL migrate_ext.run(''t'', ''live'', ''1 s'')', told);
        CALL tamper.must('holder', 'COMMIT');
    END IF;
    IF swapped THEN
        CALL tamper.must('runner', 'CALL migrate_ext.finalize(''t'', ''20 s'')');
    END IF;
    IF state IN ('swap', 'undo') THEN
        CALL tamper.must('holder', 'SELECT migrate_ext.debug_hold(''swap_before_locks'')');
        PERFORM dblink_send_query('runner', format('CALL migrate_ext.%s(''t'', ''20 s'')', CASE WHEN swapped THEN 'undo' ELSE 'finalize' END));
        CALL tamper.wait_point();
    END IF;
END
$$;

-- what is next for a migration that is whole: it becomes live, or is swapped, this way or that
CREATE FUNCTION tamper.next_call(state text, swapped boolean) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN swapped THEN 'CALL migrate_ext.undo(''t'', ''20 s'')'
                WHEN state IN ('live', 'swap') THEN 'CALL migrate_ext.finalize(''t'', ''20 s'')'
                ELSE 'CALL migrate_ext.run(''t'')' END
$$;
CREATE FUNCTION tamper.difference() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    back regclass := coalesce(to_regclass('public.t_orig'), to_regclass('public.t_new'));
    columns text;
    n bigint;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('SELECT count(*) FROM ((SELECT %1$s FROM public.t EXCEPT ALL SELECT %1$s FROM %2$s) UNION ALL (SELECT %1$s FROM %2$s EXCEPT ALL SELECT %1$s FROM public.t)) d', columns, back) INTO n;
    RETURN n;
EXCEPTION WHEN undefined_column OR undefined_table THEN
    RETURN -1;
END
$$;

-- mended and resumed: does it come to its end?
CREATE PROCEDURE tamper.go_on(state text, swapped boolean, mend text, INOUT ended text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    wanted text := CASE WHEN swapped THEN 'live' WHEN state IN ('live', 'swap') THEN 'swapped' ELSE 'live' END;
    told text;
    now text;
BEGIN
    IF mend IS NULL THEN
        CALL tamper.say('runner', CASE WHEN swapped THEN 'CALL migrate_ext.complete(''t'')' ELSE 'CALL migrate_ext.cancel(''t'')' END, told);
        ended := coalesce(told, 'ended');
        RETURN;
    END IF;
    CALL tamper.must('other', mend);
    CALL tamper.must('app', 'UPDATE t SET k = k + 5 WHERE id = 40');
    CALL tamper.must('other', 'SELECT migrate_ext.resume(''t'')');
    IF wanted = 'live' AND NOT swapped THEN
        CALL tamper.say('runner', 'CALL migrate_ext.wait_for(''t'', ''live'', ''20 s'')', told);
    ELSE
        CALL tamper.say('runner', tamper.next_call(state, swapped), told);
    END IF;
    ended := concat(told || '; ');
    SELECT m.state INTO now FROM migrate_ext.migrations m WHERE migration = 't';
    IF told IS NULL AND tamper.difference() <> 0 THEN
        -- what was written past the trigger the next comparison finds
        CALL tamper.must('runner', 'CALL migrate_ext.verify(''t'')');
        ended := now || (SELECT format(', verify: %s missing, %s extra, %s different; ', missing, extra, different)
                         FROM migrate_ext.verifications WHERE migration = 't' ORDER BY verified_at DESC LIMIT 1);
        told := 'MX001';
        wanted := CASE now WHEN 'live' THEN 'swapped' ELSE 'live' END;
    END IF;
    IF told LIKE 'MX001%' THEN
        CALL tamper.must('runner', 'SELECT migrate_ext.repair(''t'')');
        CALL tamper.must('runner', CASE now WHEN 'live' THEN 'CALL migrate_ext.finalize(''t'', ''20 s'')' ELSE 'CALL migrate_ext.undo(''t'', ''20 s'')' END);
    END IF;
    SELECT m.state INTO now FROM migrate_ext.migrations m WHERE migration = 't';
    ended := ended || CASE WHEN now = wanted AND tamper.difference() = 0 THEN 'whole' ELSE format('%s, %s rows differ', now, tamper.difference()) END;
    -- what the application has written is all there is
    IF NOT swapped AND state <> 'swap' AND (SELECT count(*) FROM public.t) <> 51 THEN
        ended := 'ROWS LOST';
    END IF;
END
$$;

CREATE PROCEDURE tamper.clear() LANGUAGE plpgsql AS $$
BEGIN
    SET client_min_messages = error;
    IF EXISTS (SELECT FROM migrate_ext.migrations WHERE migration = 't' AND state = 'swapped') THEN
        CALL tamper.must('runner', 'CALL migrate_ext.complete(''t'', true)');
    ELSIF EXISTS (SELECT FROM migrate_ext.migrations WHERE migration = 't' AND state NOT IN ('completed', 'cancelled')) THEN
        CALL tamper.must('runner', 'CALL migrate_ext.cancel(''t'')');
    END IF;
    CALL tamper.must('runner', 'SELECT migrate_ext.forget(''t'')');
    CALL tamper.must('other', 'DROP TABLE IF EXISTS t, t_new, t_orig, t_p0, t_p100, t_p200, t_p300 CASCADE');
    SET client_min_messages = warning;
END
$$;

-- One harm in one state.
CREATE PROCEDURE tamper.inflict(h tamper.harm, state text) LANGUAGE plpgsql AS $$
DECLARE
    swapped boolean := state IN ('swapped', 'undo');
    told text;
    reason text;
    ended text;
BEGIN
    CALL tamper.bring(state, swapped);
    CALL tamper.must('other', tamper.spell(h.harm, swapped));
    CALL tamper.must('app', 'UPDATE t SET k = k + 100 WHERE id IN (7, 30)');
    CALL tamper.must('app', 'DELETE FROM t WHERE id = 12');
    CALL tamper.must('app', 'INSERT INTO t (id, k) VALUES (90, 90), (91, 180)');
    IF state IN ('swap', 'undo') THEN
        CALL tamper.must('holder', 'SELECT migrate_ext.debug_release(''swap_before_locks'')');
        CALL tamper.await('runner', told);
    ELSE
        CALL tamper.say('runner', tamper.next_call(state, swapped), told);
    END IF;
    SELECT pause_reason INTO reason FROM migrate_ext.migrations WHERE migration = 't' AND paused;
    told := CASE WHEN reason IS NULL THEN coalesce(told, 'nothing') ELSE left(told, 5) || ' paused: ' || reason END;
    CALL tamper.go_on(state, swapped, tamper.spell(h.mend, swapped), ended);
    INSERT INTO tamper.result (n, state, told, ended) VALUES (h.n, state, told, ended);
    CALL tamper.clear();
END
$$;
CREATE PROCEDURE tamper.inflict_all() LANGUAGE plpgsql AS $$
DECLARE
    connection text;
    h tamper.harm;
    state text;
BEGIN
    FOREACH connection IN ARRAY '{runner,holder,app,other}'::text[] LOOP
        PERFORM dblink_connect(connection, format('host=%s port=%s dbname=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
                                                  current_setting('port'), current_database()));
        PERFORM dblink_exec(connection, 'SET client_min_messages = error');
    END LOOP;
    FOR h IN SELECT * FROM tamper.harm ORDER BY n LOOP
        FOREACH state IN ARRAY h.states LOOP
            CALL tamper.inflict(h, state);
        END LOOP;
    END LOOP;
    PERFORM dblink_disconnect(c) FROM unnest(dblink_get_connections()) c;
END
$$;

\set unmade '{created}'
\set before '{logging,copying,indexing,catching_up}'
\set copied '{copying,indexing,catching_up}'
\set later '{live,swap,swapped,undo}'
INSERT INTO harm (name, states, harm, mend)
SELECT name, states, harm, mend FROM (VALUES
    ('trigger disabled', :'before'::text[] || '{paved}'::text[] || :'later', 'ALTER TABLE {front} DISABLE TRIGGER {sync}', ''),
    ('trigger dropped', :'before'::text[] || :'later', 'DROP TRIGGER {sync} ON {front}', ''),
    ('trigger renamed', :'before'::text[] || :'later', 'ALTER TRIGGER {sync} ON {front} RENAME TO other', ''),
    ('trigger of TRUNCATE dropped', :'before'::text[] || :'later', 'DROP TRIGGER {truncate} ON {front}', ''),
    ('column added', :'unmade'::text[] || :'before' || :'later', 'ALTER TABLE {front} ADD COLUMN extra integer DEFAULT 1', 'ALTER TABLE {front} DROP COLUMN extra'),
    ('column dropped', :'before'::text[] || '{live,swap}', 'ALTER TABLE {front} DROP COLUMN v', 'SELECT migrate_ext.replace_sync(''t'')'),
    ('column dropped', '{swapped,undo}'::text[], 'ALTER TABLE {front} DROP COLUMN v', 'ALTER TABLE {back} DROP COLUMN v; SELECT migrate_ext.replace_sync(''t'')'),
    ('column retyped', :'unmade'::text[] || :'copied' || :'later', 'ALTER TABLE {front} ALTER COLUMN v TYPE varchar(50)', 'ALTER TABLE {front} ALTER COLUMN v TYPE text'),
    ('column retyped, followed', '{indexing,live,swapped}'::text[], 'ALTER TABLE {front} ALTER COLUMN v TYPE varchar(50)', 'SELECT migrate_ext.replace_sync(''t'')'),
    ('column of the other one dropped', :'copied'::text[] || :'later', 'ALTER TABLE {back} DROP COLUMN v', 'ALTER TABLE {back} ADD COLUMN v text; SELECT migrate_ext.replace_sync(''t'')'),
    ('VACUUM FULL', :'unmade'::text[] || :'copied' || :'later', 'VACUUM FULL {front}', ''),
    ('CLUSTER', '{copying,live}'::text[], 'CLUSTER {front} USING t_pkey', 'ALTER TABLE {front} SET WITHOUT CLUSTER'),
    ('CLUSTER', '{undo}'::text[], 'CLUSTER {front} USING t_pkey', ''),
    ('rewritten with other values', :'copied'::text[] || :'later', 'ALTER TABLE {front} ALTER COLUMN v TYPE text USING v || ''!''', ''),
    ('VACUUM FULL of the other one', :'copied'::text[] || :'later', 'VACUUM FULL {back}', ''),
    ('partition dropped', :'unmade'::text[] || :'before' || :'later', 'DROP TABLE t_p100', ''),
    ('partition detached', :'copied'::text[] || :'later', 'ALTER TABLE {new} DETACH PARTITION t_p100', ''),
    ('partition detached and attached', :'copied'::text[] || :'later', 'ALTER TABLE {new} DETACH PARTITION t_p100; UPDATE t_p100 SET v = ''mine''; ALTER TABLE {new} ATTACH PARTITION t_p100 FOR VALUES FROM (100) TO (200)', ''),
    ('partition attached', :'copied'::text[] || :'later', 'CREATE TABLE t_p300 PARTITION OF {new} FOR VALUES FROM (300) TO (400)', ''),
    ('row of the other one changed', :'copied'::text[] || :'later', 'UPDATE {back} SET v = ''mine'' WHERE id = 20', ''),
    ('row of the other one deleted', :'copied'::text[] || :'later', 'DELETE FROM {back} WHERE id = 20', ''),
    ('row put into the other one', :'unmade'::text[] || :'before' || :'later', 'INSERT INTO {back} (id, k, v) VALUES (1000, 1, ''mine'')', ''),
    ('row put in that is to be copied', '{logging,copying}'::text[], 'INSERT INTO {back} (id, k, v) VALUES (20, 100, ''mine'')', 'DELETE FROM t_new WHERE v = ''mine'''),
    ('other one truncated', :'copied'::text[] || :'later', 'TRUNCATE {back}', ''),
    ('partition truncated', :'copied'::text[], 'TRUNCATE t_p0', ''),
    ('change log dropped', :'copied'::text[] || '{live,swapped}', 'DELETE FROM pg_depend WHERE objid = ''{log}''::regclass AND deptype = ''e''; DROP TABLE {log} CASCADE', NULL),
    ('key dropped', :'unmade'::text[] || :'copied' || '{live,swap}', 'ALTER TABLE {front} DROP CONSTRAINT t_pkey', 'ALTER TABLE {front} ADD PRIMARY KEY (id)'),
    ('key dropped', '{swapped,undo}'::text[], 'ALTER TABLE {front} DROP CONSTRAINT t_pkey', 'ALTER TABLE {front} ADD PRIMARY KEY (id, k)'),
    ('key of the other one dropped', '{catching_up,live,swap}'::text[], 'ALTER TABLE {back} DROP CONSTRAINT t_pkey_new', 'ALTER TABLE {back} ADD CONSTRAINT t_pkey_new PRIMARY KEY (id, k)'),
    ('key of the other one dropped', '{swapped,undo}'::text[], 'ALTER TABLE {back} DROP CONSTRAINT t_pkey_orig', 'ALTER TABLE {back} ADD CONSTRAINT t_pkey_orig PRIMARY KEY (id)'),
    ('other one dropped', :'unmade'::text[] || :'copied' || :'later', 'DROP TABLE {back} CASCADE', NULL)
) h (name, states, harm, mend);
CALL inflict_all();
\pset tuples_only on
\pset format unaligned
SELECT name, string_agg(state, ' ' ORDER BY i), told, ended FROM harm JOIN result USING (n) GROUP BY n, name, told, ended ORDER BY n, min(i);
SET client_min_messages = error;
DROP SCHEMA tamper CASCADE;
-- what somebody writes to the other table by hand while the trigger is disabled does not come back to the table itself
SET client_min_messages = warning;
CREATE TABLE disabled (id int PRIMARY KEY, k int NOT NULL);
INSERT INTO disabled SELECT i, i FROM generate_series(1, 10) i;
SELECT migrate_ext.partition_by_hash('disabled', 'id', 2);
CALL migrate_ext.run('disabled', 'live');
ALTER TABLE disabled DISABLE TRIGGER USER;
INSERT INTO disabled_new VALUES (11, 11);
UPDATE disabled_new SET k = 0 WHERE id = 1;
DELETE FROM disabled_new WHERE id = 2;
TRUNCATE disabled_p0;
TRUNCATE disabled_new;
SELECT count(*), sum(k) FROM disabled;
-- put right, and swapped, it does; but not while it is swapped back
CALL migrate_ext.finalize('disabled');
SELECT migrate_ext.resume('disabled');
SELECT migrate_ext.repair('disabled');
CALL migrate_ext.finalize('disabled');
CALL migrate_ext.verify('disabled');
BEGIN;
SAVEPOINT before;
SELECT migrate_ext.unswap('disabled');
UPDATE disabled_new SET k = 1000 WHERE id = 2;
SELECT k FROM disabled WHERE id = 2;
ROLLBACK TO before;
UPDATE disabled SET k = 200 WHERE id = 2;
COMMIT;
SELECT count(*), sum(k) FROM disabled;
SELECT count(*), sum(k) FROM disabled_orig;
CALL migrate_ext.complete('disabled', true);
SELECT migrate_ext.forget('disabled');
DROP TABLE disabled;
