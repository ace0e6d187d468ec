# ALTER EXTENSION UPDATE while migrations run and clients write. There is no next version yet, so two are made here:
# the same sources under other numbers, each with an update script that does what one of a release may do.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use IPC::Run;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROOT = "$FindBin::RealBin/../..";
my $folder = PostgreSQL::Test::Utils::tempdir;
my $install_path = private_installation($folder);
my ($VERSION) = slurp_file("$ROOT/Makefile") =~ /^EXTVERSION = (\S+)$/m;

# ---------------------------------------------------------------------------------------------
# The next versions

# Only what names the version is compiled: the rest of the tree has been, for the tests.
mkdir "$folder/tree";
system_or_bail('sh', '-euc', 'cd "$1" && cp -a Makefile migrate_ext.control src "$2" && cp -a .build-* *.so "$2" 2>/dev/null || :',
	'sh', $ROOT, "$folder/tree");

# As dpkg does it: each file is exchanged at once, so that who loads it finds the one or the other.
sub install_version
{
	my ($version, $from, $update) = @_;
	my $tree = "$folder/tree";
	my $control = slurp_file("$tree/migrate_ext.control") =~ s/^default_version = .*/default_version = '$version'/mr;
	mkdir "$tree/src/sql/update";
	for ([ "$tree/src/sql/update/migrate_ext--$from--$version.sql", $update ], [ "$tree/migrate_ext.control", $control ])
	{
		unlink $_->[0];
		append_to_file(@$_);
	}
	my $log = '';
	IPC::Run::run([ 'env', '-i', 'PATH=/usr/bin:/bin', 'make', '-C', $tree, '-s', '-j2', 'DEBUG_POINTS=1', "EXTVERSION=$version",
			"PG_CONFIG=$install_path/bin/pg_config", "DESTDIR=$folder/stage", 'install' ], '>&', \$log)
	  or die "version $version: $log\n";
	for my $file (glob("$folder/stage$folder/share/postgresql/*/extension/*"), "$folder/stage$install_path/lib/migrate_ext.so")
	{
		my $place = $file =~ s/^\Q$folder\E\/stage//r;
		rename $file, $place or die "$place: $!";
	}
	return;
}

sub installed_version
{
	return sql("SELECT extversion FROM pg_extension WHERE extname = 'migrate_ext'");
}

# What a release may bring: more columns, tables and functions, functions and views in place of those of before.
my $UPDATE_1 = <<~'SQL';
	\echo Use "ALTER EXTENSION migrate_ext UPDATE" to load this file. \quit
	SELECT migrate_ext.begin_update('99.9', 'migrate_ext.migration', 'migrate_ext.batch', 'migrate_ext.swaps');
	ALTER TABLE migrate_ext.migration ADD COLUMN colour text NOT NULL DEFAULT 'none';
	ALTER TABLE migrate_ext.batch ADD COLUMN colour text;
	CREATE TABLE migrate_ext.colour (id bigint PRIMARY KEY);
	CREATE FUNCTION migrate_ext.colours() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM migrate_ext.colour';
	CREATE OR REPLACE FUNCTION migrate_ext.sync_log() RETURNS trigger LANGUAGE c COST 2 AS 'MODULE_PATHNAME', 'migrate_ext_sync_log';
	CREATE OR REPLACE FUNCTION migrate_ext.sync_write_through() RETURNS trigger LANGUAGE c COST 2
		AS 'MODULE_PATHNAME', 'migrate_ext_sync_write_through';
	CREATE OR REPLACE FUNCTION migrate_ext.sync_reverse() RETURNS trigger LANGUAGE c COST 2
		AS 'MODULE_PATHNAME', 'migrate_ext_sync_reverse';
	CREATE OR REPLACE VIEW migrate_ext.swaps WITH (security_barrier) AS
	SELECT m.name AS migration, s.at, s.direction, s.attempts, s.wait_ms, s.hold_ms, s.blockers, m.kind AS colour
	FROM migrate_ext.any_migration m JOIN migrate_ext.swap_log s ON s.migration = m.id
	WHERE m.visible OR (SELECT migrate_ext.is_granted('swaps'));
	SQL

# And one that alters nothing that anybody reads.
my $UPDATE_2 = <<~'SQL';
	SELECT migrate_ext.begin_update('99.10');
	CREATE FUNCTION migrate_ext.shades() RETURNS bigint LANGUAGE sql AS 'SELECT 2::bigint';
	SQL

# ---------------------------------------------------------------------------------------------
# Migrations under load

# A write in a session from before, which has the old library and keeps it.
my $old;

sub errors_of_old
{
	my ($sql) = @_;
	$old->{stderr} = '';
	$old->query("\\set VERBOSITY verbose\n$sql");
	return $old->{stderr};
}

sub notes
{
	return sql('SELECT count(*) FROM notes');
}

# Sessions that are new, and know nothing of the tables, go on writing.
sub notes_come_in
{
	my ($name) = @_;
	my $more = notes() + 20;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(poll_query($node, "SELECT count(*) >= $more FROM notes", 't', 30), "$name: new sessions go on writing");
}

# How many leaders wait for an update, and how many are at work.
my $LEADERS = q{SELECT count(*) FILTER (WHERE query = 'waiting for ALTER EXTENSION migrate_ext UPDATE'),
	count(*) FILTER (WHERE application_name LIKE 'migrate_ext %') FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader'};

$node = new_node('upgrade', install_path => $install_path);
my @place = ('--host', $node->host, '--port', $node->port);
system_or_bail('pgbench', '--initialize', '--quiet', '--scale=2', @place, 'postgres');
sql(<<~'SQL');
	CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v integer);
	SELECT migrate_ext.partition_by_hash('notes', 'id', 3);
	SELECT migrate_ext.partition_by_hash('pgbench_branches', 'bid', 2);
	SELECT migrate_ext.start('notes'), migrate_ext.start('pgbench_branches');
	SQL
wait_live($node, 'notes', 'pgbench_branches');
sql("CALL migrate_ext.finalize('pgbench_branches', '60 s')");
append_to_file("$folder/notes.sql", "INSERT INTO notes (v) VALUES (1);\nUPDATE notes SET v = v + 1 WHERE id = (SELECT max(id) FROM notes);\n");
my $bank = start_pgbench($node, clients => 2, args => ['--rate=60']);
my $notes = start_pgbench($node, clients => 1, args => [ '--connect', '--rate=20', "--file=$folder/notes.sql" ]);

sql(<<~'SQL');
	SELECT migrate_ext.partition_by_range('pgbench_accounts', 'aid', 50000);
	SELECT migrate_ext.configure('pgbench_accounts', 'workers', '1'),
		migrate_ext.configure('pgbench_accounts', 'batch_target_ms', '50'),
		migrate_ext.configure('pgbench_accounts', 'throttle_rows_per_second', '500');
	SELECT migrate_ext.start('pgbench_accounts');
	SQL
wait_state($node, 'pgbench_accounts', 'copying');
$old = $node->background_psql('postgres', on_error_stop => 0);
$old->set_query_timer_restart;
is(errors_of_old('INSERT INTO notes (v) VALUES (1)'), '', 'a session writes, and has the library');
my $waiter = begin_call($node, "CALL migrate_ext.wait_for('pgbench_accounts', 'live')");

like(errors("SELECT migrate_ext.begin_update('$VERSION')"), qr/55000: .*for update scripts/, 'begin_update() is no call');

# ---------------------------------------------------------------------------------------------
# The new library is there, ALTER EXTENSION UPDATE not done yet

install_version('99.9', $VERSION, $UPDATE_1);
my $DIFFER = qr/55000: +the library of migrate_ext is version (\S+), its objects in this database are version (\S+)$/m;

my $errors = errors("SELECT migrate_ext.pause('notes')");
is(join(' ', $errors =~ $DIFFER), "99.9 $VERSION", 'calls are refused');
like($errors, qr/HINT: .*ALTER EXTENSION migrate_ext UPDATE/, 'and say what to do');
is(join(' ', errors("CALL migrate_ext.undo('pgbench_branches')") =~ $DIFFER), "99.9 $VERSION", 'those that wait, too');
is(sql("SELECT DISTINCT next_step FROM migrate_ext.progress"), 'ALTER EXTENSION migrate_ext UPDATE', 'so does the view');
is(errors_of_old("SELECT migrate_ext.pause('notes', 'by the old one'), migrate_ext.resume('notes')"), '', 'a session with the old one may');
terminate_workers($node, $_, 'leader') for 'notes', 'pgbench_branches';
ok(poll_query($node, $LEADERS, '2|1'), 'a worker that is new waits');
notes_come_in('the new library beside the old objects');

$errors = errors_of_old('ALTER EXTENSION migrate_ext UPDATE');
is(join(' ', $errors =~ $DIFFER), "$VERSION 99.9", 'no update by a session with the old library');
like($errors, qr/HINT: +Connect again/, 'and it says why');
is(installed_version(), $VERSION, 'nothing has changed');

# ---------------------------------------------------------------------------------------------
# The update, while somebody reads what it alters

my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT count(*) FROM migrate_ext.swaps');
my $time = sql('SELECT clock_timestamp()');
my $update = begin_call($node, 'ALTER EXTENSION migrate_ext UPDATE');
notes_come_in('an update that waits');
is(installed_version(), $VERSION, 'which it still does');
$reader->query_safe('COMMIT');
$reader->quit;
is(end_call($update), '', 'updated');
is(installed_version(), '99.9', 'to the next version');
is(migration_state($node, 'pgbench_accounts'), 'copying', 'in the middle of a copy');
is(sql('SELECT migrate_ext.colours(), count(colour) FROM migrate_ext.swaps'), '0|1', 'all of it is there');

ok(poll_query($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader'
		AND application_name = 'migrate_ext pgbench_accounts' AND backend_start > '$time'"),
	'the worker from before is another one');
ok(poll_query($node, $LEADERS, '0|3'), 'all are at work');
like(end_call($waiter), qr/the library of migrate_ext is version \Q$VERSION\E/, 'a call that waited since before can\'t go on');
$errors = errors_of_old("SELECT migrate_ext.pause('notes')");
is(join(' ', $errors =~ $DIFFER), "$VERSION 99.9", 'calls of a session from before are refused');
is(errors_of_old('INSERT INTO notes (v) VALUES (2); UPDATE notes SET v = 3 WHERE v = 2;'), '', 'its writes are not');
is(rows_that_differ($node, 'notes', 'notes_new'), '0', 'and both tables are equal');
notes_come_in('updated');

sql("SELECT migrate_ext.configure('pgbench_accounts', 'throttle_rows_per_second', '0')");
wait_live($node, 'pgbench_accounts');
sql("CALL migrate_ext.finalize('$_', '60 s')") for 'pgbench_accounts', 'notes';
sql("CALL migrate_ext.undo('pgbench_branches', '60 s')");
notes_come_in('swapped');

# ---------------------------------------------------------------------------------------------
# Nothing was lost

pgbench_ok(stop_pgbench($bank), 'clients of long');
pgbench_ok(stop_pgbench($notes), 'a client that connects each time');
tpcb_ok($node, 'the end');
is(rows_that_differ($node, $_, "${_}_orig"), '0', "$_: both tables are equal") for 'pgbench_accounts', 'notes';
is(rows_that_differ($node, 'pgbench_branches', 'pgbench_branches_new'), '0', 'pgbench_branches: both tables are equal');
is(sql("SELECT count(*) FROM migrate_ext.events WHERE kind IN ('error', 'restart') OR kind = 'paused' AND message NOT LIKE '%old one%'"),
	'0', 'no step has failed, none was made again');
$old->quit;

# ---------------------------------------------------------------------------------------------
# A server that preloads the library

$node->append_conf('postgresql.conf', slurp_file("$ROOT/test/postgresql_preload.conf"));
restart_node($node, 'fast');
install_version('99.10', '99.9', $UPDATE_2);
$errors = errors('ALTER EXTENSION migrate_ext UPDATE');
like($errors, qr/HINT: +Restart the server/, 'a server that has preloaded the old library must be restarted first');
sql("CALL migrate_ext.verify('pgbench_branches')");
restart_node($node, 'fast');
ok(poll_query($node, $LEADERS, '3|0'), 'then the workers wait for the update');
sql("UPDATE notes SET v = v + 1 WHERE id % 2 = 0; INSERT INTO notes (v) VALUES (7)");
sql('ALTER EXTENSION migrate_ext UPDATE');
sql("CALL migrate_ext.verify('$_'); CALL migrate_ext.complete('$_')") for 'pgbench_accounts', 'notes';
is(rows_that_differ($node, 'notes', 'notes_orig'), '0', 'and go on');
is(sql('SELECT migrate_ext.shades()'), '2', 'with the one after the next');

$node->stop;
done_testing();
