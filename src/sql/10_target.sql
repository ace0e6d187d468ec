-- Making the target.  A key is the name of a column as it is stored; text
-- parameters, as type name truncates in silence.

CREATE FUNCTION migrate_ext.partition_by_range(
    source    regclass,
    key       text,
    step      bigint,
    start     bigint DEFAULT NULL,
    stop      bigint DEFAULT NULL,
    headroom  integer DEFAULT 6,
    migration text DEFAULT NULL,
    options   jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_partition_by_range_bigint';
COMMENT ON FUNCTION migrate_ext.partition_by_range(regclass, text, bigint, bigint, bigint, integer, text, jsonb) IS
'begins a migration to partitions by ranges of an integer key. Bounds are multiples of step; start and stop (exclusive) are rounded outwards and come from the data where not given; headroom partitions follow the end, and one takes all the rest. Returns the migration''s name';

CREATE FUNCTION migrate_ext.partition_by_range(
    source    regclass,
    key       text,
    step      interval,
    start     timestamptz DEFAULT NULL,
    stop      timestamptz DEFAULT NULL,
    headroom  integer DEFAULT 6,
    migration text DEFAULT NULL,
    options   jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_partition_by_range_interval';
COMMENT ON FUNCTION migrate_ext.partition_by_range(regclass, text, interval, timestamptz, timestamptz, integer, text, jsonb) IS
'begins a migration to partitions by ranges of a date, timestamp or timestamptz, or of the time in a uuid of version 7. Bounds are calendar units in options.timezone (UTC); otherwise as with a step of type bigint';

CREATE FUNCTION migrate_ext.partition_by_range(
    source    regclass,
    key       text,
    step      text,
    start     text DEFAULT NULL,
    stop      text DEFAULT NULL,
    headroom  integer DEFAULT 6,
    migration text DEFAULT NULL,
    options   jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_partition_by_range_text';
COMMENT ON FUNCTION migrate_ext.partition_by_range(regclass, text, text, text, text, integer, text, jsonb) IS
'the same with step, start and stop as text, read as integers or as interval and times, whichever the key is; times without offset are of options.timezone';

CREATE FUNCTION migrate_ext.partition_by_list(
    source    regclass,
    key       text,
    migration text DEFAULT NULL,
    options   jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_partition_by_list';
COMMENT ON FUNCTION migrate_ext.partition_by_list(regclass, text, text, jsonb) IS
'begins a migration to a partition for each value that the key has now, or for each group of values of options.groups ({"name": [value, ...], ...}), and one for all the rest. Returns the migration''s name';

CREATE FUNCTION migrate_ext.partition_by_hash(
    source     regclass,
    key        text,
    partitions integer,
    migration  text DEFAULT NULL,
    options    jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_partition_by_hash';
COMMENT ON FUNCTION migrate_ext.partition_by_hash(regclass, text, integer, text, jsonb) IS
'begins a migration to a number of partitions by hash of the key. Returns the migration''s name';

CREATE FUNCTION migrate_ext.create_migration(
    source    regclass,
    target    regclass,
    migration text DEFAULT NULL,
    options   jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_create_migration';
COMMENT ON FUNCTION migrate_ext.create_migration(regclass, regclass, text, jsonb) IS
'begins a migration to a partitioned table that is there already: copied to if it is empty and has no indexes, else compared and put right. options.columns maps its columns to expressions over the source''s row s, options.reverse_columns back. Returns the migration''s name';

CREATE FUNCTION migrate_ext.preview(
    source     regclass,
    key        text,
    partitions integer DEFAULT NULL,
    step       text DEFAULT NULL
) RETURNS TABLE (partition text, rows bigint, bytes bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'migrate_ext_preview';
COMMENT ON FUNCTION migrate_ext.preview(regclass, text, integer, text) IS
'the partitions there would be, with rows and bytes as the statistics tell: ranges where a step is given, hash where a number of partitions is given, else a list. Changes nothing and reads no rows';
