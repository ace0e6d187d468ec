# What the tests of the migration frameworks share. Each example has the same five steps, by the framework's own
# command, and an application that writes all the time and compares with the books it keeps.
#
#   1 the table   2 partition_by_*, back: cancel   3 start, back: pause   4 finalize, back: undo   5 complete
package FrameworkTest;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use FindBin;
use IPC::Run;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(test_framework);

my $EXAMPLES = "$FindBin::RealBin/../../examples";

# Who owns the database, migrates and works: no superuser.
my $ROLE = 'app';

my $DEADLINE_S = $PostgreSQL::Test::Utils::timeout_default;

# The framework at hand:
#   name      of the example and of the database
#   command   sub (from, to): what brings the database from one step to the other
#   versions  the table in which the framework notes how far it is
#   app       the application's command
my $framework;

# ---------------------------------------------------------------------------------------------
# The framework's command

sub db
{
	my ($sql) = @_;
	return sql($sql, $framework->{name});
}

# A program in the example's folder: { run, in, out, err }
sub start_program
{
	my (@command) = @_;
	my $program = { in => '', out => '', err => '' };
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = $framework->{name};
	local $ENV{PGUSER} = $ROLE;
	# as Rails does; a session that sends NOTICEs would notice by them that its client is gone
	local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
	local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
	$program->{run} = IPC::Run::start(
		\@command, '<', \$program->{in}, '>', \$program->{out}, '2>', \$program->{err},
		init => sub { chdir "$EXAMPLES/$framework->{name}" or die "$!\n" });
	return $program;
}

sub in_time
{
	my ($program, $wait) = @_;
	local $SIG{ALRM} = sub { die "no end within $DEADLINE_S s\n$program->{out}\n$program->{err}\n" };
	alarm $DEADLINE_S;
	eval { $wait->(); alarm 0; 1 } or do { alarm 0; $program->{run}->kill_kill; die $@ };
	return;
}

# Its exit code, 128 + signal where it was killed.
sub end_program
{
	my ($program) = @_;
	in_time($program, sub { $program->{run}->finish });
	my $status = ($program->{run}->full_results)[0];
	return $status & 127 ? 128 + ($status & 127) : $status >> 8;
}

sub start_step
{
	my ($from, $to) = @_;
	return start_program($framework->{command}->($from, $to));
}

sub step_ok
{
	my ($program, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $exit = end_program($program);
	return is($exit, 0, $name) || die "$program->{out}\n$program->{err}\nno step without the one before\n";
}

# migrate(from, to, name): the framework's command, which must succeed, and the application goes on working
sub migrate
{
	my ($from, $to, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	step_ok(start_step($from, $to), "$from -> $to: $name");
	wait_for_work();
	return;
}

sub state
{
	return db("SELECT state FROM migrate_ext.migrations WHERE migration = 'visits'");
}

sub state_is
{
	my ($state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(state(), $state, $name);
}

# poll(program, sql, name): until the answer is true, the program running meanwhile
sub poll
{
	my ($program, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $deadline = time + $DEADLINE_S;
	while (time < $deadline)
	{
		return pass($name) if db($sql) eq 't';
		last if $program && !still_running($program->{run});
		usleep(100_000);
	}
	fail($name);
	die "gave up on $sql\n" . ($program ? "$program->{out}\n$program->{err}\n" : '');
}

# ---------------------------------------------------------------------------------------------
# Interruptions

# While the version can't be noted, everything else is done. Then the command is killed and its session with it: what it
# had committed stays. The second time it must succeed.
sub interrupt_before_version
{
	my ($from, $to, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $locker = $node->background_psql($framework->{name});
	$locker->query_safe("BEGIN; LOCK TABLE $framework->{versions} IN SHARE ROW EXCLUSIVE MODE");
	my $program = start_step($from, $to);
	my $waiting = "FROM pg_locks WHERE relation = '$framework->{versions}'::regclass AND NOT granted";
	poll($program, "SELECT count(*) = 1 $waiting", "$from -> $to: all done but the version");
	$program->{run}->signal('KILL');
	is(end_program($program), 128 + 9, '... killed');
	db("SELECT pg_terminate_backend(pid) $waiting");
	poll(undef, "SELECT count(*) = 0 $waiting", '... and its session is gone');
	$locker->query_safe('ROLLBACK');
	$locker->quit;
	migrate($from, $to, "the second time, $name");
	return;
}

# The procedure waits for a reader's lock while its client is killed. Its request goes with the client: the second
# command is not refused because of it, waits in its turn, and succeeds.
sub interrupt_wait
{
	my ($from, $to, $goal, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $requested = "goal = '$goal' AND state <> '$goal'";
	my $call = $goal eq 'live' ? 'undo' : 'finalize';
	my $reader = $node->background_psql($framework->{name});
	$reader->query_safe('BEGIN; LOCK TABLE visits IN ACCESS SHARE MODE');
	my $active = "EXISTS (SELECT FROM pg_stat_activity WHERE query ~ '^CALL migrate_ext.$call' AND state = 'active')";
	my $waits = "SELECT $requested AND $active FROM migrate_ext.migrations WHERE migration = 'visits'";
	my $program = start_step($from, $to);
	poll($program, $waits, "$from -> $to: waits");
	$program->{run}->signal('KILL');
	is(end_program($program), 128 + 9, '... killed');
	poll(undef, "SELECT NOT $active", '... and its session notices');
	$program = start_step($from, $to);
	poll($program, $waits, '... waits a second time');
	$reader->query_safe('COMMIT');
	$reader->quit;
	step_ok($program, "... $name");
	wait_for_work();
	return;
}

# ---------------------------------------------------------------------------------------------
# The application

my $app;

sub start_app
{
	$app = start_program(@{ $framework->{app} });
	return ok(app_says(qr/^at work\n/), 'the application is at work');
}

# Until it has said that.
sub app_says
{
	my ($like) = @_;
	in_time($app, sub { $app->{run}->pump until $app->{out} =~ $like || !$app->{run}->pumpable });
	return 1 if $app->{out} =~ $like;
	diag("the application has ended: $app->{out}\n$app->{err}");
	return 0;
}

# A few rows more than when we came: the sequence follows the table.
sub wait_for_work
{
	my $sequence = db("SELECT pg_get_serial_sequence('visits', 'id')");
	my $last = db("SELECT last_value FROM $sequence");
	my $deadline = time + $DEADLINE_S;
	while (time < $deadline && still_running($app->{run}))
	{
		return if db("SELECT last_value > $last + 20 FROM $sequence") eq 't';
		usleep(100_000);
	}
	die "the application does nothing\n$app->{out}\n$app->{err}\n";
}

# The application compares these tables with its books.
sub compare_ok
{
	my (@tables) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$app->{out} = '';
	$app->{in} .= "@tables\n";
	my $said = join ', ', @tables;
	return ok(app_says(qr/^as in the books: $said\n/), "as in the application's books: $said")
	  || die "no step without the one before\n";
}

# Whether it notices a row that somebody else has changed.
sub app_notices
{
	start_app();
	db("UPDATE visits SET path = '/elsewhere' WHERE id = (SELECT max(id) / 2 FROM visits)");
	$app->{in} .= "visits\n";
	isnt(end_program($app), 0, 'the application notices a row that somebody else has changed');
	like($app->{err}, qr/elsewhere/, '... and names it');
	return;
}

sub stop_app
{
	$app->{out} = '';
	is(end_program($app), 0, 'no error in the application, and no row lost') || diag($app->{err});
	like($app->{out}, qr/^[1-9]\d{2,} operations, 0 repeated, [1-9]\d* prepared statements$/m,
		'... in many operations, none of them repeated, some prepared');
	note($app->{out});
	return;
}

# ---------------------------------------------------------------------------------------------
# Up and down

sub test_framework
{
	$framework = {@_};
	my $name = $framework->{name};

	$node = new_node('main');
	sql("CREATE ROLE $ROLE LOGIN");
	sql("CREATE DATABASE $name OWNER $ROLE");
	# which takes a superuser; a migration that does so again gets a NOTICE
	db('CREATE EXTENSION migrate_ext');
	step_ok(start_step(0, 1), '0 -> 1: makes the table');
	# a column that is gone leaves its place behind
	db('ALTER TABLE visits DROP COLUMN referrer, ADD COLUMN referrer text');
	app_notices();
	start_app();

	interrupt_before_version(1, 2, 'makes the partitioned table');
	state_is('created', 'nothing is copied yet');
	interrupt_before_version(2, 1, 'cancels');
	state_is('cancelled', 'the migration is cancelled');
	migrate(1, 2, 'makes the partitioned table anew');

	interrupt_before_version(2, 3, 'starts');
	migrate(3, 2, 'pauses');
	migrate(2, 3, 'resumes');

	interrupt_wait(3, 4, 'swapped', 'swaps');
	is(db("SELECT relkind FROM pg_class WHERE oid = 'visits'::regclass"), 'p', 'visits is partitioned');
	compare_ok('visits', 'visits_orig');
	interrupt_wait(4, 3, 'live', 'swaps back');
	is(db("SELECT relkind FROM pg_class WHERE oid = 'visits'::regclass"), 'r', 'visits is one table');
	compare_ok('visits', 'visits_new');
	interrupt_before_version(3, 4, 'finds that it has swapped');
	interrupt_before_version(4, 3, 'finds that it has swapped back');

	migrate(3, 4, 'swaps again');
	migrate(4, 1, 'goes all the way down');
	state_is('cancelled', 'the migration is cancelled');
	compare_ok('visits');
	migrate(1, 4, 'goes up in one go');
	compare_ok('visits', 'visits_orig');

	interrupt_before_version(4, 5, 'finds that it is completed');
	state_is('completed', 'the migration is completed');
	is(db("SELECT to_regclass('visits_orig') IS NULL AND to_regclass('visits_new') IS NULL"), 't', 'one table is left');
	isnt(end_program(start_step(5, 4)), 0, '5 -> 4: there is no way back');
	compare_ok('visits');
	stop_app();
	$node->stop;
	return;
}

# A test that dies must not leave its application behind.
END
{
	my $exit_code = $?;
	eval { $app->{run}->kill_kill } if $app && still_running($app->{run});
	$? = $exit_code;
}

1;
