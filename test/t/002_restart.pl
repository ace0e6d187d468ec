# A restart in each state, orderly and by crash, of the server, by death of the launcher or of the postmaster, with
# the launcher and without. Nothing is lost, no state goes back, the triggers work from the first statement on; what
# continues is the launcher's business where there is one, and resume's where not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @STATES = qw(created logging copying indexing catching_up live swapped completed);

# The point that keeps a migration in a state until the restart.
my %POINT = (
	copying     => 'copy_before_commit',
	indexing    => 'index_before_commit',
	catching_up => 'golive_before_commit');

# Who stands at the last one has writers locked out: no write there before the restart.
my @WRITABLE_WHILE_HELD = grep { $_ ne 'catching_up' } @STATES, 'paused';

my $ROWS = 4000;

sub make_migration
{
	my ($table) = @_;
	sql(<<~SQL);
		CREATE TABLE $table (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL);
		INSERT INTO $table SELECT g, g % 16, 0 FROM generate_series(1, $ROWS) AS g;
		SELECT migrate_ext.partition_by_hash('$table', 'k', 4);
		SQL
	return;
}

# What an application might do in the first moment after the restart, or in the last before it.
sub write_to
{
	my ($table, $round) = @_;
	sql(<<~SQL);
		UPDATE $table SET v = v + 1 WHERE id % 3 = 0;
		UPDATE $table SET k = (k + 5) % 16 WHERE id % 7 = $round;
		UPDATE $table SET id = id + 100000 * ($round + 1) WHERE id % 11 = $round;
		DELETE FROM $table WHERE id % 13 = $round;
		INSERT INTO $table SELECT $ROWS * ($round + 1) + g, g % 16, -1 FROM generate_series(1, 50) AS g;
		SQL
	return;
}

sub start_and_hold
{
	my ($point, $state, @tables) = @_;
	make_migration($_) for @tables;
	sql("SELECT migrate_ext.start('$_')") for @tables;
	wait_state($node, $_, $state) for @tables;
	wait_point($point, scalar @tables) or die "nobody came to $point->{name}";
	return;
}

# One migration a state. The points nearest to the end come first: what is held there has passed the
# others already.
sub bring_into_states
{
	my ($prefix) = @_;
	my @points;

	make_migration("${prefix}_$_") for qw(live swapped completed);
	sql("SELECT migrate_ext.start('${prefix}_$_')") for qw(live swapped completed);
	wait_live($node, map { "${prefix}_$_" } qw(live swapped completed));
	sql("CALL migrate_ext.finalize('${prefix}_$_', '60 s')") for qw(swapped completed);
	sql("CALL migrate_ext.complete('${prefix}_completed')");

	for my $state (qw(catching_up indexing copying))
	{
		push @points, hold_point($node, $POINT{$state});
		start_and_hold($points[-1], $state,
			map { "${prefix}_$_" } $state, $state eq 'copying' ? 'paused' : ());
	}
	sql("SELECT migrate_ext.pause('${prefix}_paused', 'over the restart')");

	make_migration("${prefix}_created");
	make_migration("${prefix}_logging");
	sql("SELECT migrate_ext.install_sync('${prefix}_logging')");
	wait_state($node, "${prefix}_logging", 'logging');

	is(states($prefix), "@STATES", "$prefix: a migration in each state");
	return @points;
}

sub states
{
	my ($prefix) = @_;
	return join ' ', map { migration_state($node, "${prefix}_$_") } @STATES;
}

# Without the launcher each is where it was; with it, there or further on.
sub states_after_ok
{
	my ($prefix, $preload) = @_;
	return is(states($prefix), "@STATES", "$prefix: each state outlives the restart") if !$preload;

	my %order = map { $STATES[$_] => $_ } 0 .. $#STATES;
	my @now = split ' ', states($prefix);
	my @back = grep { $order{ $now[$_] } < $_ } 0 .. $#STATES;
	return is("@back", '', "$prefix: no state went back");
}

sub finish_ok
{
	my ($prefix, $preload) = @_;
	my @unfinished = grep { !/^(completed|swapped)$/ } @STATES;

	is( sql("SELECT paused, pause_reason FROM migrate_ext.migrations WHERE migration = '${prefix}_paused'"),
		't|over the restart', "$prefix: a pause outlives it too");
	sql("SELECT migrate_ext.resume('${prefix}_paused')");
	if (!$preload)
	{
		sql("SELECT migrate_ext.resume('${prefix}_$_')") for qw(logging copying indexing catching_up live swapped);
	}
	sql("SELECT migrate_ext.start('${prefix}_$_')") for qw(created logging);
	wait_live($node, map { "${prefix}_$_" } @unfinished, 'paused');
	sql("CALL migrate_ext.undo('${prefix}_swapped', '60 s')");

	for my $state (@unfinished, 'swapped', 'paused')
	{
		my $table = "${prefix}_$state";
		write_to($table, 2);
		is(rows_that_differ($node, $table, "${table}_new"), '0', "$table: both sides are equal at the end");
	}
	return;
}

# By pg_ctl in that mode, or by the death of that process.
sub restart_by
{
	my ($mode) = @_;
	return restart_node($node, $mode) if $mode =~ /^(fast|immediate)$/;
	if ($mode eq 'launcher')
	{
		my $offset = -s $node->logfile;
		kill 'KILL', sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'migrate_ext launcher'");
		$node->wait_for_log(qr/all server processes terminated; reinitializing.*database system is ready to accept connections/s, $offset);
		return;
	}
	# who outlives the postmaster for a moment keeps a new one from starting
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	$node->kill9;
	while (!$node->start(fail_ok => 1))
	{
		die "the server does not start again\n" if time > $deadline;
		$node->kill9;    # forgets the number in the old one's file
	}
	return;
}

sub check_restart
{
	my ($mode, $preload) = @_;
	my $prefix = $mode;

	my @points = bring_into_states($prefix);
	write_to("${prefix}_$_", 0) for @WRITABLE_WHILE_HELD;
	restart_by($mode);
	drop_point($_) for @points;

	# At once: no worker may have to be there for a write to be kept.
	write_to("${prefix}_$_", 1) for @STATES, 'paused';
	is(rows_that_differ($node, "${prefix}_live", "${prefix}_live_new"), '0',
		"$prefix: live is live from the first statement on");
	is(rows_that_differ($node, "${prefix}_swapped", "${prefix}_swapped_orig"), '0',
		"$prefix: reverse sync too");
	states_after_ok($prefix, $preload);
	finish_ok($prefix, $preload);
	return;
}

for my $preload (0, 1)
{
	$node = new_node($preload ? 'preload' : 'plain', preload => $preload, conf => "restart_after_crash = on\nmax_worker_processes = 100\n");
	note $preload ? 'with the launcher' : 'without the launcher';
	check_restart($_, $preload) for qw(fast immediate), $preload ? 'launcher' : (), 'postmaster';
	$node->stop;
}

done_testing;
