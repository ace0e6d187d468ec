-- Every refusal of partition_by_*, create_migration and preview: what it says, and that nothing is
-- left behind.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
RESET client_min_messages;
SET TimeZone = 'UTC';
CREATE SCHEMA target_errors;
SET search_path = target_errors;

\pset tuples_only on
\pset format unaligned

CREATE TYPE pair AS (a int, b int);
CREATE TABLE good (
    id bigint PRIMARY KEY,
    site integer,
    word text NOT NULL DEFAULT 'w',
    at timestamptz NOT NULL DEFAULT '2024-01-01',
    day date NOT NULL DEFAULT '2024-01-01',
    doc json,
    place point,
    twice bigint GENERATED ALWAYS AS (id * 2) STORED,
    code uuid NOT NULL DEFAULT '00000000-0000-4000-8000-000000000000',
    price money NOT NULL DEFAULT 1
);
INSERT INTO good (id, site) SELECT i, nullif(i % 5, 0) FROM generate_series(1, 10) i;

-- NULL arguments
SELECT helper.try($$SELECT migrate_ext.partition_by_range(NULL::regclass, 'id', 10)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', NULL, 10)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', NULL::bigint)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', NULL::interval)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', NULL::text)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, headroom => NULL)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, options => NULL)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list(NULL, 'site')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', NULL)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', NULL)$$);
SELECT helper.try($$SELECT migrate_ext.create_migration(NULL, 'good')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('good', NULL)$$);
SELECT helper.try($$SELECT migrate_ext.preview(NULL, 'id')$$);
SELECT helper.try($$SELECT migrate_ext.preview('good', NULL)$$);

-- options
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, options => '[]')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, options => '{"time_zone": "UTC"}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, options => '{"groups": {}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'word', options => '{"timezone": "UTC"}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2, options => '{"x": 1}')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('good', 'good', options => '{"groups": {}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'at', '1 day', options => '{"timezone": 1}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'at', '1 day', options => '{"timezone": "Mars/Olympus"}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'word', options => '{"groups": ["a"]}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'word', options => '{"groups": {}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'word', options => '{"groups": {"a": "b"}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'word', options => '{"groups": {"a": []}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'word', options => '{"groups": {"a": [null]}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'id', options => '{"groups": {"a": ["x"]}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'id', options => '{"groups": {"a": [1], "b": [1]}}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2, options => '{"on_null_key": "ignore"}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2, options => '{"columns": "x"}')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2, options => '{"columns": {"nope": "1"}}')$$);

-- names
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2, migration => '')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2, migration => repeat('x', 64))$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('nothing', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash(1234567, 'id', 2)$$);

-- the key
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'nope', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'ID', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'ctid', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'twice', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'doc')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'doc', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'place', 10)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'price', 10)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'site', 10)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'site')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'site', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'site', 2, options => '{"columns": {"site": "nullif(s.site, 1)"}}')$$);

-- steps and bounds
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 0)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', -5)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', '-5')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', '1.5')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', '')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', '1 month')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', interval '1 month')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', '10', start => 'x')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', 10)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '10')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', 'a month')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '0 days')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '-1 month')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '1 month -1 day')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '1 month 1 day')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '12 hours')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'at', '0.5 seconds')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '1 month', start => 'yesteryear')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'day', '1 month', start => 'infinity')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'at', '1 month', stop => '-infinity')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'word', '10')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'code', '1 month')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, start => 20, stop => 20)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, start => 20, stop => 10)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, stop => -5)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'at', interval '1 day', start => '2024-02-01', stop => '2024-01-01')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'site', '10', start => '3000000000')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, headroom => -1)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 0)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', -1)$$);
-- a bound that the key's domain forbids
CREATE DOMAIN odd AS integer CHECK (VALUE % 2 = 1);
CREATE TABLE odds (id odd PRIMARY KEY);
INSERT INTO odds VALUES (1);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('odds', 'id', 10)$$);

-- more partitions than the server's lock table takes, whatever asks for them
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 1000000)$$, '\d+');
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 1, stop => 1000000)$$, '\d+');
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 1, stop => 9223372036854775807)$$, '\d+');
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'at', '1 second', stop => '9999-12-31')$$, '\d+');
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'at', '1 month', stop => '99999-12-31')$$, '\d+');
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 10, headroom => 2147483647)$$, '\d+');
SELECT helper.try($$SELECT migrate_ext.preview('good', 'id', 1000000)$$, '\d+');
CREATE TABLE varied (id integer PRIMARY KEY);
INSERT INTO varied SELECT generate_series(1, 1001);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('varied', 'id')$$);
ANALYZE varied;
SELECT helper.try($$SELECT * FROM migrate_ext.preview('varied', 'id')$$);
SELECT helper.try($$SELECT * FROM migrate_ext.preview('varied', 'id', 2, '10')$$);
SELECT helper.try($$SELECT * FROM migrate_ext.preview('varied', 'id', 0)$$);
SELECT helper.try($$SELECT * FROM migrate_ext.preview('varied', 'id', step => '1 month')$$);
SELECT helper.try($$SELECT * FROM migrate_ext.preview('good', 'word')$$);
SELECT helper.try($$SELECT * FROM migrate_ext.preview('good', 'doc')$$);
CREATE TABLE bare (id integer PRIMARY KEY);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('bare', 'id')$$);

-- what can't be a source
CREATE VIEW looks AS SELECT * FROM good;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('looks', 'id', 2)$$);
CREATE MATERIALIZED VIEW looked AS SELECT * FROM good;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('looked', 'id', 2)$$);
CREATE FOREIGN DATA WRAPPER target_errors_wrapper;
CREATE SERVER target_errors_server FOREIGN DATA WRAPPER target_errors_wrapper;
CREATE FOREIGN TABLE far (id integer) SERVER target_errors_server;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('far', 'id', 2)$$);
CREATE SEQUENCE counter;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('counter', 'last_value', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good_pkey', 'id', 2)$$);
CREATE TEMPORARY TABLE brief (id integer PRIMARY KEY);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('pg_temp.brief', 'id', 2)$$);
CREATE UNLOGGED TABLE careless (id integer PRIMARY KEY);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('careless', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('pg_class', 'oid', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('migrate_ext.migration', 'id', 2)$$);
CREATE TABLE done (id integer PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE done_0 PARTITION OF done FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('done', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('done_0', 'id', 2)$$);
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('parent', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('child', 'id', 2)$$);
CREATE TABLE typed OF pair (PRIMARY KEY (a));
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('typed', 'a', 2)$$);
-- no identity
CREATE TABLE nameless (id integer, other integer NOT NULL);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('nameless', 'id', 2)$$);
ALTER TABLE nameless ADD UNIQUE (id);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('nameless', 'id', 2)$$);
ALTER TABLE nameless ADD CONSTRAINT later PRIMARY KEY (other) DEFERRABLE;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('nameless', 'id', 2)$$);

-- not the owner
CREATE ROLE regress_target_owner;
CREATE ROLE regress_target_member IN ROLE regress_target_owner;
CREATE ROLE regress_target_other;
GRANT USAGE ON SCHEMA target_errors TO PUBLIC;
GRANT ALL ON good TO regress_target_other;
SET ROLE regress_target_other;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('good', 'done')$$);
SELECT helper.try($$SELECT * FROM migrate_ext.preview('good', 'id', 2)$$);
RESET ROLE;
-- the owner, who may not create tables there
ALTER TABLE good OWNER TO regress_target_owner;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2)$$);
GRANT CREATE ON SCHEMA target_errors TO regress_target_owner;

-- READ ONLY
BEGIN READ ONLY;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_range('good', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'id')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('good', 'done')$$);
SELECT count(*) FROM migrate_ext.preview('good', 'id', 2);
COMMIT;

-- names that are taken
CREATE TABLE good_new (id integer);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2)$$);
DROP TABLE good_new;

-- a member of the owning role may; the tables are the owner's
BEGIN;
SET ROLE regress_target_member;
SELECT migrate_ext.partition_by_hash('good', 'id', 2);
RESET ROLE;
SELECT relname, relowner::regrole FROM pg_class WHERE relname ~ '^good_(new|p\d)' ORDER BY 1;
-- already in a migration: the same again is none of these
SELECT migrate_ext.partition_by_hash('good', 'id', 2, migration => 'good');
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 3)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_list('good', 'word', migration => 'good')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2, migration => 'again')$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good_new', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good_p0', 'id', 2)$$);
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('varied', 'id', 2, migration => 'good')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'good_new')$$);
SET ROLE regress_target_other;
SELECT helper.try($$SELECT migrate_ext.partition_by_hash('good', 'id', 2)$$);
RESET ROLE;
ROLLBACK;

-- targets of the caller's own
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'varied')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'bare')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'good')$$);
CREATE TABLE mine (id integer NOT NULL) PARTITION BY HASH (id);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine')$$);
ALTER TABLE mine OWNER TO regress_target_owner;
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine')$$);
ALTER TABLE mine OWNER TO CURRENT_USER;
CREATE FOREIGN TABLE mine_far PARTITION OF mine FOR VALUES WITH (MODULUS 2, REMAINDER 0) SERVER target_errors_server;
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine')$$);
DROP FOREIGN TABLE mine_far;
CREATE UNLOGGED TABLE mine_0 PARTITION OF mine FOR VALUES WITH (MODULUS 2, REMAINDER 0);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine')$$);
ALTER TABLE mine_0 SET LOGGED;
CREATE TABLE mine_1 PARTITION OF mine FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine_1')$$);
ALTER TABLE mine ADD extra integer NOT NULL;
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine', options => '{"columns": {"extra": "random()"}}')$$);
SELECT helper.try($$SELECT migrate_ext.create_migration('varied', 'mine', options => '{"columns": {"extra": "1); DROP TABLE mine; --"}}')$$);
-- a partition's own key, in the place of the one that is to be made; the same one will do
CREATE TABLE keyed (id integer PRIMARY KEY, place integer NOT NULL);
CREATE TABLE keyed_new (id integer NOT NULL, place integer NOT NULL) PARTITION BY RANGE (place);
CREATE TABLE keyed_1 PARTITION OF keyed_new (PRIMARY KEY (id)) FOR VALUES FROM (1) TO (2);
SELECT helper.try($$SELECT migrate_ext.create_migration('keyed', 'keyed_new')$$);
ALTER TABLE keyed_1 DROP CONSTRAINT keyed_1_pkey;
ALTER TABLE keyed_1 ADD PRIMARY KEY (id, place);
SET client_min_messages = warning;
BEGIN;
SELECT migrate_ext.create_migration('keyed', 'keyed_new');
ROLLBACK;
RESET client_min_messages;
DROP TABLE keyed, keyed_new;

-- nothing of all this has left a trace
SELECT name FROM migrate_ext.migration JOIN pg_class ON pg_class.oid = source WHERE relnamespace = 'target_errors'::regnamespace;
SELECT relname FROM pg_class WHERE relnamespace = 'target_errors'::regnamespace AND relname ~ '_(new|default|p\d+)$';

SET client_min_messages = warning;
DROP SCHEMA target_errors CASCADE;
DROP FOREIGN DATA WRAPPER target_errors_wrapper CASCADE;
DROP ROLE regress_target_member, regress_target_owner, regress_target_other;
