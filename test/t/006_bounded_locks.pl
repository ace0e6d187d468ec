# Nobody waits for long because of us: whoever holds the table open in a transaction holds up the
# migration, and not the rest of the application. Every wait of other clients is measured.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# One attempt's wait, and what a machine that has other things to do may add to it. Whoever is in the way
# stays there for several attempts, so that an unbounded wait would take seconds.
my $LOCK_TIMEOUT_MS = 100;
my $SLACK_MS        = 500;

# What a swap may hold the lock under load.
my $MAX_HOLD_MS = 500;

# ---------------------------------------------------------------------------------------------
# Clients whose waits are measured

# Reads and writes of other rows than those that the tests hold, one statement a transaction, each logged;
# so many a second in all, or as many as they can.
sub start_clients
{
	my ($table, @rate) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir('latencies');
	my %script = (
		read   => "\\set id random(100, 1000)\nSELECT v FROM $table WHERE id = :id;\n",
		update => "\\set id random(100, 1000)\nUPDATE $table SET v = v + 1 WHERE id = :id;\n",
		insert => "INSERT INTO $table (k, v) VALUES (7, 7);\n");
	append_to_file("$dir/$_.sql", $script{$_}) for sort keys %script;
	my $load = start_pgbench($node,
		clients => 3,
		log     => $dir,
		args    => [ map({ ('--rate' => $_) } @rate), map { ('--file' => "$dir/$_.sql") } sort keys %script ]);
	return $load;
}

# The clients end: none failed, and none waited for longer than an attempt.
sub stop_clients
{
	my ($load, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	pgbench_ok(stop_pgbench($load), $name);
	my $longest = longest_wait($load);
	cmp_ok($longest, '<', $LOCK_TIMEOUT_MS + $SLACK_MS, "$name: no client waited for longer than an attempt");
	note sprintf('%s: the longest wait was %.0f ms', $name, $longest);
	return;
}

# ---------------------------------------------------------------------------------------------
# Who is in the way

sub open_transaction
{
	my ($sql) = @_;
	my $session = open_session($node, on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("BEGIN; $sql");
	return { session => $session, pid => $pid };
}

sub close_transaction
{
	my ($holder) = @_;
	$holder->{session}->query_safe('COMMIT');
	$holder->{session}->quit;
	return;
}

# How many lock attempts have failed since that event, with this process named: an expression.
sub attempts_failed
{
	my ($migration, $holder, $since) = @_;
	return "(SELECT count(*) FROM migrate_ext.event e JOIN migrate_ext.migration m ON m.id = e.migration
		WHERE m.name = '$migration' AND e.kind = 'lock_attempt' AND e.id > $since
		AND e.detail->'blockers' \@> '[{\"pid\": $holder->{pid}}]')";
}

# An event tells who is in the way, and no other the same again: others may come and go beside the one that stays.
sub told_once
{
	my ($migration, $since, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(sql(<<~SQL), '', $name);
		SELECT what FROM (SELECT what, lag(what) OVER (ORDER BY id) AS before
			FROM (SELECT e.id, regexp_replace(e.message, '^attempt \\d+ ', '') AS what
				FROM migrate_ext.event e JOIN migrate_ext.migration m ON m.id = e.migration
				WHERE m.name = '$migration' AND e.kind = 'lock_attempt' AND e.id > $since) AS e) AS e
		WHERE what = before
		SQL
}

sub last_event
{
	return sql('SELECT coalesce(max(id), 0) FROM migrate_ext.event');
}

# Attempts are made, and fail: each is a wait of the only leader's for a lock, that ends. Returns the time between the last two
# that were seen.
sub wait_for_attempts
{
	my ($n) = @_;
	my $leader = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader'";
	my ($waiting, $deadline) = (0, time + $PostgreSQL::Test::Utils::timeout_default);
	my @ended = (0, 0);
	while (@ended < $n + 2 && time < $deadline)
	{
		my $now = sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation' AND pid IN ($leader)");
		push @ended, time if $waiting && !$now;
		$waiting = $now;
	}
	cmp_ok(@ended - 2, '>=', $n, "$n attempts were made, and failed");
	return $ended[-1] - $ended[-2];
}

sub make_table
{
	my ($table) = @_;
	sql(<<~SQL);
		CREATE TABLE $table (id serial PRIMARY KEY, k int NOT NULL, v int NOT NULL);
		INSERT INTO $table (k, v) SELECT g % 7, g FROM generate_series(1, 5000) AS g;
		SELECT migrate_ext.partition_by_hash('$table', 'k', 4);
		SELECT migrate_ext.configure('$table', 'lock_timeout_ms', '$LOCK_TIMEOUT_MS');
		SQL
	return;
}

# All that a swap could have changed, of tables that are written meanwhile.
sub catalog_of
{
	my ($table) = @_;
	return sql(<<~SQL);
		SELECT concat_ws(' ', 'relation', relname, relkind, relfilenode, relhastriggers) FROM pg_class
		WHERE relname LIKE '$table%'
		UNION ALL SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgfoid::regproc, tgenabled) FROM pg_trigger
		WHERE tgrelid::regclass::text LIKE '$table%'
		UNION ALL SELECT concat_ws(' ', 'migration', state, goal, paused) FROM migrate_ext.migrations WHERE migration = '$table'
		ORDER BY 1
		SQL
}

# ---------------------------------------------------------------------------------------------

# The trigger's installation and going live lock writers out: who writes holds them up.
sub writers_in_the_way
{
	make_table('t');
	my $clients = start_clients('t', 300);
	my $holder = open_transaction('UPDATE t SET v = v + 1 WHERE id = 1');
	my $since = last_event();
	sql("SELECT migrate_ext.install_sync('t')");
	cmp_ok(wait_for_attempts(5), '>', 1, 'less and less often');
	is(migration_state($node, 't'), 'created', 'install_sync waits');
	ok(poll_query($node, 'SELECT ' . attempts_failed('t', $holder, $since) . ' > 0'), 'an event tells for whom');
	like(sql("SELECT waiting_for FROM migrate_ext.progress WHERE migration = 't'"), qr/\b$holder->{pid}\b/, 'progress, too');
	told_once('t', $since, 'but not again and again');
	close_transaction($holder);
	ok(wait_state($node, 't', 'logging'), 'the writer ends: installed');
	stop_clients($clients, 'install_sync');

	$clients = start_clients('t', 300);
	$holder = open_transaction('UPDATE t SET v = v + 1 WHERE id = 2');
	$since = last_event();
	sql("SELECT migrate_ext.start('t')");
	ok(wait_state($node, 't', 'catching_up'), 'all else goes on');
	wait_for_attempts(3);
	is(migration_state($node, 't'), 'catching_up', 'going live waits');
	ok(poll_query($node, 'SELECT ' . attempts_failed('t', $holder, $since) . ' > 0'), 'an event tells for whom');
	close_transaction($holder);
	wait_live($node, 't');
	# when it has gathered statistics: autovacuum may be at work on a partition
	ok(poll_query($node, "SELECT waiting_for IS NULL FROM migrate_ext.progress WHERE migration = 't'"), 'the writer ends: live');
	stop_clients($clients, 'going live');
	is(rows_that_differ($node, 't', 't_new'), '0', 'both tables are equal');
	return;
}

# Nobody has asked for what the leader makes on the other table while live: it is told who holds it up, but
# there is no request that could be waited for, withdrawn or met by another call.
sub carried_in_the_way
{
	my $asked = "SELECT count(*) FROM migrate_ext.migration WHERE name = 't' AND request IS NOT NULL";
	my $triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 't_new'::regclass AND tgname = 'late'";
	my $waiting = "SELECT waiting_for FROM migrate_ext.progress WHERE migration = 't'";
	# the last of what the leader makes once it is live, which the lock would hold up as well, and be told of
	poll_query($node, "SELECT analyzed_at IS NOT NULL FROM migrate_ext.migration WHERE name = 't'") or die "the leader is not done\n";
	my $holder = open_transaction('LOCK TABLE t_new IN ROW EXCLUSIVE MODE');
	my $since = last_event();
	sql(<<~'SQL');
		CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER late AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION nothing();
		SQL
	wait_for_attempts(3);
	ok(poll_query($node, 'SELECT ' . attempts_failed('t', $holder, $since) . ' > 0'), 'carrying: an event tells for whom');
	like(sql($waiting), qr/\b$holder->{pid}\b/, 'carrying: progress, too');
	told_once('t', $since, 'carrying: but not again and again');
	is(sql($asked), '0', 'carrying: there is no request');
	close_transaction($holder);
	ok(poll_query($node, $triggers, '1'), 'carrying: it is made when the holder ends');
	ok(poll_query($node, "SELECT ($waiting) IS NULL", 't'), 'carrying: and nothing is waited for any more');
	my $errors = errors("CALL migrate_ext.undo('t')");
	like($errors, qr/NOTICE: .*is live already/, 'carrying: undo has nothing to do');
	unlike($errors, qr/ERROR/, 'carrying: and says no more');
	sql('DROP TRIGGER late ON t');
	poll_query($node, $triggers, '0');
	return;
}

# A key is added in a transaction of the caller's: some attempts, between which nobody waits behind them.
sub key_in_the_way
{
	my $add = "SELECT migrate_ext.add_sharding_key('keyed', 'key', 'int', 's.k')";
	my $has_key = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'keyed'::regclass AND attname IN ('key', 'other')";
	sql('CREATE TABLE keyed (id serial PRIMARY KEY, k int NOT NULL, v int NOT NULL); INSERT INTO keyed (k, v) SELECT g % 7, g FROM generate_series(1, 1000) AS g');
	my $clients = start_clients('keyed', 300);
	my $holder = open_transaction('SELECT count(*) FROM keyed');
	my $error = errors($add);
	like($error, qr/ERROR:  55P03: could not obtain lock on table public[.]keyed\n/, 'add_sharding_key: an error in the end');
	like($error, qr/DETAIL: .*\b$holder->{pid}\b/, 'add_sharding_key: which names who is in the way');
	like($error, qr/NOTICE:  00000: attempt $_ failed: public[.]keyed is held by pid $holder->{pid} /, "add_sharding_key: so does the NOTICE of attempt $_") for 1 .. 3;
	like(errors("BEGIN; LOCK TABLE keyed IN SHARE ROW EXCLUSIVE MODE; SELECT migrate_ext.add_sharding_key('keyed', 'other', 'int')"), qr/DETAIL:  After 1 attempt it is held/,
		'add_sharding_key: one attempt alone where others wait for the transaction');
	is(sql($has_key), '0', 'add_sharding_key: nothing has changed');
	my $call = begin_call($node, $add);
	ok(poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE starts_with(query, \$\$$add\$\$) AND wait_event_type = 'Extension'", '1'), 'add_sharding_key: it tries again');
	close_transaction($holder);
	is(end_call($call), '', 'add_sharding_key: the reader ends, and it is through');
	is(sql($has_key), '1', 'add_sharding_key: the column is there');
	stop_clients($clients, 'add_sharding_key');
	return;
}

# A swap waits for readers as well. The deadline passes, and nothing has changed.
sub readers_in_the_way
{
	my ($call, $table, $name) = @_;
	my $clients = start_clients($table, 300);
	my $holder = open_transaction("SELECT count(*) FROM $table");
	sql("CALL migrate_ext.verify('t')");    # so that what remains is the lock
	my $before = catalog_of('t');
	my ($since, $began);
	my ($error, $seconds) = errors_in_time(
		sub {
			$since = last_event();
			$began = time;
			return errors("CALL migrate_ext.$call('t', '$_[0] s')");
		},
		qr/attempt 3 failed/);
	my $took = lasted($began);
	like($error, qr/ERROR:  MX002:/, "$name: the deadline passes");
	like($error, qr/DETAIL: .*\b$holder->{pid}\b/, "$name: the error names who was in the way");
	like($error, qr/NOTICE:  00000: attempt $_ failed: the locks on both tables are held by pid $holder->{pid} \(.*AccessShareLock/, "$name: so does the NOTICE of attempt $_")
	  for 1 .. 3;
	cmp_ok($took, '<', $seconds + 3, "$name: in time");
	is(catalog_of('t'), $before, "$name: nothing has changed");
	cmp_ok(sql('SELECT ' . attempts_failed('t', $holder, $since)), '>=', 3, "$name: each attempt is recorded with who blocked it");
	is(sql("SELECT count(*) FROM migrate_ext.swaps WHERE direction = '$call' AND at > to_timestamp($began)"), '0', "$name: there was no swap");

	# another session's end is no business of ours, unless asked for: then it is that session's and no other's
	is($holder->{session}->query_safe('SELECT 1'), '1', "$name: the reader goes on");
	like(errors("CALL migrate_ext.$call('t', '30 s', '{\"blockers\": \"terminate\"}')"), qr/session in the way terminated/, "$name: the reader is terminated, as asked");
	# its locks go before it does
	ok(poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $holder->{pid}", '0'), "$name: it is gone");
	like(sql("SELECT attempts > 1, blockers::text FROM migrate_ext.swaps WHERE migration = 't' ORDER BY at DESC LIMIT 1"),
		qr/^t\|.*"pid": $holder->{pid}\b/, "$name: the swap tells how many attempts it took, and because of whom");
	$holder->{session}->{run}->finish;
	stop_clients($clients, $name);
	return;
}

# A statement is cancelled; its session is left alone.
sub cancelled_readers
{
	my $holder = open_session($node, on_error_stop => 0);
	$holder->query_until(qr/begun/, "\\echo begun\nSELECT pg_sleep(100) FROM t LIMIT 1;\n\\echo ended\n");
	poll_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, '1');
	like(errors("CALL migrate_ext.finalize('t', '30 s', '{\"blockers\": \"cancel\"}')"), qr/session in the way cancelled/, 'cancel: the statement is cancelled, as asked');
	$holder->query_until(qr/ended/, "\n");
	is($holder->query('SELECT 1'), '1', 'cancel: the session goes on');
	$holder->quit;
	is(migration_state($node, 't'), 'swapped', 'cancel: and the swap is done');
	return;
}

# Whatever an application does all the time, a swap comes through in a moment.
sub swaps_under_load
{
	my $clients = start_clients('t');
	for my $round (1 .. 3)
	{
		sql("CALL migrate_ext.undo('t', '60 s')");
		sql("CALL migrate_ext.finalize('t', '60 s')");
	}
	is(sql('SELECT count(*), bool_and(hold_ms > 0) FROM (SELECT * FROM migrate_ext.swaps ORDER BY at DESC LIMIT 6) AS s'),
		'6|t', 'swaps under load tell for how long they held the lock');
	cmp_ok(longest_hold($node, 6), '<', $MAX_HOLD_MS, 'swaps under load hold the lock for a moment')
	  or diag(sql('SELECT direction, attempts, wait_ms, hold_ms FROM migrate_ext.swaps ORDER BY at'));
	note sql("SELECT 'longest hold ' || round(max(hold_ms)::numeric, 1) || ' ms' FROM migrate_ext.swaps");
	stop_clients($clients, 'swaps under load');
	is(rows_that_differ($node, 't', 't_orig'), '0', 'both tables are equal');
	return;
}

# The end has no deadline: it is tried until it succeeds.
sub completed_at_last
{
	my $clients = start_clients('t', 300);
	my $holder = open_transaction('SELECT count(*) FROM t_orig');
	my $since = last_event();
	my $call = begin_call($node, "CALL migrate_ext.complete('t', drop_original => true)");
	ok(poll_query($node, 'SELECT ' . attempts_failed('t', $holder, $since) . ' >= 3'), 'complete: attempts fail');
	is(migration_state($node, 't'), 'swapped', 'complete: it waits');
	close_transaction($holder);
	is(end_call($call), '', 'complete: the reader ends');
	is(migration_state($node, 't'), 'completed', 'complete: and so does the migration');
	stop_clients($clients, 'complete');
	return;
}

# ---------------------------------------------------------------------------------------------
# A crowd: the attempt ends when they have waited for so long together, long before its own time is up.

my $CROWD      = 20;
my $QUEUE_MS   = 1000;
my $PATIENT_MS = 3000;

# So many clients, each of which is soon back.
sub start_crowd
{
	my ($statement) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir('crowd');
	append_to_file("$dir/statement.sql", "\\set id random(2, 1000)\n$statement;\n");
	my $load = start_pgbench($node,
		clients => $CROWD,
		log     => $dir,
		args    => [ '--rate' => 20 * $CROWD, '--file' => "$dir/statement.sql" ]);
	poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'", $CROWD);
	return $load;
}

# ask: what makes the leader want the lock that the holder has and the crowd asks for; a call if it waits
sub crowd_behind
{
	my ($name, $table, $holder_sql, $statement, $ask) = @_;
	my $crowd  = start_crowd($statement);
	my $holder = open_transaction($holder_sql);
	my $since  = last_event();
	my $call   = begin_call($node, $ask);
	ok(poll_query($node, <<~SQL, '1'), "crowd, $name: an attempt gives up because of those behind it");
		SELECT min(1) FROM migrate_ext.event e JOIN migrate_ext.migration m ON m.id = e.migration
		WHERE m.name = '$table' AND e.kind = 'lock_attempt' AND e.id > $since
		  AND (detail->>'queue_ms')::int BETWEEN $QUEUE_MS AND 2 * $QUEUE_MS
		  AND coalesce((detail->>'wait_ms')::numeric, 0) < $PATIENT_MS / 2
		SQL
	is($holder->{session}->query_safe('SELECT 1'), '1', "crowd, $name: who holds the lock goes on");
	close_transaction($holder);
	is(end_call($call), '', "crowd, $name: it is done when he has ended");
	pgbench_ok(stop_pgbench($crowd), "crowd, $name");
	my $longest = longest_wait($crowd);
	cmp_ok($longest, '<', $QUEUE_MS / $CROWD + $SLACK_MS, "crowd, $name: no client waited for longer than its share");
	note sprintf('crowd, %s: the longest wait was %.0f ms', $name, $longest);
	return;
}

sub make_crowded
{
	my ($table) = @_;
	make_table($table);
	sql("SELECT migrate_ext.configure('$table', 'lock_timeout_ms', '$PATIENT_MS'); SELECT migrate_ext.configure('$table', 'lock_queue_ms', '$QUEUE_MS');");
	return;
}

sub crowds
{
	my $read = 'SELECT v FROM crowded WHERE id = :id';
	my $hold = 'SELECT count(*) FROM crowded';
	make_crowded('crowded');
	crowd_behind('start', 'crowded', 'UPDATE crowded SET v = v + 1 WHERE id = 1', 'UPDATE crowded SET v = v + 1 WHERE id = :id',
		"SELECT migrate_ext.start('crowded'); CALL migrate_ext.wait_for('crowded', 'live')");

	sql("CREATE TABLE places (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO places SELECT generate_series(0, 1000);
		SELECT migrate_ext.pause('crowded'); ALTER TABLE crowded ADD FOREIGN KEY (k) REFERENCES places;");
	crowd_behind('foreign key', 'crowded', 'UPDATE places SET n = n + 1 WHERE id = 1', 'UPDATE places SET n = n + 1 WHERE id = :id',
		"SELECT migrate_ext.resume('crowded')");
	ok(poll_query($node, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'crowded_new'::regclass AND confrelid = 'places'::regclass", '1'),
		'crowd, foreign key: the other table has it');

	sql("CALL migrate_ext.verify('crowded')");
	crowd_behind('finalize', 'crowded', $hold, $read, "CALL migrate_ext.finalize('crowded', '60 s')");
	sql("CALL migrate_ext.verify('crowded')");
	crowd_behind('undo', 'crowded', $hold, $read, "CALL migrate_ext.undo('crowded', '60 s')");
	sql("CALL migrate_ext.finalize('crowded', '60 s')");

	# who waits for the first table, while we have that and wait for the second, counts as well
	crowd_behind('complete', 'crowded', 'SELECT count(*) FROM crowded_orig', $read, "CALL migrate_ext.complete('crowded', true)");
	make_crowded('crowded_too');
	sql("SELECT migrate_ext.start('crowded_too')");
	wait_live($node, 'crowded_too');
	crowd_behind('cancel', 'crowded_too', 'SELECT count(*) FROM crowded_too_new', 'SELECT v FROM crowded_too WHERE id = :id',
		"CALL migrate_ext.cancel('crowded_too')");
	return;
}

# ---------------------------------------------------------------------------------------------
# Autovacuum

sub autovacuum_of
{
	my ($table) = @_;
	return "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query ~ '^autovacuum: VACUUM.* public\\.$table( |\$)'";
}

# Not of its partitions, which get the table's settings from the leader. One page at a time, so that it lasts.
my $SLOWLY = 'autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1';

sub autovacuum_yields
{
	make_table('dirty');
	sql("SELECT migrate_ext.start('dirty')");
	wait_live($node, 'dirty');
	sql("CALL migrate_ext.verify('dirty')");
	sql("ALTER TABLE dirty SET ($SLOWLY, autovacuum_vacuum_threshold = 10, autovacuum_vacuum_scale_factor = 0)");
	sql('UPDATE dirty SET v = v + 1');
	ok(poll_query($node, autovacuum_of('dirty'), '1'), 'an autovacuum is at work on the table');
	my $began = time;
	sql("CALL migrate_ext.finalize('dirty', '60 s')");
	cmp_ok(lasted($began), '<', 10, 'it yields to the swap');
	like(slurp_file($node->logfile), qr/canceling autovacuum task/, 'the server says so');
	return;
}

# One against wraparound does not, and is left alone even where blockers are to be terminated.
sub wraparound_does_not_yield
{
	make_table('old');
	# for a vacuum of half a minute; by none before it, which freezes rows of 50,000 transactions ago, and leaves it little to do
	sql("ALTER TABLE old SET (autovacuum_enabled = off); INSERT INTO old (k, v) SELECT g % 7, g FROM generate_series(1, 15000) AS g");
	sql("SELECT migrate_ext.start('old')");
	wait_live($node, 'old');
	sql("CALL migrate_ext.verify('old')");
	sql("ALTER TABLE old SET ($SLOWLY, autovacuum_freeze_max_age = 100000)");
	sql('SET synchronous_commit = off; DO $$ BEGIN FOR i IN 1 .. 100100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
	ok(poll_query($node, autovacuum_of('old') . " AND query LIKE '%(to prevent wraparound)'", '1'), 'an autovacuum against wraparound is at work');
	my $pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query ~ ' public\\.old .*wraparound'");
	ok(poll_query($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^old_(p|default)' AND relkind = 'r' AND reloptions IS NULL", '0'),
		'the partitions have the settings of the table');
	# or the comparison before the swap would rest for it
	sql("SELECT migrate_ext.configure('old', 'throttle_wraparound', '0')");
	my $before = catalog_of('old');
	my $named = qr/ERROR:  MX002:.*DETAIL: .*\b$pid\b.*autovacuum worker/s;
	my ($error) = errors_in_time(sub { errors("CALL migrate_ext.finalize('old', '$_[0] s', '{\"blockers\": \"terminate\"}')") }, $named, 2);
	like($error, $named, 'the swap waits for it in vain, and says so');
	is(catalog_of('old'), $before, 'nothing has changed');
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND query LIKE '%wraparound%'"), '1', 'it is still at work');
	return;
}

start_clock();
$node = new_node('main', conf => "autovacuum_naptime = 1\n");
key_in_the_way();
writers_in_the_way();
carried_in_the_way();
readers_in_the_way('finalize', 't', 'finalize');
readers_in_the_way('undo', 't', 'undo');
cancelled_readers();
swaps_under_load();
completed_at_last();
crowds();
autovacuum_yields();
wraparound_does_not_yield();
unlike(slurp_file($node->logfile), qr/deadlock detected.*pgbench/s, 'no client met a deadlock');

# what vacuums slowly need not end first
$node->stop('immediate');
done_testing;
