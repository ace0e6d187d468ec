-- What holds after each step, and between any two writes of the application: nothing is lost, nothing is
-- double. Stops with an error where it doesn't hold. Every comparison is one statement, so it sees one
-- moment, however much is written meanwhile.
\set ON_ERROR_STOP on

-- Where files is partitioned the section comes from its own column, else from the package.
SELECT CASE relkind WHEN 'p' THEN 'f.section' ELSE 'coalesce(p.section, ''none'')' END AS section
FROM pg_class WHERE oid = 'files'::regclass \gset

SELECT count(*) AS files, count(DISTINCT :section) AS sections, count(DISTINCT f.tableoid) AS tables,
       sum(f.installs) - count(*) AS written_again
FROM files AS f LEFT JOIN packages AS p ON p.name = f.package;

-- The control: files by section as dpkg has them, computed from tables that no migration touches.
CREATE TEMP TABLE wrong AS
WITH control AS (
    SELECT coalesce(p.section, 'none') AS section, count(*) AS files
    FROM md5sums AS m LEFT JOIN packages AS p ON p.name || '.md5sums' = m.file
    GROUP BY 1
), found AS (
    SELECT :section AS section, count(*) AS files
    FROM files AS f LEFT JOIN packages AS p ON p.name = f.package
    GROUP BY 1
)
SELECT format('section %s: %s files instead of %s', section, coalesce(f.files, 0), coalesce(c.files, 0)) AS what
FROM control AS c FULL JOIN found AS f USING (section)
WHERE c.files IS DISTINCT FROM f.files;

INSERT INTO wrong
SELECT 'the files are others than those that were loaded'
FROM loaded WHERE fingerprint <> fingerprint();

-- A write that was lost would show here: who installs a package counts it on both sides.
INSERT INTO wrong
SELECT format('%s, %s: installed %s times instead of %s', f.package, f.path, f.installs, p.installs)
FROM files AS f JOIN packages AS p ON p.name = f.package
WHERE f.installs <> p.installs LIMIT 10;

DO $$
BEGIN
    ASSERT NOT EXISTS (SELECT FROM wrong), (SELECT string_agg(what, '; ') FROM wrong);
    RAISE NOTICE 'all as it should be';
END $$;
DROP TABLE wrong;
