# The conservation harness: clients change two tables at random (StressLoad.pm), while both are migrated,
# swapped, swapped back, cancelled and migrated anew, and workers and backends are ended or killed.
#
# What must hold: in every snapshot the books agree with the table that the application uses, and with the
# other one from state live on; no client sees an error but a serialization failure, a deadlock (the load has
# none of its own: any is a failure here), its own cancel, or its connection lost where we took it; each
# COMMIT that was answered is in the ledger, and of those that weren't at most the last one.
#
# The same seed makes each client do the same operations in the same order, and the same strikes be drawn.
package Stress;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use StressLoad;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(stress);

# A migration lives so many rounds, then it is cancelled and made anew.
my $ROUNDS_A_LIFE = 5;

# One call of finalize or undo; and how often one may end for want of time, under load on a slow machine.
my $CALL_S    = 60;
my $CALL_MAX  = 5;

# Both sides may differ by what stands in the log, for as long as the leader takes to drain it.
my $DRAIN_S = 30;

my @ISOLATION = ('read committed', 'repeatable read', 'serializable');
my @PROTOCOL  = qw(prepared extended simple);

# How the target is made, in turns. The default partition takes what lies outside.
my @PARTITIONED = (
	q{partition_by_hash('%s', 'part', 5)},
	q{partition_by_range('%s', 'part', 1, 0, 16, 0)},
	q{partition_by_range('%s', 'id', 4000, 0, 20000, 0)},
	q{partition_by_list('%s', 'part', options => '{"groups": {"low": [0, 1], "high": [2, 3, 4, 5]}}')});

# What happens while something is under way, and how often.
my %STRIKE = (
	nothing                => 5,
	'a worker ended'       => 4,
	'clients ended'        => 3,
	'clients cancelled'    => 3,
	'the call ended'       => 3,
	'the call cancelled'   => 2,
	'a worker killed'      => 1,
	'a client killed'      => 1,
	'the call killed'      => 1);

# What an ended connection says; what the server may say to clients, and to workers. 26000: pgbench runs a
# statement that it meant to prepare, when a cancel of its own came; without a cancel it isn't forgiven.
my $LOST = join '|', 'terminating connection', 'server closed the connection', 'backend died',
  'could not (?:send|receive) data', 'connection to server.*failed', 'connection not open', 'no connection to the server';
my $CLIENT_STATE = qr/^(?:26000|40001|57014|57P01|57P02|57P03|08006|08P01)$/;
my $WORKER_STATE = qr/^(?:40001|40P01|55P03|57014|57P01|57P02|57P03|MX002|55006|08006)$/;

my ($opt, @clients, %figure, $log_at, $began);

# stress(seed => 1, rounds => 10, seconds => none, clients => 16, rate => 300, report => sub): ends after so many
# rounds or seconds, whichever comes first. The checks are Test::More's.
sub stress
{
	$opt = { seed => 1, rounds => 10, clients => 16, rate => 300, report => sub { note @_ }, @_ };
	$began = time;
	%figure = map { $_ => 0 } qw(transactions retried rounds lives crashes late);
	srand($opt->{seed});
	start_server();
	make_tables();
	start_clients();
	prove_harness();

	my $round = 0;
	my $more  = more($round);
	while ($more)
	{
		begin_life() if $round % $ROUNDS_A_LIFE == 0;
		$round++;
		one_round($round);
		# asked once: time may be up while a life is ended, and what is looked at in the end is a live table
		$more = more($round);
		end_life($round) if $more && $round % $ROUNDS_A_LIFE == 0;
	}
	end_clients();
	if (Test::More->builder->is_passing)
	{
		audit('at the end', 'new');
		commits_kept();
	}
	tell_figures();
	$node->stop;
	return;
}

# What is lost stays lost: further rounds would only say so again.
sub more
{
	my ($round) = @_;
	return 0 unless Test::More->builder->is_passing;
	return 0 if $round >= $opt->{rounds};
	return !(defined $opt->{seconds} && time - $began > $opt->{seconds});
}

sub report
{
	my ($text) = @_;
	$opt->{report}->(sprintf '[%4d s] %s', time - $began, $text);
	return;
}

# The log has the SQLSTATE and who it was, and of the daily serialization failures no statements.
sub start_server
{
	$node = new_node('stress', preload => 1, conf => <<~CONF);
		log_line_prefix = '%m [%p] %e %a: '
		log_min_error_statement = panic
		log_lock_waits = off
		restart_after_crash = on
		max_connections = 100
		max_prepared_transactions = 50
		migrate_ext.batch_target_ms = 50
		CONF
	$log_at = -s $node->logfile;
	return;
}

# ---------------------------------------------------------------------------------------------
# Clients: a pgbench each, so that one that loses its connection can begin anew

my ($script_dir, @shared_scripts);

sub start_clients
{
	$script_dir = PostgreSQL::Test::Utils::tempdir('scripts');
	@shared_scripts = make_scripts($script_dir);
	@clients = map { { number => $_, life => 0 } } 0 .. $opt->{clients} - 1;
	start_client($_) for @clients;
	return;
}

# A client's next life has a seed of its own: what it would have done next nobody knows.
sub start_client
{
	my ($client) = @_;
	$client->{life}++;
	$client->{name} = "stress_$client->{number}_$client->{life}";
	$client->{lost} = 0;
	my $dir = "$script_dir/$client->{name}";
	mkdir $dir or die "$dir: $!";
	my $isolation = $ISOLATION[ $client->{number} % @ISOLATION ];
	$client->{load} = start_pgbench($node,
		clients   => 1,
		isolation => $isolation,
		protocol  => $PROTOCOL[ $client->{number} / @ISOLATION % @PROTOCOL ],
		name      => $client->{name},
		settings  => { 'stress.client' => $client->{name} },
		max_s     => 10 * 86400,
		args      => [
			'-U' => 'stress_client',
			'--rate' => $opt->{rate} / $opt->{clients},
			'--max-tries' => 1000,
			'--random-seed' => $opt->{seed} * 1_000_000 + $client->{number} * 10_000 + $client->{life},
			@shared_scripts, client_scripts($dir, $client->{name}, $isolation) ]);
	return;
}

# Those that have ended begin anew.
sub tend_clients
{
	for my $client (@clients)
	{
		next if still_running($client->{load}{run});
		note_client($client, pgbench_result($client->{load}));
		start_client($client);
	}
	return;
}

sub end_clients
{
	tend_clients();
	note_client($_, stop_pgbench($_->{load}), 'stopped') for @clients;
	return;
}

# What became of a client: its answered COMMITs, and whether it ended as it may.
sub note_client
{
	my ($client, $result, $stopped) = @_;
	my $commits = 0;
	while ($result->{out} =~ m{^SQL script \d+: .*?/(\w+)\.sql\n.*\n - (\d+) transactions}mg)
	{
		my ($script, $n) = ($1, $2);
		$figure{scripts}{ $script =~ s/^(?:acct|item)_|_[A-Z]+$//gr } += $n;
		$commits += $n if $script =~ /_COMMIT$/;
		$figure{transactions} += $n;
	}
	$figure{retried} += $1 if $result->{out} =~ /^total number of retries: (\d+)/m;
	settle_prepared($client->{name});
	push @{ $figure{commits} }, [ $client->{name}, $commits, $stopped && $result->{exit} == 0 ];

	my $why = $result->{err} =~ s/^pgbench: setting random seed.*\n//mr;
	return if $stopped && $result->{exit} == 0 && $why eq '';
	my $ours = $client->{lost} && $why =~ /$LOST/;
	my $cancelled = $why =~ /canceling statement due to (?:statement timeout|user request)/;
	$figure{ $ours ? 'connections lost' : 'cancelled' }++ if $ours || $cancelled;
	fail("$client->{name} saw nothing but what it may") || diag("exit $result->{exit}: $why")
	  if !($ours || $cancelled) || $why =~ /(?:ERROR|PANIC):\s++(?!canceling statement|could not serialize|deadlock|prepared statement "P_\d+")/;
	return;
}

# What a client prepared and didn't live to end.
sub settle_prepared
{
	my ($gid) = @_;
	return unless sql("SELECT 1 FROM pg_prepared_xacts WHERE gid = '$gid'");
	my $end = rand() < 0.5 ? 'COMMIT' : 'ROLLBACK';
	sql("$end PREPARED '$gid'");
	$figure{"prepared transactions left: $end"}++;
	return;
}

# Each answered COMMIT is in the ledger; of a client that lost its connection perhaps one more, or one that it
# left prepared.
sub commits_kept
{
	compact_ledger();
	my %kept = map { split /\|/ } split /\n/, sql('SELECT client, commits FROM ledger WHERE client IS NOT NULL');
	my @wrong;
	my $unclear = 0;
	for (@{ $figure{commits} })
	{
		my ($name, $answered, $orderly) = @$_;
		my $more = ($kept{$name} // 0) - $answered;
		push @wrong, "$name: $answered answered, $more more in the ledger" if $more < 0 || $more > ($orderly ? 0 : 1);
		$unclear += $more;
	}
	is(join("\n", @wrong), '', 'every COMMIT that was answered is in the ledger, and no other');
	$figure{'commits found in the ledger, unanswered'} = $unclear;
	return;
}

# ---------------------------------------------------------------------------------------------
# Strikes

sub draw_strike
{
	my (@names) = sort keys %STRIKE;
	my $sum = 0;
	$sum += $_ for values %STRIKE;
	my $draw = int rand $sum;
	for (@names)
	{
		return { name => $_, at => time + rand(0.8), done => 0 } if ($draw -= $STRIKE{$_}) < 0;
	}
	die 'unreachable';
}

# At its time; what it wants to hit may not be there (yet).
sub strike_if_due
{
	my ($strike) = @_;
	return if $strike->{done} || $strike->{name} eq 'nothing' || time < $strike->{at};
	my ($whom, $how) = $strike->{name} =~ /(worker|client|call)s? (\w+)/;
	my %who = (
		worker => "backend_type LIKE 'migrate_ext%'",
		client => "application_name LIKE 'stress\\_%'",
		call   => "application_name = 'the call'");
	my $limit = $strike->{name} =~ /clients/ ? 3 : 1;
	my @victims = split /\n/, sql(<<~SQL);
		SELECT pid, application_name FROM pg_stat_activity WHERE $who{$whom} ORDER BY random() LIMIT $limit
		SQL
	return unless @victims;
	$strike->{done} = 1;
	$figure{strikes}{ $strike->{name} }++;
	my $act = { ended => \&end_backend, cancelled => \&cancel_backend, killed => \&kill_backend }->{$how};
	$act->(split /\|/, $_, -1) for @victims;
	return;
}

sub expect_loss
{
	my (@names) = @_;
	for my $client (@clients)
	{
		$client->{lost} = 1 if !@names || grep { $_ eq $client->{name} } @names;
	}
	return;
}

sub end_backend
{
	my ($pid, $name) = @_;
	expect_loss($name);
	sql("SELECT pg_terminate_backend($pid)");
	return;
}

sub cancel_backend
{
	my ($pid) = @_;
	sql("SELECT pg_cancel_backend($pid)");
	return;
}

# A process that is about to end by itself is stopped before that, or has ended: then its death is no crash.
sub stopped
{
	my ($pid) = @_;
	kill 'STOP', $pid or return 0;
	while (1)
	{
		open my $in, '<', "/proc/$pid/stat" or return 0;
		my ($state) = (<$in> // '') =~ /.*\) (\w)/ or return 0;
		return $state eq 'T' if $state =~ /[TZX]/;
		usleep(1000);
	}
}

# The postmaster ends all others, too, and recovers.
sub kill_backend
{
	my ($pid, $name) = @_;
	expect_loss();
	my $offset = -s $node->logfile;
	return unless stopped($pid) && kill 'KILL', $pid;
	$figure{crashes}++;
	$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
	return;
}

# ---------------------------------------------------------------------------------------------
# Rounds

sub begin_life
{
	$figure{lives}++;
	for my $i (0 .. $#TABLES)
	{
		my $make = sprintf $PARTITIONED[ ($figure{lives} + $i) % @PARTITIONED ], $TABLES[$i];
		sql("SELECT migrate_ext.$make");
		sql("SELECT migrate_ext.configure('$TABLES[$i]', 'throttle_rows_per_second', '10000')");
		sql("SELECT migrate_ext.start('$TABLES[$i]')");
	}
	my $strike = draw_strike();
	wait_until('live', $strike);
	audit("life $figure{lives}, live ($strike->{name})", 'new');
	return;
}

# Without a call: the leaders get there by themselves.
sub wait_until
{
	my ($state, $strike) = @_;
	my $deadline = time + 180;
	while (grep { state_of($_) ne $state } @TABLES)
	{
		tend_clients();
		strike_if_due($strike);
		not_paused();
		die 'not ' . $state . " in time\n" . sql('SELECT * FROM migrate_ext.progress') . "\n" if time > $deadline;
		usleep(50_000);
	}
	sql("SELECT migrate_ext.configure('$_', 'throttle_rows_per_second', '0')") for @TABLES;
	return;
}

sub state_of
{
	my ($table) = @_;
	return migration_state($node, $table);
}

sub not_paused
{
	my $why = sql('SELECT migration, pause_reason, last_error FROM migrate_ext.migrations WHERE paused');
	die "paused: $why\n" if $why ne '';
	return;
}

sub one_round
{
	my ($round) = @_;
	$figure{rounds}++;
	for ([ 'finalize', 'swapped', 'orig' ], [ 'undo', 'live', 'new' ])
	{
		my ($call, $state, $suffix) = @$_;
		my $strike = draw_strike();
		call_both($call, $state, $strike);
		$strike->{at} = 0;
		strike_if_due($strike);
		wait_for_work(50);
		audit("round $round, $state ($strike->{name})", $suffix);
	}
	read_log();
	compact_ledger();
	return;
}

# Both tables at a time, each by a session of its own, again where that was struck, until they are there.
sub call_both
{
	my ($call, $state, $strike) = @_;
	my $late = 0;
	while (my @behind = grep { state_of($_) ne $state } @TABLES)
	{
		my @calls = map { start_call("CALL migrate_ext.$call('$_', '$CALL_S s')") } @behind;
		my $deadline = time + 3 * $CALL_S;
		while (grep { still_running($_->{run}) } @calls)
		{
			die "$call does not end\n" . sql('SELECT * FROM migrate_ext.progress') . "\n" if time > $deadline;
			tend_clients();
			strike_if_due($strike);
			usleep(20_000);
		}
		for (map { call_error($_) } @calls)
		{
			next if $strike->{done} && ($strike->{name} =~ /the call|killed/) && /$LOST|canceling statement due to user/;
			# a session that is ended says so before it has let go of its request
			next if $strike->{done} && $strike->{name} eq 'the call ended' && /another session is waiting for migration/ && time < $deadline;
			die "$call: $_\n" unless /ERROR:  MX002/ && ++$late <= $CALL_MAX;
			report("$call again: $_");
			$figure{late}++;
		}
	}
	return;
}

sub start_call
{
	my ($statement) = @_;
	my $call = { out => '', err => '' };
	local $ENV{PGAPPNAME} = 'the call';
	$call->{run} = IPC::Run::start(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'), '-c', $statement ],
		'<', \undef, '>', \$call->{out}, '2>', \$call->{err});
	return $call;
}

# Nothing, or what it failed for.
sub call_error
{
	my ($call) = @_;
	$call->{run}->finish;
	return $call->{run}->result(0) == 0 ? () : $call->{err};
}

sub end_life
{
	my ($round) = @_;
	for my $table (@TABLES)
	{
		sql("SET client_min_messages = error; CALL migrate_ext.cancel('$table')");
	}
	audit("round $round, cancelled", undef);
	return;
}

sub wait_for_work
{
	my ($transactions) = @_;
	my $count = 'SELECT coalesce(sum(commits), 0) FROM ledger';
	my $enough = sql($count) + $transactions;
	my $deadline = time + 60;
	while (sql($count) < $enough)
	{
		tend_clients();
		die "the load stands still\n" if time > $deadline;
		usleep(50_000);
	}
	return;
}

# ---------------------------------------------------------------------------------------------
# Checks

# The books, and both sides of each migration; the load goes on meanwhile.
sub audit
{
	my ($when, $suffix) = @_;
	for my $table (@TABLES)
	{
		conserved($table, $when);
		both_sides_equal($table, "${table}_$suffix", $when) if defined $suffix;
	}
	report($when);
	return;
}

# One statement, one snapshot, taken after its locks: no TRUNCATE comes in between.
sub conserved
{
	my ($table, $when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($booked, $there) = split /\|/, sql("SELECT " . books($table) . ', ' . contents($table));
	is($there, $booked, "$when: $table is what the books say");
	return;
}

# What couldn't be written through waits in the log, for a moment: what this snapshot sees there. (The view progress counts
# what is there by now.)
sub both_sides_equal
{
	my ($table, $other, $when) = @_;
	my $deadline = time + $DRAIN_S;
	my $log = sql("SELECT log FROM migrate_ext.migration WHERE name = '$table'");
	my $differ;
	while (1)
	{
		my $entries;
		($differ, $entries) = split /\|/, sql(<<~SQL);
			SELECT (SELECT count(*) FROM (TABLE $table EXCEPT ALL TABLE $other) AS missing)
			     + (SELECT count(*) FROM (TABLE $other EXCEPT ALL TABLE $table) AS extra),
			       (SELECT count(*) FROM $log)
			SQL
		last if $differ == 0 || $entries == 0 || time > $deadline;
		$figure{'looked again at rows in the log'}++;
		tend_clients();
		usleep(100_000);
	}
	is($differ, 0, "$when: $table and $other are equal, row for row");
	return;
}

# What the server told anybody since the last look.
sub read_log
{
	my $log = slurp_file($node->logfile, $log_at);
	$log_at += length $log;
	my @bad;
	for my $line (split /\n/, $log)
	{
		my ($code, $name, $level) = $line =~ /^\S+ \S+ \S+ \[\d+\] (\w{5}) (.*?): +(ERROR|FATAL|PANIC):/ or next;
		my $who = $name =~ /^stress_/ ? 'clients' : $name =~ /^migrate_ext/ ? 'workers' : 'others';
		$figure{errors}{"$who $code"}++;
		push @bad, $line
		  if $level eq 'PANIC' || $who eq 'clients' && $code !~ $CLIENT_STATE || $who eq 'workers' && $code !~ $WORKER_STATE;
	}
	push @bad, grep { /TRAP: |was terminated by signal (?!9:)/ } split /\n/, $log;
	is(join("\n", @bad), '', 'the log has no error that it may not have');
	return;
}

# The harness itself, without a migration: that the books agree, and that what is cooked is seen.
sub prove_harness
{
	wait_for_work(200);
	conserved($_, 'without a migration') for @TABLES;
	my $some = '(SELECT id FROM acct ORDER BY id LIMIT 1)';
	sees("UPDATE acct SET tag = tag + 1 WHERE id = $some", 'a lost update');
	sees("DELETE FROM acct WHERE id = $some", 'a lost row');
	sees('INSERT INTO acct VALUES (-1, 0, 0, 0, NULL)', 'a row too many');
	sees("UPDATE acct SET part = part + 1 WHERE id = $some", 'a row in the wrong place');
	report('the harness is proven');
	return;
}

# In a transaction that is rolled back.
sub sees
{
	my ($statement, $what) = @_;
	my ($booked, $there) =
	  split /\|/, sql("BEGIN; $statement; SELECT " . books('acct') . ', ' . contents('acct') . '; ROLLBACK');
	return isnt($there, $booked, "the harness sees $what");
}

# ---------------------------------------------------------------------------------------------
# Figures

sub tell_figures
{
	my $counts = sub {
		my ($of) = @_;
		return join ', ', map { "$_ $of->{$_}" } sort keys %{ $of // {} };
	};
	my $seconds = time - $began;
	report(sprintf '%d transactions (%d a second), %d retried; %d rounds in %d lives, %d crashes, %d calls late',
		$figure{transactions}, $figure{transactions} / $seconds, @figure{qw(retried rounds lives crashes late)});
	report('strikes: ' . $counts->($figure{strikes}));
	report('errors in the log: ' . $counts->($figure{errors}));
	report('transactions: ' . $counts->($figure{scripts}));
	my @others = sort grep { !ref $figure{$_} && !/^(?:transactions|retried|rounds|lives|crashes|late)$/ } keys %figure;
	report("$_: $figure{$_}") for @others;
	report("swaps: $_") for split /\n/, sql(<<~SQL);
		SELECT format('%s %s, attempts at most %s, held median %s ms, max %s ms, waited median %s ms, max %s ms',
		              count(*), direction, max(attempts),
		              round(percentile_cont(0.5) WITHIN GROUP (ORDER BY hold_ms)::numeric, 1), round(max(hold_ms)::numeric, 1),
		              round(percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_ms)::numeric, 1), round(max(wait_ms)::numeric, 1))
		FROM migrate_ext.swaps GROUP BY direction
		SQL
	return;
}

1;
