# Death at every debug point there is in the code, by SIGKILL (and with it a crash of the server) and by SIGTERM.
# Whoever stands there is gone; what he did is there once or not at all; the migration goes on by itself, as far as
# it was asked to, and a call that died with its session can be made again.  All the while writers write, and count
# what they write: in the end both tables have that, and nothing else.
#
# To each point comes a migration of its own.  They all stand at theirs before the first is killed, so that one crash
# serves all.  A point that nobody comes to here makes the test fail.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROWS = 100;

# ---------------------------------------------------------------------------------------------
# The points, and the lives in which somebody comes to them

# From the last to the first, as they are held: who has a point behind him needn't pass it.
my @POINTS = (
	[qw(enforce_before_commit enforce)],
	[qw(enforce_after_validate enforce)],
	[qw(enforce_after_add enforce)],
	[qw(enforce_after_count enforce)],
	[qw(rehearsal_swapped rehearse)],
	[qw(rehearsal_locked rehearse)],
	[qw(rehearsal_failed rehearse_blocked)],
	[qw(step_cancelled cancel)],
	[qw(cancel_locked cancel)],
	[qw(step_completed complete)],
	[qw(complete_locked complete)],
	[qw(swap_committed finalize undo)],
	[qw(swap_before_commit finalize undo)],
	[qw(swap_locked finalize undo)],
	[qw(attempt_failed finalize_blocked undo_blocked)],
	[qw(swap_before_locks finalize undo)],
	[qw(swap_gate_shut finalize_prepared)],
	[qw(verify_before_commit finalize undo)],
	[qw(verify_after_snapshot finalize undo)],
	[qw(fk_in_before_commit foreign_key)],
	[qw(fk_validated foreign_key)],
	[qw(fk_before_commit foreign_key)],
	[qw(mend_before_commit mend)],
	[qw(step_swapped swapped undo complete)],
	[qw(golive_before_commit start)],
	[qw(drain_before_commit start repair)],
	[qw(drain_after_snapshot start repair)],
	[qw(reconcile_before_commit adopt altered)],
	[qw(key_before_retry key_locked)],
	[qw(key_before_pass key key_finish)],
	[qw(step_live live finalize key_finish)],
	[qw(step_catching_up start key)],
	[qw(indexing_before_commit start)],
	[qw(index_before_commit start)],
	[qw(step_indexing start key)],
	[qw(restart_before_commit rewritten)],
	[qw(copy_before_commit start)],
	[qw(copy_after_snapshot start)],
	[qw(copy_before_snapshot start)],
	[qw(copy_after_claim start)],
	[qw(key_before_commit key)],
	[qw(key_before_update key)],
	[qw(key_after_claim key)],
	[qw(step_copying start key)],
	[qw(step_logging start key)],
	[qw(install_before_commit start)],
	[qw(step_created start key)],
	[qw(sync_before_write write)],
	[qw(report report)]);

# A life: "make", "bring" to the state from which it goes on and "disturb" are done before any point is held; "go"
# leads to the point and does not wait, "call" does.  By itself the migration gets to a state of "alone", in the end
# it is in state "ends".  %1$s is the table.
my %TABLE = (
	make => q{SELECT migrate_ext.partition_by_hash('%1$s', 'k', 3)},
	bring => '');
my %KEY = (
	make => q{SELECT migrate_ext.add_sharding_key('%1$s', 'project', 'int', 's.k + 1'); SELECT migrate_ext.backfill_key('%1$s', 'project')},
	bring => '');
my $START = q{SELECT migrate_ext.start('%1$s')};
my %LIFE = (
	start     => { %TABLE, go => $START, alone => 'live' },
	rewritten => { %TABLE, bring => 'logging', disturb => 'VACUUM FULL %1$s', go => $START, alone => 'live' },
	adopt     => {
		make => <<~'SQL', bring => '', go => $START, alone => 'live' },
			CREATE TABLE %1$s_new (LIKE %1$s, PRIMARY KEY (id, k)) PARTITION BY HASH (k);
			CREATE TABLE %1$s_p0 PARTITION OF %1$s_new FOR VALUES WITH (MODULUS 1, REMAINDER 0);
			INSERT INTO %1$s_new VALUES (1, 1, 5), (-1, 1, 1);
			SELECT migrate_ext.create_migration('%1$s', '%1$s_new')
			SQL
	live        => { %TABLE, bring => 'live',    alone => 'live' },
	write       => { %TABLE, bring => 'live',    alone => 'live', call => 'UPDATE %1$s SET v = v WHERE id = 1' },
	report      => { %TABLE, bring => 'live',    alone => 'live', call => q{SELECT migrate_ext.report('%1$s')} },
	swapped     => { %TABLE, bring => 'swapped', alone => 'swapped' },
	foreign_key => {
		make => q{ALTER TABLE %1$s ADD UNIQUE (id, k); SELECT migrate_ext.partition_by_hash('%1$s', 'k', 3)}, bring => 'live', alone => 'live',
		go => q{CREATE TABLE %1$s_to (id int PRIMARY KEY); INSERT INTO %1$s_to SELECT generate_series(0, 15);
			ALTER TABLE %1$s ADD CONSTRAINT to_other FOREIGN KEY (k) REFERENCES %1$s_to;
			CREATE TABLE %1$s_child (id int, k int, FOREIGN KEY (id, k) REFERENCES %1$s (id, k))}
	},
	repair => {
		%TABLE, bring => 'live', alone => 'live', disturb => 'UPDATE %1$s_new SET v = v + 1 WHERE id = 1',
		go => q{SELECT migrate_ext.repair('%1$s')}
	},
	altered => {
		%TABLE, bring => 'live', alone => 'live',
		go => q{BEGIN; ALTER TABLE %1$s ADD added int DEFAULT 1; SELECT migrate_ext.replace_sync('%1$s'); COMMIT}
	},
	mend => {
		%TABLE, bring => 'live', alone => 'live', go => q{SELECT migrate_ext.resume('%1$s')},
		disturb => q{BEGIN; ALTER TABLE %1$s DISABLE TRIGGER "!migrate_ext_sync"; ALTER TABLE %1$s ENABLE ALWAYS TRIGGER "!migrate_ext_sync"; COMMIT},
		until => q{SELECT paused FROM migrate_ext.migrations WHERE migration = '%1$s'}
	},
	finalize => { %TABLE, bring => 'live',    call => q{CALL migrate_ext.finalize('%1$s')}, alone => 'live|swapped', ends => 'swapped' },
	undo     => { %TABLE, bring => 'swapped', call => q{CALL migrate_ext.undo('%1$s')},     alone => 'live|swapped', ends => 'live' },
	complete => { %TABLE, bring => 'swapped', call => q{CALL migrate_ext.complete('%1$s')}, alone => 'swapped|completed', ends => 'completed' },
	cancel   => { %TABLE, bring => 'live',    call => q{CALL migrate_ext.cancel('%1$s')},   alone => 'cancelled' },
	rehearse => { %TABLE, bring => 'live',    call => q{CALL migrate_ext.rehearse('%1$s')}, alone => 'live' },
	key        => { %KEY, go => $START, alone => 'live' },
	key_finish => { %KEY, bring => 'live', call => q{CALL migrate_ext.finalize('%1$s')}, alone => 'live|completed', ends => 'completed' },
	enforce    => {
		make => q{ALTER TABLE %1$s ADD project int DEFAULT 1}, bring => '',
		call => q{CALL migrate_ext.enforce_key('%1$s', 'project')}
	});

# With somebody in the way, who is there until he is sent away.
$LIFE{finalize_prepared} = {
	%{ $LIFE{finalize} },
	disturb => q{BEGIN; UPDATE %1$s SET v = v WHERE id = 1; PREPARE TRANSACTION '%1$s'},
	settle  => q{COMMIT PREPARED '%1$s'}
};
$LIFE{"${_}_blocked"} = { %{ $LIFE{$_} }, holder => 'SELECT count(*) FROM %1$s' } for qw(finalize undo rehearse);
$LIFE{key_locked} = { %{ $LIFE{key} }, holder => 'SELECT FROM %1$s WHERE id = 1 FOR UPDATE' };

# Names as they stand in the code; of one that is completed by a state's name, one a state.
sub points_of_the_code
{
	my %found;
	for my $file (glob "$FindBin::RealBin/../../src/*.c")
	{
		my $code = slurp_file($file);
		my $uses = () = $code =~ /^\tif.*\n?\s*ME_DEBUG_POINT\(|\bME_DEBUG_POINT\(/mg;
		my @names = $code =~ /\bME_DEBUG_POINT\((?:psprintf\()?"(\w+(?:%s)?)"/g;
		is(scalar @names, $uses, "$file: each point has a name that can be read here") if $uses != @names;
		$found{$_} = 1 for @names;
	}
	my @states = qw(created logging copying indexing catching_up live swapped completed cancelled);
	return map { my $name = $_; $name =~ /%s/ ? map { sprintf $name, $_ } @states : $name } sort keys %found;
}

sub all_points_ok
{
	is(join(' ', sort map { $_->[0] } @POINTS), join(' ', sort +points_of_the_code()),
		'somebody comes to each point in the code: a new one wants a line in @POINTS');
	return;
}

# ---------------------------------------------------------------------------------------------
# Writers

# They count in the transaction that writes: the sum of the column v, and the number of rows.  What they find locked
# they pass over, as at many points it is for good, and what fails by a conflict with others (as it might without us).
sub make_writers
{
	sql(<<~'SQL');
		CREATE TABLE written (name text NOT NULL, v int NOT NULL, rows int NOT NULL);
		CREATE TABLE at_work (name text PRIMARY KEY);
		CREATE SEQUENCE fresh_id START 1000;

		CREATE PROCEDURE write_to(name text) LANGUAGE plpgsql AS $$
		DECLARE
			op record;
		BEGIN
			SELECT * INTO op FROM (VALUES
				('UPDATE %1$I SET v = v + 1 WHERE id = %2$s', 'count(*)', '0'),
				('UPDATE %1$I SET v = v + 1, k = (k + 5) %% 16 WHERE id BETWEEN %2$s AND %2$s + 1', 'count(*)', '0'),
				('UPDATE %1$I SET v = v + 1, id = nextval(''fresh_id'') WHERE id = %2$s', 'count(*)', '0'),
				('INSERT INTO %1$I (id, k, v) SELECT nextval(''fresh_id''), %2$s %% 16, 1 FROM generate_series(1, 2)', 'count(*)', 'count(*)'),
				('DELETE FROM %1$I WHERE id = %2$s', '-coalesce(sum(v), 0)', '-count(*)')) AS v (statement, v, rows)
			ORDER BY random() LIMIT 1;
			EXECUTE format('WITH done AS (%s RETURNING v) INSERT INTO written SELECT %L, %s, %s FROM done',
				format(op.statement, name, 11 + (random() * 80)::int), name, op.v, op.rows);
		EXCEPTION WHEN lock_not_available OR transaction_rollback THEN
		END $$;

		CREATE PROCEDURE keep_writing() LANGUAGE plpgsql AS $$
		DECLARE
			name text;
		BEGIN
			PERFORM set_config('lock_timeout', '5ms', false);
			LOOP
				FOR name IN SELECT a.name FROM at_work a ORDER BY random() LOOP
					CALL write_to(name);
					COMMIT;
				END LOOP;
				EXIT WHEN NOT EXISTS (SELECT FROM at_work);
				COMMIT;
				PERFORM pg_sleep(0.02);
			END LOOP;
		END $$;

		-- what a table has that it should not have, or lacks; against its other side as well, where there is one
		CREATE FUNCTION wrong_with(name text, equal boolean) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE
			other regclass := coalesce(to_regclass(name || '_orig'), to_regclass(name || '_new'));
			had text;
			has text;
			differ int;
		BEGIN
			SELECT format('%s rows, sum %s', coalesce(sum(rows), 0), coalesce(sum(v), 0)) INTO had FROM written w WHERE w.name = wrong_with.name;
			EXECUTE format('SELECT format(''%%s rows, sum %%s'', count(*), sum(v)) FROM %I', name) INTO has;
			IF has <> had THEN
				RETURN format('%s: written were %s, there are %s', name, had, has);
			END IF;
			IF equal AND other IS NOT NULL THEN
				EXECUTE format('SELECT (SELECT count(*) FROM (TABLE %1$I EXCEPT ALL TABLE %2$s) x) + (SELECT count(*) FROM (TABLE %2$s EXCEPT ALL TABLE %1$I) x)', name, other) INTO differ;
				IF differ > 0 THEN
					RETURN format('%s: %s rows differ from %s', name, differ, other);
				END IF;
			END IF;
			RETURN NULL;
		END $$;
		SQL
	return;
}

# How often each table has been written.
sub counted
{
	return map { split /\|/ } split /\n/, sql('SELECT name, count(*) FROM written GROUP BY name');
}

sub start_writers
{
	my (@ways) = @_;
	sql('INSERT INTO at_work VALUES ' . join(', ', map { "('$_->{table}')" } @ways) . ' ON CONFLICT DO NOTHING');
	return map { session_of('writer', 'CALL keep_writing()') } 1, 2;
}

sub stop_writers
{
	my (@writers) = @_;
	sql('DELETE FROM at_work');
	is(errors_of(@writers), '', 'no write failed');
	return;
}

# ---------------------------------------------------------------------------------------------
# Getting there

# Statements of all ways, filled in with their tables.
sub statements
{
	my ($what, @ways) = @_;
	return join '', map { defined $_->{life}{$what} ? sprintf($_->{life}{$what}, $_->{table}) . ";\n" : '' } @ways;
}

sub session_of
{
	my ($name, $statement) = @_;
	local $ENV{PGAPPNAME} = $name;
	my $session = begin_call($node, $statement);
	$session->set_query_timer_restart;
	return $session;
}

sub errors_of
{
	my (@sessions) = @_;
	return join "\n", grep { $_ ne '' } map { end_call($_) } @sessions;
}

# Calls of several ways at a time; returns their errors.
sub call_all
{
	my ($call, @ways) = @_;
	my @sessions = map { session_of($_->{table}, sprintf($call // $_->{life}{call}, $_->{table})) } @ways;
	return errors_of(@sessions);
}

sub end_of
{
	my ($way) = @_;
	return $way->{life}{ends} // $way->{life}{alone} // '';
}

sub quoted
{
	my (@ways) = @_;
	return join ', ', map { "'$_->{table}'" } @ways;
}

sub reached_ok
{
	my ($state, $name, @ways) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return if !@ways;
	return ok(poll_query($node, sprintf("SELECT string_agg(migration || ' ' || state, ', ') FROM migrate_ext.migrations WHERE state !~ '^(%s)\$' AND migration IN (%s)",
				$state, quoted(@ways)), ''), $name);
}

sub make_ways
{
	my ($mode) = @_;
	my @ways;
	for my $line (@POINTS)
	{
		my ($point, @lives) = @$line;
		push @ways, map { { point => $point, table => "${point}_$_", life => $LIFE{$_} } } @lives;
	}
	sql(join '', map { sprintf <<~'SQL' . "$_->{life}{make};\n", $_->{table}, $ROWS } @ways);
		CREATE TABLE %1$s (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL);
		INSERT INTO %1$s SELECT g, g %% 16, 1 FROM generate_series(1, %2$s) AS g;
		INSERT INTO written VALUES ('%1$s', %2$s, %2$s);
		SQL
	return @ways;
}

# To the states from which they go on, and what is in their way there.
sub bring_and_disturb
{
	my (@ways) = @_;
	my $brought = sub { my ($to) = @_; return grep { $_->{life}{bring} =~ /^($to)$/ } @ways };
	sql("SELECT migrate_ext.install_sync('$_->{table}')") for $brought->('logging');
	sql(join ' ', map { "SELECT migrate_ext.start('$_->{table}');" } $brought->('live|swapped'));
	reached_ok('logging', 'some are logging',  $brought->('logging'));
	reached_ok('live',    'some are live', $brought->('live|swapped'));
	is(call_all(q{CALL migrate_ext.finalize('%1$s')}, $brought->('swapped')), '', 'some are swapped');
	sql(statements('disturb', @ways));
	poll_query($node, $_) for split /;\n/, statements('until', @ways);
	return map { session_of('holder', sprintf "BEGIN; $_->{life}{holder}", $_->{table}) } grep { defined $_->{life}{holder} } @ways;
}

# Who of them stands at the point, by the point's lock: see debug_point.c.
sub standing_at
{
	my ($point, @ways) = @_;
	return sprintf <<~'SQL', $point, quoted(@ways);
		FROM pg_locks l JOIN pg_stat_activity a USING (pid), replace(application_name, 'migrate_ext ', '') AS t (name)
		WHERE locktype = 'advisory' AND objsubid = x'4D34'::int AND NOT granted AND objid = hashtext('%s')::oid AND t.name IN (%s)
		SQL
}

# One after the other the points are held and their ways gone.  Each way gets the process that stands at its point.
sub send_to_points
{
	my (@ways) = @_;
	my $points = session_of('points', 'SELECT 1');
	for my $line (@POINTS)
	{
		my $point = $line->[0];
		my @there = grep { $_->{point} eq $point } @ways;
		$points->query_safe("SELECT migrate_ext.debug_hold('$point')");
		sql(statements('go', @there));
		$_->{session} = session_of($_->{table}, sprintf $_->{life}{call}, $_->{table}) for grep { defined $_->{life}{call} } @there;
		my $standing = standing_at($point, @there);
		ok(poll_query($node, "SELECT count(DISTINCT name) $standing", scalar @there), "$point: somebody stands there")
		  or die sql('SELECT application_name, backend_type, wait_event, query FROM pg_stat_activity WHERE datname IS NOT NULL ORDER BY 1');
		my %found = map { /^(\w+)\|(.*)/ } split /\n/, sql("SELECT DISTINCT ON (name) name, pid, backend_type LIKE 'migrate_ext%' $standing");
		@$_{qw(pid worker)} = split /\|/, $found{ $_->{table} } // die("$point: $_->{table} is gone\n") for @there;
	}
	return $points;
}

sub leave
{
	my (@sessions) = @_;
	$_->{run}->kill_kill for @sessions;
	return;
}

# ---------------------------------------------------------------------------------------------
# Death, and afterwards

# The server crashes, and with it all sessions end; it is back when this returns.
sub die_by_kill
{
	my (@ways) = @_;
	my $offset = -s $node->logfile;
	kill 'KILL', map { $_->{pid} } @ways;
	$node->wait_for_log(qr/all server processes terminated; reinitializing.*database system is ready to accept connections/s, $offset);
	leave(map { $_->{session} // () } @ways);
	return;
}

# Nobody is gone but who stood at a point.
sub die_by_term
{
	my (@ways) = @_;
	kill 'TERM', map { $_->{pid} } @ways;
	leave(map { $_->{session} // () } grep { $_->{worker} eq 'f' } @ways);
	return;
}

sub check_death
{
	my ($mode, $die) = @_;
	my $crash = $mode eq 'killed';
	$node = new_node($mode, preload => 1, conf => <<~'CONF');
		restart_after_crash = on
		max_worker_processes = 200
		max_connections = 120
		migrate_ext.workers = 1
		autovacuum = off
		CONF
	make_writers();
	my @ways    = make_ways();
	my @writers = start_writers(@ways);
	my @holders = bring_and_disturb(@ways);
	my $points  = send_to_points(@ways);
	my %before  = counted();
	leave(@writers) if $crash;
	$die->(@ways);
	leave($points, @holders);
	sql(statements('settle', @ways));
	@writers = start_writers(@ways) if $crash;
	my @calls = grep { defined $_->{life}{call} } @ways;
	is(errors_of(map { $_->{session} } grep { $_->{worker} eq 't' } @calls), '', "$mode: calls are carried through by another leader") if !$crash;

	# by itself, and when it is asked for again
	my %alone = map { $_->{life}{alone} // '' => 1 } @ways;
	for my $alone (grep { $_ ne '' } sort keys %alone)
	{
		reached_ok($alone, "$mode: by itself to state $alone", grep { ($_->{life}{alone} // '') eq $alone } @ways);
	}
	is(call_all(undef, @calls), '', "$mode: each call can be made again");
	for my $end (qw(live swapped completed cancelled))
	{
		reached_ok($end, "$mode: to the end, $end", grep { end_of($_) eq $end } @ways);
	}
	stop_writers(@writers);
	check_ways($mode, \%before, @ways);
	is(sql("SELECT count(*), count(hold_ms) FROM migrate_ext.swaps WHERE migration = 'swap_committed_finalize'"), '1|0',
		"$mode: a swap is made, and once, whose process is gone after the COMMIT");
	$node->stop('immediate');
	return;
}

# One look at each table: its numbers, and its other side where that is kept in step.
sub check_ways
{
	my ($mode, $before, @ways) = @_;
	my %now = counted();
	is(join(' ', grep { $now{$_} < $before->{$_} } sort keys %$before), '', "$mode: no write that was confirmed is lost");
	is(join(' ', grep { $now{$_} == 1 } sort keys %now), '', "$mode: all tables were written");
	my @kept = grep { end_of($_) =~ /^(live|swapped)$/ } @ways;
	ok(poll_query($node, 'SELECT sum(log_entries) FROM migrate_ext.progress WHERE migration IN (' . quoted(@kept) . ')', '0'), "$mode: nothing is left in a log");
	is(sql('SELECT wrong FROM (SELECT DISTINCT name FROM written) AS t, wrong_with(name, name IN (' . quoted(@kept) . ')) AS w (wrong) WHERE wrong IS NOT NULL'), '',
		"$mode: each write is there once, on both sides");
	return;
}

all_points_ok();
check_death('killed', \&die_by_kill);
check_death('terminated', \&die_by_term);
done_testing;
