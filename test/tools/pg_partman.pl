# complete() hands tables over to pg_partman, by the table's owner: its maintenance makes the next partitions, after keys of all
# kinds and steps; what can't be handed over is refused, and nothing has changed.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use MigrateTest;
use PostgreSQL::Test::Utils;
use Test::More;

$node = new_node('main', conf => "timezone = 'UTC'\n");
sql(<<~'SQL');
	CREATE ROLE app LOGIN;
	CREATE SCHEMA app AUTHORIZATION app;
	ALTER ROLE app SET search_path = app;
	SQL

# A table of the owner's, with a row for each value, swapped to partitions of that step.
sub swapped
{
	my ($table, $type, $step, @values) = @_;
	sql_as('app', <<~"SQL");
		CREATE TABLE "$table" (id bigint GENERATED ALWAYS AS IDENTITY, k $type NOT NULL, PRIMARY KEY (id, k));
		INSERT INTO "$table" (k) VALUES @{[ join ', ', map { "('$_')" } @values ]};
		SQL
	sql_as('app', $_) for "SELECT migrate_ext.partition_by_range('\"$table\"', 'k', $step, headroom => 2)",
	  map { "CALL migrate_ext.$_('$table')" } qw(run finalize);
	return;
}

sub complete
{
	my ($table, $option) = @_;
	sql_as('app', "CALL migrate_ext.complete('$table', options => '{\"pg_partman\": $option}')");
	return;
}

# Its partitions but for the default one, by name, in their order.
sub partitions
{
	my ($table) = @_;
	return sql(<<~SQL);
		SELECT string_agg(substr(c.relname, length('$table') + 1), ' ' ORDER BY c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'app."$table"'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
		SQL
}

sub stays_swapped
{
	my ($name, $table, $option, $like) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	refused('app', "CALL migrate_ext.complete('$table', options => '{\"pg_partman\": $option}')", $like, $name);
	is(migration_state($node, $table), 'swapped', "$name: still swapped");
	return;
}

# ---------------------------------------------------------------------------------------------
# Without pg_partman, and without rights

swapped('ids', 'bigint', 1000, 1, 1500);
stays_swapped('no pg_partman', 'ids', 'true', qr/42704: extension "pg_partman" is not installed/);
sql('CREATE SCHEMA "Parts"; CREATE EXTENSION pg_partman SCHEMA "Parts"');
sql(q{UPDATE pg_extension SET extversion = '6.0.1' WHERE extname = 'pg_partman'});
stays_swapped('another version', 'ids', 'true', qr/0A000: pg_partman 6.0.1 is not known.*versions 4 and 5/s);
sql(q{UPDATE pg_extension e SET extversion = v.default_version FROM pg_available_extensions v WHERE v.name = e.extname AND e.extname = 'pg_partman'});
# version 5 calls weeks and quarters after their first day
my $five = sql(q{SELECT extversion FROM pg_extension WHERE extname = 'pg_partman'}) =~ /^5[.]/;
note('pg_partman ' . ($five ? 5 : 4));
stays_swapped('no right to its schema', 'ids', 'true',
	qr/42501: role "app" may not register.*GRANT USAGE ON SCHEMA "Parts" TO app; GRANT SELECT, INSERT ON "Parts".part_config TO app;/s);
sql('GRANT USAGE ON SCHEMA "Parts" TO app; GRANT SELECT, INSERT ON "Parts".part_config TO app');

# ---------------------------------------------------------------------------------------------
# What it makes

# the leader keeps two ahead, until the end
is(partitions('ids'), '_p0 _p1000 _p2000 _p3000', 'ids: partitions ahead');
sql_as('app', "INSERT INTO ids (k) VALUES (2500); SELECT migrate_ext.resume('ids')");
ok(poll_query($node, "SELECT to_regclass('app.ids_p4000') IS NOT NULL"), 'ids: the leader adds one');
complete('ids', 'true');
my $range = $five ? 'range' : 'native';
is(sql(q{SELECT premake, partition_type, partition_interval, template_table, control FROM "Parts".part_config}), "2|$range|1000||k", 'ids: registered');
is(sql(q{SELECT message FROM migrate_ext.events WHERE migration = 'ids' AND kind = 'pg_partman'}),
	'pg_partman makes the partitions of app.ids from now on', 'ids: an event says so');

# table, type, step, first rows; what is there after completion; a row in the last one; what then comes, and a row of it
my @cases = (
	[ 'ids', 'bigint', 1000, [], '_p0 _p1000 _p2000 _p3000 _p4000', 4999, '_p5000 _p6000', 5000, '_p5000' ],
	[ 'smalls', 'smallint', 100, [ 7, 250 ], '_p0 _p100 _p200 _p300 _p400', 400, '_p500 _p600', 699, '_p600' ],
	[ 'years', 'date', q{interval '1 year'}, ['2023-05-06'], '_p2023 _p2024 _p2025', '2025-12-31', '_p2026 _p2027', '2026-01-01', '_p2026' ],
	[ 'quarters', 'timestamp', q{interval '3 months'}, ['2023-05-06'], '_p2023q2 _p2023q3 _p2023q4', '2023-12-31',
		$five ? '_p2024_01_01 _p2024_04_01' : '_p2024q1 _p2024q2', '2024-06-30', $five ? '_p2024_04_01' : '_p2024q2' ],
	[ 'months', 'timestamp', q{interval '1 month'}, [ '2023-12-31 23:59', '2024-01-01' ], '_p2023_12 _p2024_01 _p2024_02 _p2024_03', '2024-03-31', '_p2024_04 _p2024_05',
		'2024-05-31 23:59:59.9', '_p2024_05' ],
	[ 'halves', 'timestamptz', q{interval '6 months'}, ['2024-01-01'], '_p2024_01 _p2024_07 _p2025_01', '2025-01-01', '_p2025_07 _p2026_01', '2026-06-30', '_p2026_01' ],
	[ 'weeks', 'date', q{interval '1 week'}, ['2024-12-28'], '_p2024w52 _p2025w01 _p2025w02', '2025-01-12',
		$five ? '_p2025_01_13 _p2025_01_20' : '_p2025w03 _p2025w04', '2025-01-13', $five ? '_p2025_01_13' : '_p2025w03' ],
	[ 'days', 'timestamptz', q{interval '1 day'}, ['2024-02-27 10:00'], '_p2024_02_27 _p2024_02_28 _p2024_02_29', '2024-02-29 23:59', '_p2024_03_01 _p2024_03_02',
		'2024-03-01', '_p2024_03_01' ],
	[ 'hours', 'timestamptz', q{interval '1 hour'}, ['2024-02-29 21:30'], '_p2024_02_29_2100 _p2024_02_29_2200 _p2024_02_29_2300', '2024-02-29 23:00',
		'_p2024_03_01_0000 _p2024_03_01_0100', '2024-03-01 01:59', '_p2024_03_01_0100' ],
	[ 'seconds', 'timestamp', q{interval '30 seconds'}, ['2024-02-29 23:58:59'], '_p2024_02_29_235830 _p2024_02_29_235900 _p2024_02_29_235930',
		'2024-02-29 23:59:59', '_p2024_03_01_000000 _p2024_03_01_000030', '2024-03-01 00:00:31', '_p2024_03_01_000030' ],
	# its own name has what comes before a bound
	[ 'a_p_b', 'integer', 10, [5], '_p0 _p10 _p20', 25, '_p30 _p40', 49, '_p40' ],
);
for my $case (@cases)
{
	my ($table, $type, $step, $values, $before, $last) = @$case;
	next if $table eq 'ids';
	swapped($table, $type, $step, @$values);
	complete($table, 'true');
}
sql(q{SELECT "Parts".run_maintenance()});
is(partitions($_->[0]), $_->[4], "$_->[0]: as many ahead as before, so none is made") for @cases;
sql(qq{INSERT INTO app."$_->[0]" (k) VALUES ('$_->[5]')}) for @cases;
sql(q{SELECT "Parts".run_maintenance()});
for my $case (@cases)
{
	my ($table, $type, $step, $values, $before, $last, $made, $value, $lands) = @$case;
	is(partitions($table), "$before $made", "$table: the next ones are made");
	is(sql(qq{INSERT INTO app."$table" (k) VALUES ('$value') RETURNING tableoid::regclass}), "app.$table$lands", "$table: a row lands there");
	is(sql(qq{SELECT count(*) FROM app."${table}_default"}), 0, "$table: none in the default partition");
}
# and after those that it has made itself
sql(q{SELECT "Parts".run_maintenance()});
like(partitions('quarters'), $five ? qr/ _p2024_07_01 _p2024_10_01$/ : qr/ _p2024q3 _p2024q4$/, 'quarters: and on');
like(partitions('weeks'), $five ? qr/ _p2025_01_20 _p2025_01_27$/ : qr/ _p2025w04 _p2025w05$/, 'weeks: and on');
is(sql(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'template%' AND relnamespace IN ('app'::regnamespace, '"Parts"'::regnamespace)}), 0, 'no template table');
is(sql(q{SELECT message FROM migrate_ext.events WHERE migration = 'days' AND kind = 'pg_partman'}),
	'pg_partman makes the partitions of app.days from now on: run its maintenance with TimeZone UTC', 'days: an event tells the time zone');
refused('app', "CALL migrate_ext.undo('days')", qr/migration "days" is in state completed/, 'there is no way back');

# ---------------------------------------------------------------------------------------------
# Settings

swapped('kept', 'date', q{interval '1 month'}, '2024-01-15', '2024-02-15', '2024-03-15');
stays_swapped('an unknown setting', 'kept', '{"control": "id"}', qr/22023: unrecognized setting "control" of option "pg_partman".*Settings are premake/s);
stays_swapped('a value of another type', 'kept', '{"premake": "many"}', qr/22P02: invalid input syntax for type integer: "many"/);
stays_swapped('a value that pg_partman refuses', 'kept', '{"premake": 0}', qr/23514: .*positive_premake_check/);
stays_swapped('a retention that is none', 'kept', '{"retention": "for ever"}', qr/22007: invalid input syntax for type interval: "for ever"/);
stays_swapped('a schema that is none', 'kept', '{"retention_schema": "attic"}', qr/3F000: schema "attic" does not exist/);
stays_swapped('neither true nor an object', 'kept', '"yes"', qr/22023: invalid value for option "pg_partman": yes.*Values are false, true, an object/s);
stays_swapped('an array', 'kept', '[1]', qr/22023: invalid value for option "pg_partman"/);
refused('app', q{CALL migrate_ext.undo('kept', options => '{"pg_partman": true}')}, qr/unrecognized option "pg_partman"/, 'undo has no such option');
complete('kept', '{"premake": 4, "retention": "1 month", "retention_keep_table": false, "infinite_time_partitions": false}');
is(sql(q{SELECT premake, retention, retention_keep_table FROM "Parts".part_config WHERE parent_table = 'app.kept'}), '4|1 month|f', 'settings are set');
sql(q{SELECT "Parts".run_maintenance()});
unlike(partitions('kept'), qr/_p2024_0[123]/, 'what is older than the retention is gone');

# as README.md shows it
my ($shown) = slurp_file("$FindBin::RealBin/../../README.md") =~ /^`(CALL migrate_ext\.complete\(.*\))`\.$/m;
swapped('visits', 'date', q{interval '1 month'}, '2024-01-15');
sql_as('app', $shown);
is(sql(q{SELECT premake, retention FROM "Parts".part_config WHERE parent_table = 'app.visits'}), '8|1 year', 'what README.md shows');

# ---------------------------------------------------------------------------------------------
# What can't be handed over

sql_as('app', <<~'SQL');
	CREATE TABLE numbers (k numeric PRIMARY KEY);
	CREATE TABLE lists (k integer PRIMARY KEY);
	CREATE TABLE hashes (k integer PRIMARY KEY);
	CREATE TABLE given (k integer PRIMARY KEY);
	CREATE TABLE "do.t" (k integer PRIMARY KEY);
	CREATE TABLE given_parts (k integer NOT NULL) PARTITION BY RANGE (k);
	CREATE TABLE given_1 PARTITION OF given_parts FOR VALUES FROM (0) TO (100);
	INSERT INTO numbers VALUES (1);
	INSERT INTO lists VALUES (1);
	INSERT INTO hashes VALUES (1);
	INSERT INTO given VALUES (1);
	INSERT INTO "do.t" VALUES (1);
	SELECT migrate_ext.partition_by_range('numbers', 'k', 10);
	SELECT migrate_ext.partition_by_list('lists', 'k');
	SELECT migrate_ext.partition_by_hash('hashes', 'k', 2);
	SELECT migrate_ext.create_migration('given', 'given_parts');
	SELECT migrate_ext.partition_by_range('"do.t"', 'k', 10);
	SQL
for my $case (
	[ 'numbers', qr/0A000: "app.numbers" can't be handed over.*Column "k" is of type numeric/s ],
	[ 'lists',   qr/0A000: "app.lists" can't be handed over.*not been made by migrate_ext.partition_by_range/s ],
	[ 'hashes',  qr/0A000: "app.hashes" can't be handed over.*not been made by/s ],
	[ 'given',   qr/0A000: "app.given" can't be handed over.*not been made by/s ],
	[ 'do.t',    qr/0A000: "app.do.t" can't be handed over.*names with a dot/s ])
{
	my ($table, $like) = @$case;
	sql_as('app', "CALL migrate_ext.$_('$table')") for qw(run finalize);
	stays_swapped($table, $table, 'true', $like);
}
sql_as('app', q{CALL migrate_ext.complete('numbers', options => '{"pg_partman": false}')});
is(migration_state($node, 'numbers'), 'completed', 'false is none');

sql_as('app', <<~'SQL');
	CREATE TABLE filled (id integer PRIMARY KEY);
	SELECT migrate_ext.add_sharding_key('filled', 'k', 'integer', 's.id % 10');
	SELECT migrate_ext.backfill_key('filled', 'k');
	SQL
sql_as('app', q{CALL migrate_ext.run('filled')});
refused('app', q{CALL migrate_ext.complete('filled', options => '{"pg_partman": true}')}, qr/option "pg_partman" needs a migration to a partitioned table/,
	'a key that is filled in place');

swapped('below', 'integer', 10, -5, 5);
stays_swapped('values below zero', 'below', 'true', qr/can't go on after partition app.below_pm10.*values below zero/s);

swapped('named', 'integer', 10, 5);
sql_as('app', 'ALTER TABLE named_p10 RENAME TO other');
stays_swapped('a partition of another name', 'named', 'true', qr/can't go on after partition app.other.*would end in "_p10"/s);
sql_as('app', 'ALTER TABLE other RENAME TO named_p10');

sql_as('app', 'INSERT INTO named (k) VALUES (1000)');
is(sql('SELECT count(*) FROM app.named_default'), 1, 'a row far beyond');
stays_swapped('rows beyond the last partition', 'named', 'true', qr/the default partition of "app.named" has rows beyond.*Move the rows of app.named_default from '\d+' on/s);
sql_as('app', 'DELETE FROM named WHERE k = 1000');
sql(qq{INSERT INTO "Parts".part_config (parent_table, control, partition_type, partition_interval) VALUES ('app.named', 'k', '$range', '10')});
stays_swapped('registered already', 'named', 'true', qr/42710: "app.named" is registered with pg_partman already/);
sql(q{DELETE FROM "Parts".part_config WHERE parent_table = 'app.named'});
sql_as('app', q{CALL migrate_ext.undo('named')});
is(sql_as('app', 'SELECT count(*) FROM named'), 1, 'and after all that there is a way back');

$node->stop;
done_testing();
