-- A publication's entry for the table, with column list and row filter, follows it at a swap and back.
-- What is published by it and by a subscription is in test/t/017_replication.pl.
SET client_min_messages = error;
CREATE TABLE published (gone text, id integer PRIMARY KEY, "Odd ""col" text, secret text, k integer NOT NULL);
ALTER TABLE published DROP COLUMN gone;
INSERT INTO published SELECT i, 'v' || i, 's', i % 3 FROM generate_series(1, 9) i;
CREATE TABLE beside (id integer PRIMARY KEY);
CREATE PUBLICATION "Odd ""pub" FOR TABLE published (k, "Odd ""col", id) WHERE (id > 3 AND id < 1000), beside WITH (publish_via_partition_root);
CREATE PUBLICATION plain_pub FOR TABLE published WITH (publish_via_partition_root);
COMMENT ON PUBLICATION plain_pub IS 'a comment';
SELECT migrate_ext.partition_by_list('published', 'k');
CALL migrate_ext.run('published');
CREATE FUNCTION problems() RETURNS TABLE (severity text, object text, problem text, remedy text) LANGUAGE sql AS
    $$ SELECT * FROM migrate_ext.preflight('published') WHERE object ~ 'publication' ORDER BY 1, 2, 3 $$;
-- nothing in the way
SELECT * FROM problems();
SELECT oid AS entry FROM pg_publication_rel WHERE prqual IS NOT NULL \gset
CREATE VIEW entries AS SELECT p.pubname, t.tablename, t.attnames, t.rowfilter FROM pg_publication p JOIN pg_publication_tables t USING (pubname) ORDER BY 1, 2;
TABLE entries;

-- each thing that is
ALTER PUBLICATION plain_pub SET (publish_via_partition_root = false);
SELECT * FROM problems() WHERE severity = 'error';
ALTER PUBLICATION plain_pub SET (publish_via_partition_root, publish = 'insert');
ALTER PUBLICATION plain_pub SET TABLE published (id, secret);
SELECT * FROM problems() WHERE severity = 'error';
ALTER PUBLICATION plain_pub SET (publish = 'insert, update');
SELECT * FROM problems() WHERE severity = 'error';
ALTER PUBLICATION plain_pub SET TABLE published WHERE (secret IS NOT NULL);
SELECT * FROM problems() WHERE severity = 'error';
ALTER PUBLICATION plain_pub SET TABLE published, published_new;
SELECT * FROM problems() WHERE severity = 'error';
CALL migrate_ext.finalize('published');
\echo :LAST_ERROR_SQLSTATE
ALTER PUBLICATION plain_pub SET TABLE published;

CALL migrate_ext.finalize('published');
TABLE entries;
SELECT message FROM migrate_ext.events WHERE kind = 'published' ORDER BY 1;
SELECT prrelid::regclass, prattrs, oid = :entry AS same FROM pg_publication_rel WHERE prqual IS NOT NULL;
-- the columns can't be dropped, as before
ALTER TABLE published DROP COLUMN "Odd ""col";
INSERT INTO published VALUES (10, 'ten', 's', 0);
UPDATE published SET "Odd ""col" = 'new', k = 2 WHERE id = 5;
DELETE FROM published WHERE id = 6;
SELECT * FROM problems() WHERE severity = 'error';
-- the key of the original is narrower: what only the partitioned table can publish keeps undo back
CREATE PUBLICATION by_key FOR TABLE published WHERE (k = 1) WITH (publish_via_partition_root);
SELECT * FROM problems() WHERE severity = 'error';
ALTER PUBLICATION by_key SET (publish = 'insert');
CALL migrate_ext.undo('published');
TABLE entries;
DROP PUBLICATION by_key;
INSERT INTO published VALUES (11, 'eleven', 's', 0);
UPDATE published SET "Odd ""col" = 'newer', k = 1 WHERE id = 5;
CALL migrate_ext.finalize('published');
TABLE entries;
CALL migrate_ext.complete('published', drop_original => true);
TABLE entries;
SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = 'plain_pub';
UPDATE published SET "Odd ""col" = 'newest', k = 2 WHERE id = 5;
SELECT migrate_ext.forget('published');
DROP PUBLICATION "Odd ""pub", plain_pub;
DROP VIEW entries;
DROP FUNCTION problems;
DROP TABLE published, beside;
