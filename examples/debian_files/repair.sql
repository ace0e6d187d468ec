-- For pgbench: one package is repaired, which changes the rows of its files where they stand. Works in
-- both releases.
SELECT number FROM packages ORDER BY random() LIMIT 1 \gset
BEGIN;
UPDATE packages SET installs = installs + 1 WHERE number = :number;
UPDATE files SET installs = installs + 1 WHERE package = (SELECT name FROM packages WHERE number = :number);
COMMIT;
