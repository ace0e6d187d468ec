# The life of a migration, as a user lives it: pgbench's accounts become partitioned, go back, and
# become partitioned for good, under pgbench's own load throughout. No preload: as a newcomer has it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A swap that holds its lock as long as this is an outage; measured: a few milliseconds.
my $MAX_HOLD_MS = 1000;

start_clock();
$node = new_node('main');

sub relation
{
	return sql("SELECT coalesce((SELECT relkind::text FROM pg_class WHERE oid = to_regclass('$_[0]')), '-')");
}

sub leaves
{
	return sql("SELECT count(*) FROM pg_partition_tree('$_[0]') WHERE isleaf");
}

sub state_is
{
	my ($state) = @_;
	return is(migration_state($node, 'pgbench_accounts'), $state, "the state is $state");
}

# Which table is whose, and that they hold the same.
sub partitioned_ok
{
	my ($step) = @_;
	state_is('swapped');
	is(relation('pgbench_accounts'), 'p', "$step: the table is partitioned");
	is(relation('pgbench_accounts_orig'), 'r', "$step: the original is kept");
	is(relation('pgbench_accounts_new'), '-', "$step: no table is called _new");
	is(rows_that_differ($node, 'pgbench_accounts', 'pgbench_accounts_orig'), '0',
		"$step: reverse sync keeps the original equal");
	tpcb_ok($node, $step);
	return;
}

sub plain_ok
{
	my ($step) = @_;
	state_is('live');
	is(relation('pgbench_accounts'), 'r', "$step: the table is a plain one");
	is(relation('pgbench_accounts_new'), 'p', "$step: the target is partitioned");
	is(relation('pgbench_accounts_orig'), '-', "$step: no table is called _orig");
	is(rows_that_differ($node, 'pgbench_accounts', 'pgbench_accounts_new'), '0',
		"$step: the target is equal");
	tpcb_ok($node, $step);
	return;
}

# ---------------------------------------------------------------------------------------------
# Who listens hears of each event, once, and of nothing that was rolled back.

my $listener = open_session($node);
$listener->query_safe('LISTEN migrate_ext');
my @heard;

# The payloads since the last call, which are kept in @heard as well. When its own notification has come all that was
# committed before has; what a worker has committed since may come with it.
sub heard
{
	my $said = $listener->query_safe("NOTIFY migrate_ext, 'heard'");
	my @payloads = $said =~ /^Asynchronous notification "migrate_ext" with payload "(.*)" received from server process with PID \d+\.$/mg;
	is(scalar(grep { $_ eq 'heard' } @payloads), 1, 'the listener is up to date');
	@payloads = grep { $_ ne 'heard' } @payloads;
	push @heard, @payloads;
	return @payloads;
}

sub states
{
	my ($migration) = @_;
	my @states = grep { $_->{kind} eq 'state' && $_->{migration} eq $migration } map { decode_json($_) } @heard;
	return join "\n", map { "$_->{detail}{from} -> $_->{detail}{to}: $_->{message}" } @states;
}

sub events_ok
{
	my @payloads = grep { decode_json($_)->{kind} ne 'paused' } @heard;
	my %keys = map { join(' ', sort keys %{ decode_json($_) }) => 1 } @payloads;
	is(join(', ', sort keys %keys), 'at detail kind message migration', 'notified: what each payload has');
	sql(sprintf <<~'SQL', join ',', @payloads);
		CREATE TABLE heard AS
			SELECT * FROM jsonb_to_recordset($heard$[%s]$heard$) AS h (migration text, at timestamptz, kind text, message text, detail jsonb);
		CREATE VIEW told AS SELECT * FROM migrate_ext.events WHERE kind <> 'paused';
		SQL
	is(rows_that_differ($node, 'heard', 'told'), '0', 'notified: all that the view has, once') or diag(sql('TABLE heard EXCEPT ALL TABLE told'));
	for my $migration (qw(pgbench_accounts small))
	{
		is(states($migration),
			sql("SELECT string_agg(format('%s -> %s: %s', detail->>'from', detail->>'to', message), e'\n' ORDER BY at) FROM told WHERE migration = '$migration' AND kind = 'state'"),
			"notified: the states of $migration, in order");
	}
	like(states('pgbench_accounts'), qr/^created -> .* -> live: .*live -> swapped: .*swapped -> live: .*live -> swapped: .*swapped -> completed: [^\n]*$/s,
		'notified: there, back, there again, and for good');
	like(states('small'), qr/ -> cancelled: [^\n]*$/, 'notified: cancelled');
	return;
}

# A payload has less than 8,000 bytes, whatever the message and however it is written as JSON.
sub long_event_ok
{
	my ($character, $cut, $name) = @_;
	sql("SELECT migrate_ext.pause('small', repeat(chr($character), 9000))");
	is_deeply([ grep { $_->{kind} eq 'paused' } map { decode_json($_) } heard() ],
		[ { migration => 'small', kind => 'paused', message => 'paused: ' . chr($character) x $cut } ],
		"notified: an event too long for a payload, $name: its message is cut, at and detail left out");
	is(sql("SELECT max(length(message)) FROM migrate_ext.events"), length('paused: ') + 9000, '... while the view has all of it');
	sql("SELECT migrate_ext.resume('small')");
	return;
}

# ---------------------------------------------------------------------------------------------

$node->command_ok(
	[ 'pgbench', '--initialize', '--quiet', '--scale=2', '--host', $node->host, '--port', $node->port, 'postgres' ],
	'pgbench tables are made');
my $load = start_pgbench($node, clients => 4, protocol => 'prepared');
poll_query($node, 'SELECT count(*) > 100 FROM pgbench_history') or die 'the load did not begin';

# Made, begun, live
is(sql("SELECT migrate_ext.partition_by_hash('pgbench_accounts', 'bid', 8)"),
	'pgbench_accounts', 'the migration is named after its table');
state_is('created');
is(leaves('pgbench_accounts_new'), '8', 'the target has its partitions');
is(counts($node, 'pgbench_accounts_new'), '0', 'and no rows yet');
heard();
sql("BEGIN; SELECT migrate_ext.start('pgbench_accounts'); ROLLBACK");
is(join("\n", heard()), '', 'notified: nothing of a call that is rolled back');
sql("SELECT migrate_ext.start('pgbench_accounts')");
wait_live($node, 'pgbench_accounts');
plain_ok('live');
is(sql("SELECT percent >= 0 AND percent <= 100 FROM migrate_ext.progress"), 't', 'progress is a percentage');
is(sql("SELECT count(*) FROM migrate_ext.failed_rows"), '0', 'no row was set aside');

# There, back, and there again
sql("CALL migrate_ext.finalize('pgbench_accounts', '60 s')");
partitioned_ok('finalize');
sql("CALL migrate_ext.undo('pgbench_accounts', '60 s')");
plain_ok('undo');
sql("CALL migrate_ext.finalize('pgbench_accounts', '60 s')");
partitioned_ok('second finalize');

# For good
sql("CALL migrate_ext.complete('pgbench_accounts', drop_original => true)");
state_is('completed');
is(relation('pgbench_accounts'), 'p', 'complete: the table is partitioned');
is(relation('pgbench_accounts_orig'), '-', 'complete: the original is gone');
is(leaves('pgbench_accounts'), '8', 'complete: the partitions stand');
is( sql("SELECT relkind FROM pg_class WHERE oid = to_regclass('pgbench_accounts_pkey')"),
	'I', 'complete: the primary key has its old name');
is( sql("SELECT count(*) FROM pg_trigger
		WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('pgbench_accounts')) AND NOT tgisinternal"),
	'0', 'complete: no trigger is left');
tpcb_ok($node, 'complete');

# A second one, cancelled
sql("CREATE TABLE small (id integer PRIMARY KEY); SELECT migrate_ext.partition_by_hash('small', 'id', 2); SELECT migrate_ext.start('small')");
wait_live($node, 'small');
long_event_ok(0x20ac, 397, 'of three bytes each');
long_event_ok(1, 1192, 'of six bytes each as JSON');
sql("CALL migrate_ext.cancel('small')");
heard();
events_ok();
$listener->quit;

# What it cost
is( sql("SELECT string_agg(direction, ' ' ORDER BY at) FROM migrate_ext.swaps"),
	'finalize undo finalize', 'each swap is recorded');
is(sql('SELECT bool_and(hold_ms > 0 AND wait_ms >= 0) FROM migrate_ext.swaps'), 't', 'each swap tells its wait and hold');
cmp_ok(longest_hold($node, 3), '<', $MAX_HOLD_MS, 'each swap held for a moment only')
  or diag(sql('SELECT direction, attempts, wait_ms, hold_ms, blockers FROM migrate_ext.swaps'));

# The load was never in the way, nor anything in its way
my $before = sql('SELECT count(*) FROM pgbench_history');
poll_query($node, "SELECT count(*) > $before FROM pgbench_history");
pgbench_ok(stop_pgbench($load), 'load');
tpcb_ok($node, 'end');
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock, not even of our own');

$node->stop;
done_testing;
