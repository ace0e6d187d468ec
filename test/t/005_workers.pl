# Workers: what they are called, how they share the work, when they begin and when they are gone; what a
# pause, a kill, a full house, a dropped extension, table or database and a standby do to them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# A pause may take so long to be obeyed, on a machine that has other things to do as well.
my $PAUSE_S = 1.5;

# What a row of a slow migration takes: two helpers have six seconds to do with 4000, so that a test that has to wait for
# processors comes to what it does meanwhile. It makes the rest quick itself.
my $SLOW_MS = 3;

# Four rows a block, so that there are batches to share.
sub make_table
{
	my ($table, $rows) = @_;
	sql(<<~SQL);
		CREATE TABLE $table (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL, pad text NOT NULL);
		ALTER TABLE $table ALTER pad SET STORAGE PLAIN;
		INSERT INTO $table SELECT g, g % 7, g, repeat('x', 1900) FROM generate_series(1, $rows) AS g;
		CREATE INDEX ON $table (v);
		SQL
	return;
}

sub make_migration
{
	my ($table, $rows) = @_;
	make_table($table, $rows);
	sql("SELECT migrate_ext.partition_by_hash('$table', 'k', 3)");
	return;
}

# One whose rows take as long to convert as the table "pace" says.
sub make_slow_migration
{
	my ($table, $rows) = @_;
	make_table($table, $rows);
	sql(<<~SQL);
		CREATE TABLE ${table}_parts (id int NOT NULL, k int NOT NULL, v int NOT NULL, pad text NOT NULL) PARTITION BY HASH (k);
		CREATE TABLE ${table}_parts_0 PARTITION OF ${table}_parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
		CREATE TABLE ${table}_parts_1 PARTITION OF ${table}_parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
		SELECT migrate_ext.create_migration('$table', '${table}_parts',
			options => '{"columns": {"v": "public.slowly(s.v)"}, "reverse_columns": {"v": "s.v"}}');
		SQL
	return;
}

sub pace
{
	my ($ms) = @_;
	sql("UPDATE pace SET ms = $ms");
	return;
}

sub workers_of
{
	my ($migration, $type) = @_;
	return "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'migrate_ext $migration' AND backend_type LIKE 'migrate_ext $type'";
}

sub no_workers_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%'", '0'), $name);
}

sub live_and_equal_ok
{
	my ($table, $target) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_live($node, $table);
	return is(rows_that_differ($node, $table, $target // "${table}_new"), '0', "$table: live, and both tables are equal");
}

# The source as if there had never been a migration.
sub plain_ok
{
	my ($table, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = '$table'::regclass"), '0', "$name: no trigger is left");
	is(errors("INSERT INTO $table VALUES (-1, 1, 1, 'x'); UPDATE $table SET k = k + 1 WHERE id = -1; DELETE FROM $table WHERE id = -1;"),
		'', "$name: the table can be written");
	return;
}

# ---------------------------------------------------------------------------------------------
# At work

sub names_and_sharing
{
	make_migration('shared', 4000);
	sql("SELECT migrate_ext.configure('shared', 'workers', '3')");
	my $point = hold_point($node, 'copy_before_commit');
	sql("SELECT migrate_ext.start('shared')");
	wait_point($point, 3) or die 'nobody copies';

	is( sql("SELECT string_agg(backend_type || ', ' || application_name, '; ' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%'"),
		join('; ', ('migrate_ext helper, migrate_ext shared') x 3, 'migrate_ext leader, migrate_ext shared'),
		'a leader and three helpers, by their names');
	like(sql("SELECT string_agg(query, '|') FROM pg_stat_activity WHERE backend_type = 'migrate_ext helper'"),
		qr/^(copying blocks \d+ to \d+ of \d+\|?){3}$/, 'each tells what it is at');
	is(sql("SELECT query FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader'"), 'copying, by 3 helpers', 'the leader does, too');
	is( sql("SELECT count(DISTINCT b.pid), count(DISTINCT a.pid) FROM migrate_ext.batches b LEFT JOIN pg_stat_activity a
			ON a.pid = b.pid AND a.backend_type = 'migrate_ext helper' WHERE migration = 'shared' AND b.state = 'running'"),
		'3|3', 'three processes are at three batches of one table');
	is(sql("SELECT workers, waiting_for IS NULL FROM migrate_ext.progress WHERE migration = 'shared'"), '4|t', 'progress tells how many');

	# one of them dies: its range is another's at once, while the rest stand where they stood
	my ($dead, $range) = split /\|/, sql("SELECT pid, batch FROM migrate_ext.batches WHERE migration = 'shared' AND state = 'running' ORDER BY batch LIMIT 1");
	my $began = time;
	sql("SELECT pg_terminate_backend($dead)");
	ok(poll_query($node, "SELECT state = 'running' AND pid <> $dead FROM migrate_ext.batches WHERE migration = 'shared' AND batch = $range"), 'a range of the dead is taken over');
	cmp_ok(lasted($began), '<', $PAUSE_S, 'within a second');
	wait_point($point, 3);

	# all of them die in the middle of it
	my @before = split /\n/, sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%' ORDER BY 1");
	sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%'");
	ok(poll_query($node, 'SELECT count(*) FROM pg_stat_activity WHERE pid IN (' . join(', ', @before) . ')', '0'), 'they are terminated');
	release_point($point);
	live_and_equal_ok('shared');
	cmp_ok(sql("SELECT max(attempts) FROM migrate_ext.batch"), '>', 1, 'batches of the dead were taken over');
	is(sql("SELECT sum(rows) FROM migrate_ext.batches WHERE migration = 'shared' AND first_block IS NOT NULL"), '4000', 'each row was copied once');

	# one helper, then the leader, while it goes on
	pace($SLOW_MS);
	make_slow_migration('hunted', 4000);
	sql("SELECT migrate_ext.start('hunted')");
	terminate_workers($node, 'hunted', $_, 1) for 'helper', 'leader', 'helper', 'leader';
	is(migration_state($node, 'hunted'), 'copying', 'killed while copying');
	pace(0);
	live_and_equal_ok('hunted', 'hunted_parts');
	is(sql("SELECT sum(rows) FROM migrate_ext.batches WHERE migration = 'hunted' AND first_block IS NOT NULL"), '4000', 'each row was copied once');
	is(sql("SELECT migration FROM migrate_ext.migrations WHERE last_error IS NOT NULL"), '', 'and nobody calls it an error');

	# and whoever is idle
	my $ended = join ', ', split /\n/, sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%' AND pg_terminate_backend(pid)");
	ok(poll_query($node, workers_of('shared', 'leader') . " AND pid NOT IN ($ended)", '1'), 'an idle leader comes back');
	sql("CALL migrate_ext.cancel('$_')") for qw(shared hunted);
	no_workers_ok('no work, no workers');
	return;
}

# Nice values of the migration's processes of this type as the system has them: "own group's"; no group's where it has none.
sub nice_of
{
	my ($migration, $type) = @_;
	my %nice;
	for my $pid (split /\n/, sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'migrate_ext $migration' AND backend_type = 'migrate_ext $type'"))
	{
		my $stat = slurp("/proc/$pid/stat") // next;
		my $own = (split ' ', $stat =~ s/.*\) //r)[16];
		my ($group) = (slurp("/proc/$pid/autogroup") // '') =~ /nice (-?\d+)/;
		$nice{ join ' ', $own, $group // $own } = 1;
	}
	return join ', ', sort keys %nice;
}

sub slurp
{
	my ($path) = @_;
	open my $in, '<', $path or return;
	local $/;
	return scalar <$in>;
}

# Waits until they are such.
sub nice_ok
{
	my ($migration, $type, $wanted, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $seen = '';
	for (1 .. 600)
	{
		$seen = nice_of($migration, $type);
		last if $seen eq $wanted;
		usleep(100_000);
	}
	return is($seen, $wanted, $name);
}

# Where processors are busy helpers let others go first; the leader, whom writers wait for, does not.
sub priority
{
	my $own = getpriority(0, $node->{_pid});
	my ($ten, $nineteen) = map { $own + $_ > 19 ? 19 : $own + $_ } 10, 19;
	pace($SLOW_MS);
	make_slow_migration('polite', 8000);
	sql("SELECT migrate_ext.start('polite')");
	nice_ok('polite', 'helper', "$ten $ten", 'helpers give way');
	nice_ok('polite', 'leader', "$own $own", 'the leader does not');
	sql("SELECT migrate_ext.configure('polite', 'worker_nice', '19')");
	nice_ok('polite', 'helper', "$nineteen $nineteen", 'more so while they run');
	sql("SELECT migrate_ext.configure('polite', 'worker_nice', '0')");
	nice_ok('polite', 'helper', "$own $own", 'and not at all: others take their place');
	is(migration_state($node, 'polite'), 'copying', 'all that while copying');
	pace(0);
	live_and_equal_ok('polite', 'polite_parts');
	is(sql("SELECT sum(rows) FROM migrate_ext.batches WHERE migration = 'polite' AND first_block IS NOT NULL"), '8000', 'each row was copied once');
	sql("CALL migrate_ext.cancel('polite')");
	no_workers_ok('no work, no workers');
	return;
}

sub pause_and_cancel
{
	pace($SLOW_MS);
	make_slow_migration('slow', 8000);
	sql("SELECT migrate_ext.start('slow')");
	# a process's first batch may be any size
	poll_query($node, "SELECT count(*) > 4 AND count(DISTINCT pid) = 2 FROM migrate_ext.batches WHERE migration = 'slow' AND state = 'done'");
	my $began = time;
	sql("SELECT migrate_ext.pause('slow', 'lunch')");
	ok(poll_query($node, "SELECT count(*) FROM migrate_ext.batches WHERE migration = 'slow' AND state = 'running'", '0'), 'a pause while copying');
	cmp_ok(lasted($began), '<', $PAUSE_S, 'takes effect within a second');
	ok(poll_query($node, workers_of('slow', 'helper'), '0'), 'helpers go');
	my $done = sql("SELECT rows_done FROM migrate_ext.progress WHERE migration = 'slow'");
	cmp_ok($done, '<', 8000, 'before the end');
	is(sql("SELECT waiting_for FROM migrate_ext.progress WHERE migration = 'slow'"), 'resume: it is paused, lunch', 'progress says why');
	sql("UPDATE slow SET v = v + 1 WHERE id % 100 = 0");
	is(sql("SELECT rows_done FROM migrate_ext.progress WHERE migration = 'slow'"), $done, 'nobody copies');
	pace(0);
	sql("SELECT migrate_ext.resume('slow')");
	live_and_equal_ok('slow', 'slow_parts');
	sql("CALL migrate_ext.cancel('slow')");

	# cancel, while copying and in the middle of an index build
	pace($SLOW_MS);
	make_slow_migration('slow2', 4000);
	sql("SELECT migrate_ext.start('slow2')");
	poll_query($node, "SELECT count(*) > 2 FROM migrate_ext.batches WHERE migration = 'slow2' AND state = 'done'");
	sql("CALL migrate_ext.cancel('slow2')");
	is(migration_state($node, 'slow2'), 'cancelled', 'cancelled while copying');
	is(sql("SELECT count(*) > 0 FROM slow2_parts"), 't', 'the given target stays');
	plain_ok('slow2', 'cancelled');
	pace(0);

	make_migration('indexed', 1000);
	my $point = hold_point($node, 'index_before_commit');
	sql("SELECT migrate_ext.start('indexed')");
	wait_point($point, 2);
	my $call = begin_call($node, "CALL migrate_ext.cancel('indexed')");
	poll_query($node, "SELECT goal FROM migrate_ext.migrations WHERE migration = 'indexed'", 'cancelled');
	release_point($point);
	is(end_call($call), '', 'the call ends');
	is(migration_state($node, 'indexed'), 'cancelled', 'cancelled while indexing');
	is(sql("SELECT to_regclass('indexed_new') IS NULL"), 't', 'a target of ours goes');
	plain_ok('indexed', 'cancelled while indexing');
	no_workers_ok('and so do the workers');
	return;
}

# ---------------------------------------------------------------------------------------------
# Transactions of the caller

sub callers_transactions
{
	my $traces = "SELECT count(*) FROM migrate_ext.event e JOIN migrate_ext.migration m ON m.id = e.migration WHERE m.name = 'tx'";
	my $waiting = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader' AND wait_event = 'transactionid'";
	make_table('tx', 100);

	my $session = open_session($node);
	$session->query_safe('BEGIN');
	$session->query_safe("SELECT migrate_ext.partition_by_hash('tx', 'k', 3)");
	$session->query_safe("SELECT migrate_ext.start('tx')");
	ok(poll_query($node, $waiting, '1'), 'a worker waits for the transaction of the call');
	is(sql("SELECT query FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader'"),
		'waiting for the calling transaction to end', 'and says so');
	$session->query_safe('ROLLBACK');
	no_workers_ok('rolled back: it goes');
	is(sql("$traces") . sql("SELECT to_regclass('tx_new') IS NULL"), '0t', 'and nothing is left');

	sql("SELECT migrate_ext.partition_by_hash('tx', 'k', 3)");
	my $before = sql($traces);
	$session->query_safe('BEGIN; SAVEPOINT s');
	$session->query_safe("SELECT migrate_ext.start('tx')");
	# or what goes below has not come yet, and is there when it is asked for again
	ok(poll_query($node, $waiting, '1'), 'a worker waits for the whole transaction');
	$session->query_safe('ROLLBACK TO s; COMMIT');
	no_workers_ok('rolled back to a savepoint: it goes');
	is(sql($traces) . migration_state($node, 'tx'), "${before}created", 'and nothing is left');

	$session->query_safe('BEGIN');
	$session->query_safe("SELECT migrate_ext.start('tx')");
	ok(poll_query($node, $waiting, '1'), 'a worker waits again');
	is(migration_state($node, 'tx'), 'created', 'nothing begins before the commit');

	# who waits can be killed like others
	my $killed = sql("SELECT CASE WHEN pg_terminate_backend(pid) THEN pid END FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader'");
	ok(poll_query($node, "$waiting AND pid <> $killed", '1'), 'a waiting worker comes back');
	$session->query_safe('COMMIT');
	live_and_equal_ok('tx');
	sql("CALL migrate_ext.cancel('tx')");

	like(errors("BEGIN; SELECT migrate_ext.partition_by_hash('tx', 'k', 3); SELECT migrate_ext.start('tx'); PREPARE TRANSACTION 'p';"),
		qr/0A000: cannot PREPARE a transaction that has executed .*NOTIFY/, 'a transaction with a call in it can not be prepared');
	no_workers_ok('so nothing is done');
	is(sql("SELECT to_regclass('tx_new') IS NULL"), 't', 'and nothing is left');
	$session->quit;
	return;
}

# ---------------------------------------------------------------------------------------------
# Dropped under them

sub dropped_tables
{
	# the target, at work and at rest
	make_migration("lost_$_", 400) for qw(created logging live swapped);
	sql("SELECT migrate_ext.install_sync('lost_logging')");
	sql("SELECT migrate_ext.start('lost_$_')") for qw(live swapped);
	wait_live($node, 'lost_live', 'lost_swapped');
	sql("CALL migrate_ext.wait_for('lost_logging', 'logging')");
	sql("CALL migrate_ext.finalize('lost_swapped')");
	like(errors("DROP TABLE lost_$_" . '_new'), qr/2BP01/, "$_: DROP TABLE of the target is refused") for qw(logging live);
	like(errors('DROP TABLE lost_swapped'), qr/2BP01/, 'swapped: DROP TABLE of the table is refused');

	sql("DROP TABLE lost_${_}_new CASCADE") for qw(created logging live);
	for my $state (qw(created logging live))
	{
		plain_ok("lost_$state", "$state, target dropped");
		sql("SELECT migrate_ext.start('lost_$state')") if $state ne 'live';
		ok(poll_query($node, "SELECT coalesce(pause_reason, last_error) ~ 'dropped' FROM migrate_ext.migrations WHERE migration = 'lost_$state'"),
			"$state, target dropped: the migration says so");
		sql("CALL migrate_ext.cancel('lost_$state')");
		is(migration_state($node, "lost_$state"), 'cancelled', "$state, target dropped: it can be cancelled");
	}

	# the original: the application's table goes on
	sql('DROP TABLE lost_swapped_orig CASCADE');
	unlike(errors("INSERT INTO lost_swapped VALUES (-1, 1, 1, 'x'); UPDATE lost_swapped SET k = 5 WHERE id = -1; TRUNCATE lost_swapped;"),
		qr/ERROR/, 'swapped, original dropped: the table can be written');
	ok(poll_query($node, "SELECT coalesce(pause_reason, last_error) ~ 'dropped' FROM migrate_ext.migrations WHERE migration = 'lost_swapped'"),
		'swapped, original dropped: the migration says so');
	sql("CALL migrate_ext.complete('lost_swapped')");
	is(migration_state($node, 'lost_swapped'), 'completed', 'swapped, original dropped: it can be completed');
	plain_ok('lost_swapped', 'swapped, original dropped');

	# the source, before a swap
	make_migration('lost_source', 400);
	sql("SELECT migrate_ext.start('lost_source')");
	wait_live($node, 'lost_source');
	sql('DROP TABLE lost_source CASCADE');
	ok(poll_query($node, "SELECT coalesce(pause_reason, last_error) ~ 'dropped' FROM migrate_ext.migrations WHERE migration = 'lost_source'"),
		'source dropped: the migration says so');
	sql("CALL migrate_ext.cancel('lost_source')");
	is(sql("SELECT to_regclass('lost_source_new') IS NULL"), 't', 'source dropped: the target goes with the migration');

	# a type, with which go the columns that have it: of the source, of the target and of the log
	for my $state ('logging', 'live')
	{
		sql(<<~SQL);
			CREATE TYPE kind_$state AS ENUM ('a', 'b');
			CREATE TABLE lost_type_$state (id int, kind kind_$state, k int NOT NULL, PRIMARY KEY (id, kind));
			INSERT INTO lost_type_$state SELECT g, 'a', g FROM generate_series(1, 10) AS g;
			SELECT migrate_ext.partition_by_hash('lost_type_$state', 'k', 2);
			SELECT migrate_ext.install_sync('lost_type_$state');
			CALL migrate_ext.wait_for('lost_type_$state', 'logging', '60 s');
			SQL
		sql("SELECT migrate_ext.start('lost_type_live'); CALL migrate_ext.wait_for('lost_type_live', 'live', '60 s');") if $state eq 'live';
		unlike(errors("DROP TYPE kind_$state CASCADE; INSERT INTO lost_type_$state VALUES (20, 20); UPDATE lost_type_$state SET k = 1; DELETE FROM lost_type_$state WHERE id = 4;"),
			qr/ERROR|connection/, "$state, type of a key column dropped: the table can be written");
		sql("CALL migrate_ext.cancel('lost_type_$state')");
	}
	no_workers_ok('nor is a worker left');
	return;
}

# A leader that finds nothing to do, since what called it was rolled back, and has not gone yet.
sub idle_leader
{
	my ($migration) = @_;
	my $point = hold_point($node, 'step_created');
	sql("BEGIN; SELECT migrate_ext.start('$migration'); ROLLBACK");
	wait_point($point);
	return $point;
}

# A leader that is about to go is given more to do: before it has said so, or by a transaction that commits only after that.
sub woken_late
{
	my $session = open_session($node);
	make_migration($_, 400) for qw(late later);
	my $point = idle_leader('late');
	sql("SELECT migrate_ext.start('late')");
	release_point($point);
	# not by wait_for, which would call a leader
	ok(poll_query($node, "SELECT state FROM migrate_ext.migrations WHERE migration = 'late'", 'live'), 'a leader that is about to go stays');

	$point = idle_leader('later');
	$session->query_safe("BEGIN; SELECT migrate_ext.start('later')");
	release_point($point);
	ok(poll_query($node, workers_of('later', 'leader'), '0'), 'a leader that has no more to do goes');
	$session->query_safe('COMMIT');
	$session->quit;
	ok(poll_query($node, "SELECT state FROM migrate_ext.migrations WHERE migration = 'later'", 'live'), 'and another one comes at the commit');
	live_and_equal_ok($_) for qw(late later);
	sql("CALL migrate_ext.cancel('$_')") for qw(late later);
	return;
}

# Between two transactions of a step, or while an attempt at locks that fails waits: the next one finds no migration.
sub dropped_between
{
	my ($point, $call) = @_;
	my $keeper = $node->background_psql('postgres');
	sql('CREATE EXTENSION IF NOT EXISTS migrate_ext');
	sql('DROP TABLE IF EXISTS dropped, dropped_new');
	make_migration('dropped', 400);
	my $hold = $call eq 'start' ? hold_point($node, $point) : undef;
	sql("SELECT migrate_ext.start('dropped')");
	my ($reader, $finalize);
	if ($call eq 'finalize')
	{
		wait_live($node, 'dropped');
		$hold = hold_point($node, $point);
		$reader = $node->background_psql('postgres');
		$reader->query_safe('BEGIN; SELECT count(*) FROM dropped');
		$finalize = begin_call($node, "CALL migrate_ext.finalize('dropped', '1 h')");
	}
	wait_point($hold);
	my $drop = begin_call($node, 'SET client_min_messages = warning; DROP EXTENSION migrate_ext CASCADE');
	# it is through, or waits for the attempt, and then for the reader
	poll_query($node, "SELECT NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'migrate_ext')
		OR EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'DROP EXTENSION%' AND wait_event_type = 'Lock')");
	drop_point($hold);
	if ($reader)
	{
		poll_query($node, "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.query LIKE 'DROP EXTENSION%' AND l.relation = 'dropped'::regclass AND NOT l.granted)");
		$reader->query_safe('COMMIT');
		$reader->quit;
		like(end_call($finalize), qr/does not exist/, "dropped at $point: finalize says so");
	}
	is(end_call($drop), '', "dropped at $point: it is");
	no_workers_ok("dropped at $point: and the workers go");
	is($keeper->query_safe('SELECT 1'), '1', "dropped at $point: no server process crashed");
	$keeper->quit;
	return;
}

sub dropped_extension
{
	make_migration("ext_$_", 400) for qw(logging live swapped);
	sql("SELECT migrate_ext.install_sync('ext_logging')");
	sql("SELECT migrate_ext.start('ext_$_')") for qw(live swapped);
	wait_live($node, 'ext_live', 'ext_swapped');
	sql("CALL migrate_ext.wait_for('ext_logging', 'logging')");
	sql("CALL migrate_ext.finalize('ext_swapped')");
	pace($SLOW_MS);
	make_slow_migration('ext_copying', 8000);
	sql("SELECT migrate_ext.start('ext_copying')");
	poll_query($node, "SELECT count(*) > 2 FROM migrate_ext.batches WHERE migration = 'ext_copying' AND state = 'done'");

	my $offset = -s $node->logfile;
	like(errors('DROP EXTENSION migrate_ext'), qr/2BP01.*trigger/s, 'DROP EXTENSION is refused while a table depends on it');
	is(migration_state($node, 'ext_copying'), 'copying', 'work goes on');
	unlike(errors('DROP EXTENSION migrate_ext CASCADE'), qr/ERROR/, 'with CASCADE it goes, at work as it is');
	no_workers_ok('and the workers go');
	plain_ok("ext_$_", "$_, extension dropped") for qw(logging copying live swapped);
	is(counts($node, 'ext_swapped', 'ext_swapped_orig'), '400|400', 'both tables of a swapped one are there');
	is(sql("SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal"), '0', 'no trigger is left on any table');
	is(sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'migrate_ext'::regnamespace"), '0', 'nor is anything in its schema');
	my @errors = slurp_file($node->logfile, $offset) =~ /migrate_ext (?:leader|helper) \S+ [^\n]*(?:ERROR|PANIC)[^\n]*/g;
	is(join("\n", @errors), '', 'no worker fails of it');

	dropped_between($_->[0], $_->[1]) for [ 'step_logging', 'start' ], [ 'step_catching_up', 'start' ], [ 'step_live', 'start' ],
	  [ 'swap_before_locks', 'finalize' ], [ 'attempt_failed', 'finalize' ];

	sql('CREATE ROLE squatter; ALTER SCHEMA migrate_ext OWNER TO squatter; DROP TABLE ext_live_new;');
	like(errors('CREATE EXTENSION migrate_ext'), qr/42501/, "a schema of somebody else's is not used");
	sql('DROP SCHEMA migrate_ext; CREATE EXTENSION migrate_ext;');
	sql("SELECT migrate_ext.partition_by_hash('ext_live', 'k', 3); SELECT migrate_ext.start('ext_live');");
	live_and_equal_ok('ext_live');
	sql("CALL migrate_ext.cancel('ext_live')");
	return;
}

sub main_node
{
	$node = new_node('main');
	sql(<<~'SQL');
		CREATE TABLE pace (ms int);
		INSERT INTO pace VALUES (0);
		CREATE FUNCTION slowly(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
		DECLARE wait int := (SELECT ms FROM public.pace);
		BEGIN
			IF wait > 0 THEN
				PERFORM pg_sleep(wait / 1000.0);
			END IF;
			RETURN x;
		END $$;
		SQL
	names_and_sharing();
	priority();
	pause_and_cancel();
	callers_transactions();
	woken_late();
	dropped_tables();
	dropped_extension();
	$node->stop;
	return;
}

# ---------------------------------------------------------------------------------------------
# A full house

# Two slots, of which the launcher of logical replication takes one.
sub slots_node
{
	$node = new_node('slots', conf => "max_worker_processes = 2\n");
	make_migration("seat_$_", 200) for 1 .. 3;
	is(errors("SELECT migrate_ext.start('seat_1')"), '', 'the first migration gets a worker');
	live_and_equal_ok('seat_1');
	for my $n (2, 3)
	{
		like(errors("SELECT migrate_ext.start('seat_$n')"),
			qr/WARNING:  53000: no background worker slot is free for migration "seat_$n".*HINT:.*max_worker_processes \(now 2\)/s,
			"no slot for number $n: a WARNING with a hint");
	}
	is(sql("SELECT waiting_for FROM migrate_ext.progress WHERE migration = 'seat_2'"), 'a worker: no process is at work on it', 'progress says so');
	is(sql("SELECT next_step FROM migrate_ext.progress WHERE migration = 'seat_2'"), "SELECT migrate_ext.resume('seat_2') or CALL migrate_ext.run('seat_2')", 'and what to do');
	is(migration_state($node, 'seat_2'), 'created', 'the request is kept');
	like(errors("SELECT migrate_ext.resume('seat_2')"), qr/WARNING:  53000/, 'resume tells it again');

	# in a session instead
	sql("CALL migrate_ext.run('seat_3')");
	is(rows_that_differ($node, 'seat_3', 'seat_3_new'), '0', 'run() does without a worker');
	sql("CALL migrate_ext.finalize('seat_3', '60 s'); CALL migrate_ext.undo('seat_3', '60 s'); CALL migrate_ext.cancel('seat_3');");
	is(migration_state($node, 'seat_3'), 'cancelled', 'and so do finalize, undo and cancel');

	# wait_for() waits for the slot as well
	my $call = begin_call($node, "CALL migrate_ext.wait_for('seat_2', 'live', '60 s')");
	sql("CALL migrate_ext.cancel('seat_1')");
	is(end_call($call), '', 'wait_for() waits until there is one');
	live_and_equal_ok('seat_2');
	is(sql("SELECT workers, waiting_for IS NULL FROM migrate_ext.progress WHERE migration = 'seat_2'"), '1|t', 'by a worker, now that there is a slot');
	$node->stop;
	return;
}

# ---------------------------------------------------------------------------------------------
# Databases

sub workers_in
{
	my ($database) = @_;
	return "SELECT count(*) FROM pg_stat_activity WHERE datname = '$database' AND backend_type LIKE 'migrate_ext%'";
}

sub make_other_database
{
	my ($database, $tablespace) = @_;
	sql("CREATE DATABASE $database TABLESPACE $tablespace");
	sql(<<~SQL, $database);
		CREATE EXTENSION migrate_ext;
		CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL);
		INSERT INTO t SELECT g, g FROM generate_series(1, 100) AS g;
		SELECT migrate_ext.partition_by_hash('t', 'k', 2);
		SELECT migrate_ext.start('t');
		CALL migrate_ext.wait_for('t', 'live', '60 s');
		SQL
	return;
}

sub databases_node
{
	$node = new_node('databases', preload => 1, conf => "migrate_ext.databases = 'postgres, other, \"missing one\"'\nlog_min_messages = debug1\n");
	sql("SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE elsewhere LOCATION '';");
	make_other_database('other', 'pg_default');
	make_other_database('third', 'elsewhere');
	make_migration('here', 400);
	my $point = hold_point($node, 'copy_before_commit');
	sql("SELECT migrate_ext.start('here')");
	wait_point($point);

	restart_node($node, 'immediate');
	drop_point($point);
	live_and_equal_ok('here');
	ok(poll_query($node, workers_in('other') . q{ AND backend_type = 'migrate_ext leader'}, '1'), 'a leader is back in each database of the list');
	is(sql(workers_in('third')), '0', 'and in no other');
	is( sql("SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'migrate_ext launcher'"),
		'other postgres', 'where something is unfinished, there is a launcher');

	sql("CALL migrate_ext.cancel('t')", 'other');
	ok(poll_query($node, workers_in('other'), '0'), 'nothing unfinished: the launcher ends, too');
	is(errors('DROP DATABASE other'), '', 'so that the database can be dropped');

	# a database with a leader in it
	sql("SELECT migrate_ext.resume('t')", 'third');
	ok(poll_query($node, workers_in('third'), '1'), 'resume brings a leader back where there is no launcher');
	my $offset = -s $node->logfile;
	is(errors('DROP DATABASE third WITH (FORCE)'), '', 'DROP DATABASE WITH (FORCE) ends it');
	# one may come once, where the database takes longer to go than a worker to be started anew
	my $comes_back = qr/FATAL:  database \S+ does not exist/;
	$node->wait_for_log(qr/unregistering background worker "migrate_ext leader for t"|$comes_back.*$comes_back/s, $offset);
	unlike(slurp_file($node->logfile, $offset), qr/$comes_back.*$comes_back/s, 'and no worker comes back for it');
	$node->stop;
	return;
}

# ---------------------------------------------------------------------------------------------
# A standby

sub standby_node
{
	my $primary = new_node('primary', preload => 1);
	$node = $primary;
	make_migration('moved', 400);
	make_table('plain', 10);
	my $standby = make_standby($primary, 'standby');
	my $point = hold_point($primary, 'copy_before_commit');
	sql("SELECT migrate_ext.start('moved')");
	wait_point($point);
	$primary->wait_for_catchup($standby);

	$node = $standby;
	for my $call ("partition_by_hash('plain', 'k', 2)", "partition_by_list('plain', 'k')", "partition_by_range('plain', 'k', 10)",
		"create_migration('plain', 'moved_new')", map { "$_('moved')" } qw(install_sync start pause resume swap unswap forget))
	{
		like(errors("SELECT migrate_ext.$call"), qr/25006/, "standby: $call is refused");
	}
	like(errors("CALL migrate_ext.$_('moved')"), qr/25006/, "standby: $_ is refused") for qw(run verify finalize undo complete cancel);
	like(errors("SELECT migrate_ext.configure('moved', 'workers', '1')"), qr/25006/, 'standby: configure is refused');
	is(migration_state($standby, 'moved'), 'copying', 'standby: the views can be read');
	is(errors("TABLE migrate_ext.$_"), '', "standby: $_") for qw(progress batches failed_rows verifications verified_ranges swaps events);
	is(errors("SELECT * FROM migrate_ext.preview('plain', 'k', 2)"), '', 'standby: preview');
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%'"), '0', 'standby: no worker');

	$primary->stop('immediate');
	drop_point($point);
	$standby->promote;
	live_and_equal_ok('moved');
	sql("CALL migrate_ext.finalize('moved', '60 s')");
	is(migration_state($standby, 'moved'), 'swapped', 'promoted: goes on by itself, to the end');
	$standby->stop;
	return;
}

start_clock();
main_node();
slots_node();
databases_node();
standby_node();
done_testing;
