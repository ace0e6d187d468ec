-- Step 2: the new column, and how its value is found for who doesn't give it. No row is written: old
-- files have no section yet, those that are written from now on get theirs from a trigger.
\set ON_ERROR_STOP on

SELECT migrate_ext.add_sharding_key('files', 'section', 'text',
    $$coalesce((SELECT p.section FROM packages AS p WHERE p.name = s.package), 'none')$$);

\ir check.sql
