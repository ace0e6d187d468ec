-- Step 1: the tables as an application has them, filled with what dpkg knows about this machine.
\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
CREATE EXTENSION IF NOT EXISTS migrate_ext;

BEGIN;

-- The parent. name is what dpkg calls its own files of the package: with the architecture (libc6:amd64)
-- where the package can be installed for several at a time. A version may begin with an epoch (2:1.0-1).
CREATE TABLE packages (
    name         text PRIMARY KEY,
    version      text,
    architecture text,
    section      text,                          -- NULL where the package has none
    status       text NOT NULL,
    number       integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    installs     integer NOT NULL DEFAULT 1     -- how often it was installed
);

-- The child, which is to be partitioned by its package's section. It has no column for that yet.
CREATE TABLE files (
    package  text NOT NULL,
    path     text NOT NULL,
    md5      text NOT NULL,
    installs integer NOT NULL DEFAULT 1,
    PRIMARY KEY (package, path)
);
CREATE INDEX ON files (md5);

-- dpkg's files line by line. COPY refuses a line of any other form.
CREATE TABLE md5sums (
    file text NOT NULL CHECK (file LIKE '%.md5sums'),
    line text NOT NULL CHECK (line ~ '^[0-9a-f]{32}  .')
);

-- COPY takes a backslash for the beginning of an escape: each is doubled. Between file and line grep
-- puts a NUL, which becomes the tab that COPY expects. An empty field is NULL.
\copy packages (name, version, architecture, section, status) FROM PROGRAM 'dpkg-query -W -f ''${Package}\t${Multi-Arch}\t${Version}\t${Architecture}\t${Section}\t${db:Status-Status}\n'' | sed ''s/\\/\\\\/g'' | awk -F ''\t'' -v OFS=''\t'' ''{ print ($2 == "same" ? $1 ":" $4 : $1), $3, $4, $5, $6 }''' WITH (NULL '')
\copy md5sums FROM PROGRAM 'cd "${DPKG_ADMINDIR:-/var/lib/dpkg}/info" && grep -aHZ "" -- *.md5sums | LC_ALL=C sed ''s/\\/\\\\/g; s/\t/\\t/g; s/\r/\\r/g; s/\x00/\t/'''

INSERT INTO files (package, path, md5)
SELECT left(file, -length('.md5sums')), substr(line, 35), left(line, 32)
FROM md5sums;

-- A checksum of all files, whatever table they stand in. This shell command gives the same:
--   cd /var/lib/dpkg/info && grep -aH '' *.md5sums | LC_ALL=C sort | md5sum
-- The text of a function is looked at when it is called: it follows the table's name through the swap.
CREATE FUNCTION fingerprint() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT md5(string_agg(line, '' ORDER BY line COLLATE "C"))
    FROM (SELECT package || '.md5sums:' || md5 || '  ' || path || E'\n' AS line FROM files) AS lines
$$;
CREATE TABLE loaded AS SELECT count(*) AS rows, fingerprint() FROM files;

COMMIT;
ANALYZE packages, files;

\ir check.sql
SELECT section, count(*) AS packages, (array_agg(name ORDER BY name))[1] AS one_of_them
FROM packages GROUP BY section ORDER BY packages DESC LIMIT 5;
