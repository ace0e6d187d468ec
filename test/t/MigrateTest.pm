# What the TAP tests share: servers, background load, debug points, checks.
#
# No function here sleeps for a fixed time: each wait polls, and gives up at a deadline with a word on
# what it saw last.
package MigrateTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename qw(basename dirname);
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  $node new_node restart_node make_standby private_installation
  sql errors errors_in_time try_as sql_as refused pgoptions open_session begin_call end_call
  start_pgbench stop_pgbench pgbench_result pgbench_ok longest_wait still_running
  start_clock lasted standstill longest_hold poll_query migration_state wait_state wait_live terminate_workers
  hold_point wait_point release_point drop_point
  example_step example_sees
  counts rows_that_differ description described_ok tpcb_sums tpcb_ok
);

# How long anything may take before a test gives up.
my $DEADLINE_S = $PostgreSQL::Test::Utils::timeout_default;

# A load never ends by itself before its test does.
my $LOAD_MAX_S = 900;

my $TEST_DIR = dirname(__FILE__) . '/..';

my @loads;

# ---------------------------------------------------------------------------------------------
# Servers

# new_node(name, preload => 0, conf => '', install_path => the tests' own): a running server, with the extension in
# database postgres
sub new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $opt{install_path});
	$node->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
	$node->append_conf('postgresql.conf', slurp_file("$TEST_DIR/postgresql.conf"));
	$node->append_conf('postgresql.conf', slurp_file("$TEST_DIR/postgresql_preload.conf"))
	  if $opt{preload};
	$node->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION migrate_ext');
	return $node;
}

# private_installation(folder): a copy of PostgreSQL's installation in that folder, to install something else into.
# PostgreSQL's programs look for their other files relative to where they stand. Returns its install_path.
sub private_installation
{
	my ($folder) = @_;
	chomp(my $bindir = qx(pg_config --bindir));
	my ($root, $path) = $bindir =~ m{^(.*)(/lib/postgresql/\d+)/bin$} or die "an installation of another kind: $bindir\n";
	for my $part (qw(lib share include))
	{
		mkdir "$folder/$part";
		system_or_bail('cp', '-a', "$root/$part/postgresql", "$folder/$part/");
	}
	return "$folder$path";
}

# mode: fast, or immediate (which is a crash)
sub restart_node
{
	my ($node, $mode) = @_;
	$node->stop($mode);
	$node->start;
	return;
}

# make_standby(primary, name, conf = nothing): a streaming standby that has caught up
sub make_standby
{
	my ($primary, $name, $conf) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$primary->backup("for_$name");
	$standby->init_from_backup($primary, "for_$name", has_streaming => 1);
	$standby->append_conf('postgresql.conf', $conf) if defined $conf;
	$standby->start;
	$primary->wait_for_catchup($standby);
	return $standby;
}

# ---------------------------------------------------------------------------------------------
# Statements

# The server that functions without a server among their arguments speak to; each test says which.
our $node;

# sql(statements, database = 'postgres'): their output; dies of an error
sub sql
{
	my ($sql, $database) = @_;
	return $node->safe_psql($database // 'postgres', $sql);
}

# errors(statements, database = 'postgres'): what they, which may fail, say beside their output
sub errors
{
	my ($sql, $database) = @_;
	my ($exit, $out, $err) = $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$sql");
	return $err;
}

# errors_in_time(call, like, seconds = 4): what a call says that gives up when its time is up; call(seconds) makes it. Where
# that was too short to come to what it should say, on a machine that has other things to do, it is made again with
# four times as much. Returns the errors, and the seconds.
sub errors_in_time
{
	my ($call, $like, $seconds) = @_;
	$seconds //= 4;
	my $errors = $call->($seconds);
	for (1 .. 2)
	{
		last if $errors =~ $like || $errors !~ /MX002/;
		note "$seconds s were not enough";
		$seconds *= 4;
		$errors = $call->($seconds);
	}
	return ($errors, $seconds);
}

# try_as(role, statements, settings): (exit code, output, errors)
sub try_as
{
	my ($role, $sql, %setting) = @_;
	local $ENV{PGOPTIONS} = pgoptions(%setting);
	return $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);
}

sub sql_as
{
	my ($role, $sql, %setting) = @_;
	my ($exit, $out, $err) = try_as($role, $sql, %setting);
	die "as $role: $err\nwhile running: $sql\n" if $exit != 0;
	return $out;
}

# The statements are refused, with an error (or SQLSTATE) like this.
sub refused
{
	my ($role, $sql, $like, $name, %setting) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($exit, $out, $err) = try_as($role, "\\set VERBOSITY verbose\n$sql", %setting);
	return ok($exit != 0 && $err =~ $like, $name) || diag("exit $exit, output $out, errors $err");
}

# open_session(server, arguments of background_psql): a session whose time limit is each statement's own, however long it is
# open
sub open_session
{
	my ($server, %opt) = @_;
	my $session = $server->background_psql('postgres', %opt);
	$session->set_query_timer_restart;
	return $session;
}

# begin_call(server, call, arguments of background_psql): a call that waits, in a session of its own, until
# end_call, which returns its errors
sub begin_call
{
	my ($server, $call, %opt) = @_;
	my $session = open_session($server, on_error_stop => 0, %opt);
	$session->query_until(qr/begun/, "\\echo begun\n");
	# what comes from here on is left for end_call, however soon
	$session->{stdin} .= "$call;\n\\echo ended\n";
	$session->{run}->pump_nb while length $session->{stdin};
	return $session;
}

sub end_call
{
	my ($session) = @_;
	$session->query_until(qr/ended/, "\n");
	my $errors = join "\n", grep { /ERROR/ } split /\n/, $session->{stderr};
	$session->quit;
	return $errors;
}

# Settings as the environment variable PGOPTIONS has them.
sub pgoptions
{
	my (%setting) = @_;
	return join ' ', map { "-c $_=" . $setting{$_} =~ s/ /\\ /gr } sort keys %setting;
}

# ---------------------------------------------------------------------------------------------
# Load

# start_pgbench(node, clients => 4, protocol => 'simple', isolation => undef, settings => {}, name => 'pgbench',
# max_s => 900, log => undef, args => []): pgbench in the background, TPC-B unless args name scripts. Its output goes to
# files: a pipe that nobody reads would fill up and stop it. log: a folder for how long each transaction takes.
sub start_pgbench
{
	my ($node, %opt) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir('pgbench') . '/output';
	my @command = (
		$node->installed_command('pgbench'), '--no-vacuum',
		'--client' => $opt{clients}  // 4,
		'--protocol' => $opt{protocol} // 'simple',
		'--time' => $opt{max_s} // $LOAD_MAX_S,
		defined $opt{log} ? ('--log', '--log-prefix' => "$opt{log}/log") : (),
		@{ $opt{args} // [] },
		'--host' => $node->host,
		'--port' => $node->port,
		'postgres');
	my %setting = %{ $opt{settings} // {} };
	$setting{default_transaction_isolation} = $opt{isolation} if defined $opt{isolation};
	local $ENV{PGOPTIONS} = pgoptions(%setting);
	local $ENV{PGAPPNAME} = $opt{name} // 'pgbench';
	my $load = {
		file => $file,
		log  => $opt{log},
		run  => IPC::Run::start(\@command, '<', \undef, '>', "$file.out", '2>', "$file.err"),
	};
	push @loads, $load;
	return $load;
}

# With --time pgbench sets itself an alarm, and when that comes lets each client end its transaction
# and reports. So an alarm from us is an orderly end, whenever we like.
sub stop_pgbench
{
	my ($load) = @_;
	$load->{run}->signal('ALRM');
	return pgbench_result($load);
}

# still_running(run): whether a program that IPC::Run started has not ended yet. Its output is taken meanwhile;
# pump_nb dies where it has, and pumpable alone doesn't look.
sub still_running
{
	my ($run) = @_;
	return eval { $run->pump_nb; 1 } && $run->pumpable;
}

# Once it has ended, or is about to.
sub pgbench_result
{
	my ($load) = @_;
	@loads = grep { $_ != $load } @loads;
	eval {
		local $SIG{ALRM} = sub { die "pgbench did not stop within $DEADLINE_S s\n" };
		alarm $DEADLINE_S;
		$load->{run}->finish;
		alarm 0;
		1;
	} or do { alarm 0; $load->{run}->kill_kill; die $@ };

	my ($out, $err) = (slurp_file("$load->{file}.out"), slurp_file("$load->{file}.err"));
	my %result = (exit => $load->{run}->result(0), out => $out, err => $err);
	($result{processed}) = $out =~ /^number of transactions actually processed: (\d+)/m;
	($result{failed})    = $out =~ /^number of failed transactions: (\d+)/m;
	return \%result;
}

# Two assertions: the load did something, and not one of its transactions failed.
sub pgbench_ok
{
	my ($result, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok($result->{processed} // 0, '>', 0, "$name: transactions were made");
	is( join(' ', 'exit', $result->{exit}, 'failed', $result->{failed} // '?', $result->{err}),
		'exit 0 failed 0 ',
		"$name: none failed");
	return;
}

# The longest of the clients' waits so far, in ms by the clock; what is left in pgbench's buffer doesn't count yet.
sub longest_wait
{
	my ($load) = @_;
	my $longest = 0;
	for my $file (glob "$load->{log}/log*")
	{
		for (split /\n/, slurp_file($file))
		{
			# client, transaction, latency in us, script, time, time, lag behind the schedule in us
			my (undef, undef, $us, undef, $s, $part, $lag) = split / /;
			my $ms = ($us - ($lag // 0)) / 1000;
			next if $ms <= $longest;
			my $end = $s + $part / 1e6;
			$ms -= 1000 * standstill($end - $ms / 1000, $end);
			$longest = $ms if $ms > $longest;
		}
	}
	return $longest;
}

# ---------------------------------------------------------------------------------------------
# Waiting

# A clock for upper bounds: a process of its own that sleeps 10 ms at a time and notes when it is awake. Where processes have
# to wait for a processor, or the whole machine stands still, it is late like the others, and a second takes longer.
my $TICKS_A_SECOND = 100;
my $clock;

sub start_clock
{
	my $file = PostgreSQL::Test::Utils::tempdir('clock') . '/ticks';
	my $program = <<~'PERL';
		my ($file, $parent) = @ARGV;
		open my $out, '>>', $file or die;
		while (getppid() == $parent)
		{
			Time::HiRes::usleep(9_900);
			syswrite $out, pack('d', Time::HiRes::time()) or die;
		}
		PERL
	my $parent = $$;
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		exec $^X, '-MTime::HiRes', '-e', $program, $file, $parent or POSIX::_exit(1);
	}
	$clock = { file => $file, pid => $pid };
	my $deadline = time + $DEADLINE_S;
	until (-s $file)
	{
		die "the clock does not go\n" if time > $deadline;
		usleep(10_000);
	}
	return;
}

# lasted(from, to = now): seconds by that clock, of times as time() has them
sub lasted
{
	my ($from, $to) = @_;
	$to //= time;
	waitpid($clock->{pid}, POSIX::WNOHANG()) == 0 or die "the clock stands\n";
	open my $in, '<:raw', $clock->{file} or die "$clock->{file}: $!";
	local $/;
	my $ticks = grep { $_ >= $from && $_ < $to } unpack 'd*', <$in>;
	return $ticks / $TICKS_A_SECOND;
}

# Seconds that the clock lacks in that time: nobody waits for what happened in them.
sub standstill
{
	my ($from, $to) = @_;
	my $lacks = $to - $from - lasted($from, $to);
	return $lacks > 0 ? $lacks : 0;
}

# longest_hold(node, swaps): for how long the last so many swaps held their locks, in ms, at most
sub longest_hold
{
	my ($node, $swaps) = @_;
	my $longest = 0;
	for (split /\n/, $node->safe_psql('postgres',
			"SELECT extract(epoch FROM at), hold_ms FROM (SELECT * FROM migrate_ext.swaps ORDER BY at DESC LIMIT $swaps) AS s WHERE hold_ms IS NOT NULL"))
	{
		my ($at, $ms) = split /\|/;
		$ms -= 1000 * standstill($at - $ms / 1000, $at + $ms / 1000);
		$longest = $ms if $ms > $longest;
	}
	return $longest;
}

# poll_query(node, query, expected = 't', deadline = the default): true once the query answers so. A deadline that is given
# is by the clock, where one has been started.
sub poll_query
{
	my ($node, $query, $expected, $deadline_s) = @_;
	$expected   //= 't';
	my $by_clock = defined $deadline_s && $clock;
	$deadline_s //= $DEADLINE_S;
	my $began = time;
	my ($stdout, $stderr);
	while (1)
	{
		$node->psql('postgres', $query, stdout => \$stdout, stderr => \$stderr);
		return 1 if $stdout eq $expected && $stderr eq '';
		last if ($by_clock ? lasted($began) : time - $began) > $deadline_s;
		usleep(50_000);
	}
	diag("gave up after $deadline_s s on: $query\nexpected: $expected\nlast: $stdout\n$stderr");
	diag($node->safe_psql('postgres', 'SELECT * FROM migrate_ext.progress', extra_params => ['-x']));
	return 0;
}

sub migration_state
{
	my ($node, $migration) = @_;
	return $node->safe_psql('postgres',
		"SELECT state FROM migrate_ext.migrations WHERE migration = '$migration'");
}

sub wait_state
{
	my ($node, $migration, $state) = @_;
	return poll_query($node,
		"SELECT state FROM migrate_ext.migrations WHERE migration = '$migration'", $state);
}

# Through the procedure that a user would call, which errors where the state can't be reached.
sub wait_live
{
	my ($node, @migrations) = @_;
	$node->safe_psql('postgres', "CALL migrate_ext.wait_for('$_', 'live', '$DEADLINE_S s')")
	  for @migrations;
	return;
}

# terminate_workers(node, migration, type, number = all): those of that type that there are, as soon as there is
# one. Found and terminated by the same statement, since one that is found may be gone a moment later.
sub terminate_workers
{
	my ($node, $migration, $type, $number) = @_;
	$number //= 'ALL';
	return poll_query($node, <<~SQL) || die "no $type of $migration\n";
		SELECT coalesce(bool_or(pg_terminate_backend(pid)), false)
		FROM (SELECT pid FROM pg_stat_activity
		      WHERE application_name = 'migrate_ext $migration' AND backend_type = 'migrate_ext $type' LIMIT $number) AS w
		SQL
}

# ---------------------------------------------------------------------------------------------
# Debug points

# hold_point(node, name): whoever comes to that point waits there, until release_point
sub hold_point
{
	my ($node, $name) = @_;
	my $session = open_session($node);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("SELECT migrate_ext.debug_hold('$name')");
	return { node => $node, name => $name, session => $session, pid => $pid };
}

# wait_point(point, n = 1): until at least n processes stand there
sub wait_point
{
	my ($point, $n) = @_;
	$n //= 1;
	return poll_query($point->{node},
		"SELECT count(*) >= $n FROM pg_stat_activity WHERE $point->{pid} = ANY (pg_blocking_pids(pid))");
}

sub release_point
{
	my ($point) = @_;
	$point->{session}->query_safe("SELECT migrate_ext.debug_release('$point->{name}')");
	return drop_point($point);
}

# After a restart of the server the point is free already; what is left is the client.
sub drop_point
{
	my ($point) = @_;
	$point->{session}{timeout}->start;
	$point->{session}->quit;
	return;
}

# ---------------------------------------------------------------------------------------------
# Examples

# run_example(file): by psql, as a newcomer does: (exit code, output, errors)
sub run_example
{
	my ($file) = @_;
	my $exit_code = $node->psql(
		'postgres', undef,
		extra_params => [ '--quiet', '--file' => $file ],
		stdout       => \my $stdout,
		stderr       => \my $stderr,
		timeout      => $DEADLINE_S);
	return ($exit_code, $stdout, $stderr);
}

# example_step(file, again => undef): a file that must run to its end, with its own checks, which end psql with
# an error; one whose errors are like "again" is run up to ten times. Returns its output.
sub example_step
{
	my ($file, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $name = basename($file);
	my ($exit_code, $stdout, $stderr);
	for (1 .. 10)
	{
		($exit_code, $stdout, $stderr) = run_example($file);
		last if $exit_code == 0 || !$opt{again} || $stderr !~ $opt{again};
		note "$name is run again";
	}
	is($exit_code, 0, "$name runs to its end") or die "$stdout\n$stderr\nno step without the one before\n";
	return $stdout;
}

# example_sees(file, do, undo, message): the checks in the file fail with that message between do and undo, in a
# state in which nobody else writes
sub example_sees
{
	my ($file, $do, $undo, $message) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sql($do);
	my ($exit_code, $stdout, $stderr) = run_example($file);
	like("exit $exit_code $stderr", qr/^exit 3 .*$message/s, basename($file) . " sees: $message");
	sql($undo);
	return;
}

# ---------------------------------------------------------------------------------------------
# Checks

# counts(node, table...): numbers of rows in one snapshot, as "n1|n2"
sub counts
{
	my ($node, @tables) = @_;
	return $node->safe_psql('postgres',
		'SELECT ' . join ', ', map { "(SELECT count(*) FROM $_)" } @tables);
}

# rows_that_differ(node, a, b): rows of either that the other hasn't, whole rows, in one snapshot: the
# load may go on
sub rows_that_differ
{
	my ($node, $a, $b) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT (SELECT count(*) FROM (TABLE $a EXCEPT ALL TABLE $b) AS missing)
		     + (SELECT count(*) FROM (TABLE $b EXCEPT ALL TABLE $a) AS extra)
		SQL
}

# description(table): what hangs on it, as migrate_ext.describe() tells
sub description
{
	my ($table) = @_;
	return sql("SELECT migrate_ext.describe('$table')");
}

# described_ok(table, description, name, but => undef): the same hangs on it as then, but for paths like "but"
sub described_ok
{
	my ($table, $description, $name, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $condition = defined $opt{but} ? "path !~ '$opt{but}'" : 'true';
	return is(sql(<<~SQL), '', $name);
		SELECT * FROM migrate_ext.catalog_difference(\$then\$$description\$then\$, migrate_ext.describe('$table')) WHERE $condition
		SQL
}

# The four sums that TPC-B keeps equal, in one snapshot: accounts|branches|tellers|history
sub tpcb_sums
{
	my ($node) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
		       (SELECT sum(tbalance) FROM pgbench_tellers),
		       (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
		SQL
}

sub tpcb_ok
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sums = tpcb_sums($node);
	my ($history) = $sums =~ /\|(-?\d+)$/;
	return is($sums, join('|', ($history // 'nothing') x 4), "$name: the TPC-B sums are equal");
}

# A test that dies must not leave its load behind.
END
{
	my $exit_code = $?;
	if ($clock)
	{
		kill 'TERM', $clock->{pid};
		waitpid $clock->{pid}, 0;
	}
	eval { $_->{run}->kill_kill } for @loads;
	$? = $exit_code;
}

1;
