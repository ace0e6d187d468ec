-- What the other tests stand on. Each of them drops what it makes, so that any can be run alone
-- after this one.
CREATE EXTENSION migrate_ext;
SELECT extname, extversion, nspname AS schema
FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'migrate_ext';
