-- For pgbench: one package is installed again, its files removed and put back, as an application does it
-- that has never heard of a section.
SELECT number FROM packages ORDER BY random() LIMIT 1 \gset
BEGIN;
UPDATE packages SET installs = installs + 1 WHERE number = :number;
DELETE FROM files WHERE package = (SELECT name FROM packages WHERE number = :number);
INSERT INTO files (package, path, md5, installs)
SELECT p.name, substr(m.line, 35), left(m.line, 32), p.installs
FROM packages AS p JOIN md5sums AS m ON m.file = p.name || '.md5sums'
WHERE p.number = :number;
COMMIT;
