# What a migration bears: settings of roles and databases, errors that pass, a full disk. And what the
# application sees of whatever its trigger meets: the table in the README's "What the application sees".
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ---------------------------------------------------------------------------------------------
# Settings

# What is set for the database, for the role that workers connect as and for the owner; and what the test
# itself needs instead.
my %HOSTILE = (
	statement_timeout                   => [ 1,                       0 ],
	lock_timeout                        => [ 1,                       0 ],
	idle_in_transaction_session_timeout => [ 1,                       0 ],
	idle_session_timeout                => [ 1,                       0 ],
	default_transaction_isolation       => [ "'serializable'",        "'read committed'" ],
	default_transaction_read_only       => [ 'on',                    'off' ],
	default_transaction_deferrable      => [ 'on',                    'off' ],
	row_security                        => [ 'off',                   'on' ],
	search_path                         => [ 'evil',                  'public' ],
	session_replication_role            => [ 'replica',               'origin' ],
	default_tablespace                  => [ 'elsewhere',             "''" ],
	temp_tablespaces                    => [ 'elsewhere',             "''" ],
	datestyle                           => [ "'SQL, DMY'",            "'ISO, YMD'" ],
	intervalstyle                       => [ "'sql_standard'",        "'postgres'" ],
	timezone                            => [ "'Asia/Tokyo'",          "'UTC'" ],
	bytea_output                        => [ "'escape'",              "'hex'" ],
	extra_float_digits                  => [ -15,                     3 ],
	xmlbinary                           => [ "'hex'",                 "'base64'" ],
	array_nulls                         => [ 'off',                   'on' ],
	transform_null_equals               => [ 'on',                    'off' ],
	standard_conforming_strings         => [ 'off',                   'on' ],
	quote_all_identifiers               => [ 'on',                    'off' ],
	default_text_search_config          => [ "'pg_catalog.english'", "'pg_catalog.simple'" ],
	client_min_messages                 => [ 'error',                 'notice' ],
	synchronous_commit                  => [ 'off',                   'on' ],
	plan_cache_mode                     => [ 'force_custom_plan',     'auto' ],
	force_parallel_mode                 => [ 'on',                    'off' ],
	jit_above_cost                      => [ 0,                       100000 ],
	work_mem                            => [ "'64kB'",                "'4MB'" ],
	from_collapse_limit                 => [ 1,                       8 ],
	join_collapse_limit                 => [ 1,                       8 ],
	map { ("enable_$_" => [ 'off', 'on' ]) }
	  qw(seqscan indexscan indexonlyscan bitmapscan tidscan nestloop hashjoin mergejoin sort hashagg material memoize partition_pruning));

sub set_for
{
	my ($whom, $which) = @_;
	sql(join ' ', map { "ALTER $whom SET $_ = $HOSTILE{$_}[$which];" } sort keys %HOSTILE);
	return;
}

sub settings
{
	sql(<<~'SQL');
		SET allow_in_place_tablespaces = on;
		CREATE TABLESPACE elsewhere LOCATION '';
		SQL
	sql(<<~'SQL');
		CREATE ROLE tester SUPERUSER LOGIN;
		CREATE ROLE shop;
		CREATE ROLE nobody;
		GRANT CREATE ON SCHEMA public TO shop;
		CREATE SCHEMA evil;
		CREATE FUNCTION evil.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'evil' $$;
		SQL
	set_for('ROLE tester', 1);
	local $ENV{PGUSER} = 'tester';
	set_for($_, 0) for 'DATABASE postgres', 'ROLE postgres', 'ROLE shop';
	sql('ALTER ROLE postgres SET role = nobody');

	sql(<<~'SQL');
		SET ROLE shop;
		CREATE TABLE items (id int PRIMARY KEY, at timestamptz NOT NULL, raw bytea NOT NULL, f float8 NOT NULL, spelled text);
		CREATE INDEX ON items (at);
		ALTER TABLE items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE POLICY few ON items USING (id < 0);
		RESET ROLE;
		INSERT INTO items SELECT g, timestamptz '2024-01-01 20:00+00' + g * interval '1 hour', '\x6100', 1 / 3.0, 'x' FROM generate_series(1, 2000) AS g;
		CREATE TABLE spelled AS TABLE items;
		ALTER TABLE spelled ADD PRIMARY KEY (id), ALTER at SET NOT NULL;
		CREATE TABLE spelled_parts (id int NOT NULL, at timestamptz NOT NULL, raw bytea, f float8, spelled text) PARTITION BY HASH (id);
		CREATE TABLE spelled_0 PARTITION OF spelled_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
		ALTER TABLE spelled OWNER TO shop; ALTER TABLE spelled_parts OWNER TO shop; ALTER TABLE spelled_0 OWNER TO shop;
		SELECT migrate_ext.partition_by_range('items', 'at', interval '1 month');
		SELECT migrate_ext.create_migration('spelled', 'spelled_parts', options =>
			'{"columns": {"spelled": "lower(s.at::text || s.at::date::text || s.raw::text || s.f::text || (s.at - timestamptz ''2024-01-01'')::text || to_tsvector(''the cars'')::text)"}, "reverse_columns": {"spelled": "s.spelled"}}');
		CREATE TABLE kinds (id int PRIMARY KEY, kind int);
		INSERT INTO kinds SELECT g, g % 5 FROM generate_series(1, 100) AS g;
		CREATE TABLE keyed (id int PRIMARY KEY, kind_id int NOT NULL);
		INSERT INTO keyed SELECT g, 1 + g % 100 FROM generate_series(1, 2000) AS g;
		ALTER TABLE kinds OWNER TO shop; ALTER TABLE keyed OWNER TO shop;
		SELECT migrate_ext.add_sharding_key('keyed', 'kind', 'int', '(SELECT k.kind FROM kinds k WHERE k.id = s.kind_id)');
		SELECT migrate_ext.backfill_key('keyed', 'kind');
		SQL
	my $offset = -s $node->logfile;
	sql("SELECT migrate_ext.start('$_')") for qw(items spelled keyed);
	wait_live($node, qw(items spelled keyed));
	is(sql("SELECT count(*) FROM keyed WHERE kind IS NULL"), '0', 'settings: a key is filled');
	my $write = q{INSERT INTO %1$s VALUES (%2$s, '2024-02-01 00:00+00', '\x00', 0.1, 'y'); UPDATE %1$s SET f = f + 1 WHERE id %% 100 = 7;};
	sql(sprintf $write, 'items', 3001);
	sql("CALL migrate_ext.finalize('items', '60 s')");
	sql(sprintf $write, 'items', 3002);
	sql("CALL migrate_ext.undo('items', '60 s')");
	sql(sprintf $write, 'items', 3003);
	sql("CALL migrate_ext.finalize('items', '60 s')");
	is(counts($node, 'items', 'items_orig') . ' ' . rows_that_differ($node, 'items', 'items_orig'), '2003|2003 0', 'settings: there and back');
	# whoever writes, the value is spelled in one way
	sql('SET timezone = "America/New_York"; SET bytea_output = escape; SET extra_float_digits = 0; SET intervalstyle = iso_8601; SET datestyle = german; SET default_text_search_config = "pg_catalog.english";'
		. sprintf $write, 'spelled', 3001);
	sql("CALL migrate_ext.verify('spelled')");
	is(sql("SELECT missing, extra, different FROM migrate_ext.verifications WHERE migration = 'spelled'"), '0|0|0', 'settings: computed alike by copy, trigger and comparison');
	is(sql("SELECT spelled FROM spelled_parts WHERE id = 4"), q{2024-01-02 00:00:00+002024-01-02\x61000.33333333333333331 day'cars':2 'the':1}, 'settings: and as the README says');
	is(sql("SELECT string_agg(DISTINCT relname, ' ') FROM pg_class WHERE relname ~ '^items|^log_' AND reltablespace <> 0"), '', 'settings: nothing is put elsewhere');
	sql("CALL migrate_ext.complete('items', true); CALL migrate_ext.cancel('spelled'); CALL migrate_ext.finalize('keyed');");
	is(sql("SELECT string_agg(message, '; ') FROM migrate_ext.events WHERE kind IN ('error', 'paused', 'failed')"), '', 'settings: no error');
	unlike(slurp_file($node->logfile, $offset), qr/migrate_ext (?:leader|helper)[^\n]*(?:ERROR|FATAL)/, 'settings: nor in the log');
	sql("ALTER DATABASE postgres RESET ALL; ALTER ROLE postgres RESET ALL; ALTER ROLE shop RESET ALL;");
	return;
}

# ---------------------------------------------------------------------------------------------
# Errors that pass

# A migration whose expression fails with one SQLSTATE after another, and then no more.
sub make_flaky
{
	my ($table, @codes) = @_;
	my $list = join ', ', map { "'$_'" } @codes;
	sql(<<~SQL);
		CREATE SEQUENCE ${table}_tries;
		CREATE FUNCTION ${table}_flaky(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS \$\$
		DECLARE
			codes text[] := ARRAY[$list];
			n bigint;
		BEGIN
			IF x = 7 THEN
				n := nextval('public.${table}_tries');
				IF n <= array_length(codes, 1) THEN
					RAISE EXCEPTION 'not now' USING ERRCODE = codes[n];
				END IF;
			END IF;
			RETURN x;
		END \$\$;
		CREATE TABLE $table (id int PRIMARY KEY, v int NOT NULL);
		INSERT INTO $table SELECT g, g FROM generate_series(1, 1000) AS g;
		CREATE TABLE ${table}_parts (id int NOT NULL, v int NOT NULL) PARTITION BY HASH (id);
		CREATE TABLE ${table}_0 PARTITION OF ${table}_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
		SELECT migrate_ext.create_migration('$table', '${table}_parts', options => '{"columns": {"v": "public.${table}_flaky(s.v)"}, "reverse_columns": {"v": "s.v"}}');
		SQL
	return;
}

# In the copy, by the leader and by a helper, and in the drain of a row that has changed since the trigger came.
sub passing_errors
{
	my @codes = qw(40001 40P01 55P03 57014 53200);
	my ($workers, $drained, $table, $name) = @_;
	make_flaky($table, @codes);
	sql("SELECT migrate_ext.configure('$table', 'workers', '$workers'); SELECT migrate_ext.install_sync('$table'); CALL migrate_ext.wait_for('$table', 'logging')");
	sql("UPDATE $table SET v = v WHERE id = 7") if $drained;
	sql("SELECT migrate_ext.start('$table')");
	wait_live($node, $table);
	is(rows_that_differ($node, $table, "${table}_parts"), '0', "$name: an error that passes does not last");
	is(sql("SELECT count(*) FROM migrate_ext.failed_rows WHERE migration = '$table'"), '0', "$name: nor is it a row's");
	cmp_ok(sql("SELECT last_value FROM ${table}_tries"), '>', scalar(@codes), "$name: as often as it came it was tried again");
	is(sql("SELECT paused, last_error IS NULL FROM migrate_ext.migrations WHERE migration = '$table'"), 'f|t', "$name: it is not told any more");
	is(sql("SELECT count(*) BETWEEN 1 AND 5 FROM migrate_ext.events WHERE migration = '$table' AND kind = 'error'"), 't', "$name: but was")
	  or diag(sql("SELECT at, message FROM migrate_ext.events WHERE migration = '$table' ORDER BY at"));
	sql("CALL migrate_ext.cancel('$table'); DROP TABLE $table, ${table}_parts;");
	return;
}

# ---------------------------------------------------------------------------------------------

$node = new_node('main');
settings();
passing_errors(0, 0, 'by_leader', 'copied by the leader');
passing_errors(1, 0, 'by_helper', 'copied by a helper');
passing_errors(1, 1, 'drained', 'drained');
done_testing();
