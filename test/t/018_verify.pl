# Verification by several processes, in the background, and of what may have changed, whoever changed it;
# a change log that grows without anybody draining it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROWS = 300_000;

# No autovacuum: what it writes is read again.
$node = new_node('main', conf => "autovacuum = off\n");

sub verifications
{
	return sql('SELECT count(*) FROM migrate_ext.verifications');
}

# A verification after the first so many found so many rows missing, extra and different.
sub found_ok
{
	my ($after, $found, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(poll_query($node, <<~SQL), $name);
		SELECT bool_or(format('%s|%s|%s', missing, extra, different) = '$found')
		FROM (SELECT * FROM migrate_ext.verifications ORDER BY verified_at OFFSET $after) v
		SQL
}

# What verification in the background finds after that; then it is put right.
sub finds_ok
{
	my ($statements, $found, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = verifications();
	sql($_) for split /;/, $statements;
	found_ok($before, $found, $name);
	repair();
	return;
}

sub repair
{
	sql("SELECT migrate_ext.repair('t')");
	poll_query($node, "SELECT verified_at IS NOT NULL FROM migrate_ext.migration WHERE name = 't'") or die "not repaired\n";
	return;
}

sub make
{
	sql(<<~SQL);
		CREATE TABLE t (id integer PRIMARY KEY, k integer NOT NULL, note text);
		INSERT INTO t SELECT i, i % 7, 'note ' || i FROM generate_series(1, $ROWS) i;
		SELECT migrate_ext.partition_by_hash('t', 'k', 3);
		SELECT migrate_ext.start('t');
		SQL
	wait_live($node, 't');
	return;
}

# A helper dies with a range in its hands, one is cancelled: somebody else reads it, or the same one again.
sub shared
{
	my $point = hold_point($node, 'verify_before_commit');
	my $call = begin_call($node, "CALL migrate_ext.verify('t')");
	# both told apart beforehand: one that is terminated is seen until it has ended, and then another comes
	my $helpers = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'migrate_ext helper' AND $point->{pid} = ANY (pg_blocking_pids(pid))";
	poll_query($node, "SELECT count(*) FROM ($helpers) AS h", '2') or die "nobody shares it\n";
	my ($dies, $stays) = split /\n/, sql($helpers);
	sql("SELECT pg_terminate_backend($dies), pg_cancel_backend($stays)");
	poll_query($node, "SELECT count(*) > 0 FROM migrate_ext.events WHERE kind = 'error' AND message ~ 'canceling'")
		or die "nobody was cancelled\n";
	release_point($point);
	is(end_call($call), '', 'verified by several processes, one of which died and one was cancelled');
	is(sql('SELECT complete, checked_rows, missing + extra + different FROM migrate_ext.verifications'), "t|$ROWS|0", 'all rows, once each');
	is(sql('SELECT bool_and(verified), sum(checked_rows) FROM migrate_ext.verified_ranges'), "t|$ROWS", 'and each range');
	return;
}

sub in_background
{
	my $before = verifications();
	sql("SELECT migrate_ext.configure('t', 'verify_interval_s', '1')");
	sql("UPDATE t SET note = 'changed' WHERE id = $ROWS / 2");
	found_ok($before, '0|0|0', 'verified again in the background');
	is(sql(<<~'SQL'), 't', 'but not all of it');
		SELECT (detail->>'read')::int BETWEEN 1 AND (detail->>'ranges')::int - 1 FROM migrate_ext.events
		WHERE kind = 'verified' AND message ~ 'read again' ORDER BY at DESC LIMIT 1
		SQL
	finds_ok("UPDATE t_new SET note = 'wrong' WHERE id = 99", '0|0|1', 'an update past the trigger');
	finds_ok('DELETE FROM t_new WHERE id = 222222; VACUUM t_new', '1|0|0', 'a delete past it, of which vacuum left nothing');
	finds_ok("INSERT INTO t_new VALUES (-5, 1, 'early')", '0|1|0', 'an insert past it');
	finds_ok('TRUNCATE ONLY t_p1', sql('SELECT count(*) FROM t_p1') . '|0|0', 'a partition emptied past it');
	return;
}

# A transaction wrote before the range was read, on pages that are older than that, and commits after it.
sub written_before
{
	my $session = open_session($node, on_error_stop => 1);
	my $read;
	my $before;
	$session->query_safe("BEGIN; UPDATE t_new SET note = 'late' WHERE id = 123456");
	$read = sql('SELECT max(read_at) FROM migrate_ext.verified_range');
	sql("CALL migrate_ext.verify('t')");
	is(sql("SELECT min(read_at) > '$read' FROM migrate_ext.verified_range"), 't', 'all is read while a transaction is open');
	$before = verifications();
	$session->query_safe('COMMIT');
	$session->quit;
	found_ok($before, '0|0|1', 'what it wrote is found when it has committed');
	repair();
	sql("SELECT migrate_ext.configure('t', 'verify_interval_s', '0')");
	return;
}

# Statements make a log grow by some 16 MB: the server's log, an event and progress say so.
sub grows_ok
{
	my ($statements, $why, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = -s $node->logfile;
	sql($statements);
	like(slurp_file($node->logfile, $log), qr/LOG:  the change log of migration "t" grows and nobody drains it/, "$name: the log tells");
	is(sql("SELECT count(*) > 0 FROM migrate_ext.events WHERE kind = 'undrained' AND message ~ '$why'"), 't', "$name: an event");
	like(sql('SELECT waiting_for FROM migrate_ext.progress'), qr/$why.*; meanwhile the change log grows/, "$name: progress");
	return;
}

sub undrained
{
	my $point = hold_point($node, 'copy_before_commit');
	sql("CALL migrate_ext.cancel('t')");
	sql("SELECT migrate_ext.forget('t')");
	sql("SELECT migrate_ext.partition_by_hash('t', 'k', 3)");
	sql("SELECT migrate_ext.start('t')");
	wait_point($point) or die "nobody stands there\n";
	sql("UPDATE t SET note = 'watched'");
	is(sql("SELECT count(*) FROM migrate_ext.events WHERE kind = 'undrained'"), '0', 'somebody is there: nothing is said');
	sql("SELECT migrate_ext.pause('t', 'night')");
	grows_ok("UPDATE t SET note = 'paused'", 'paused', 'paused');
	sql("SELECT migrate_ext.resume('t')");
	restart_node($node, 'immediate');
	drop_point($point);
	grows_ok("BEGIN; UPDATE t SET note = 'alone'; UPDATE t SET note = 'alone again'; PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'",
		'no process is at work on it', 'no workers after a restart');
	return;
}

make();
shared();
in_background();
written_before();
undrained();
done_testing();
