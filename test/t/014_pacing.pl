# Pacing: limits of rows and megabytes a second hold; whatever else is to be respected stops the
# copy when it is reached, says so, and lets it go on when it falls or when the limit is taken away.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

start_clock();

# Helpers that give way to whatever else the machine does say nothing about limits.
$node = new_node('main', conf => "archive_mode = on\narchive_command = 'true'\nmigrate_ext.worker_nice = 0\n");

sub configure
{
	my ($setting, $value) = @_;
	return sql("SELECT migrate_ext.configure('t', '$setting', \$v\$$value\$v\$)");
}

sub events
{
	my ($kind) = @_;
	return sql("SELECT coalesce(string_agg(message, '; ' ORDER BY at), '') FROM migrate_ext.events WHERE kind = '$kind'");
}

# About 18 rows a block, and 5 MB.
sub begin
{
	my (%settings) = @_;
	sql("SELECT migrate_ext.partition_by_hash('t', 'id', 4)");
	configure($_, $settings{$_}) for sort keys %settings;
	sql("SELECT migrate_ext.start('t')");
	return;
}

sub finish
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_live($node, 't');
	is(rows_that_differ($node, 't', 't_new'), '0', "$name: live, and equal");
	sql("CALL migrate_ext.cancel('t')");
	sql("SELECT migrate_ext.forget('t')");
	return;
}

sub waits_ok
{
	my ($like, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(poll_query($node, "SELECT waiting_for ~ '$like' FROM migrate_ext.progress", 't', 30), "$name: progress tells why");
	return;
}

# Reached before the copy begins: it doesn't, and one event tells.
sub stops_ok
{
	my ($like, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	waits_ok("^pacing, stopped: $like", $name);
	is(sql('SELECT state, rows_done FROM migrate_ext.progress'), 'copying|0', "$name: nothing is copied");
	like(events('throttled'), qr/^pacing, stopped: $like[^;]*$/, "$name: one event");
	return;
}

sub write_wal
{
	sql("INSERT INTO scratch SELECT repeat('x', 1000) FROM generate_series(1, 5000)");
	return;
}

sql(<<~SQL);
	CREATE TABLE t (id integer PRIMARY KEY, pad text);
	INSERT INTO t SELECT i, repeat('x', 400) FROM generate_series(1, 12000) i;
	VACUUM ANALYZE t;
	CREATE TABLE scratch (pad text);
	CREATE TABLE load (level numeric);
	INSERT INTO load VALUES (1);
	SQL

# A process accounts for a batch when it asks for the next one, however long after it has ended that is.
sql(<<~'SQL');
	CREATE TABLE asked (pid int, at timestamptz);
	CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.asked VALUES (pg_backend_pid(), clock_timestamp());
		RETURN NULL;
	END $$;
	CREATE TRIGGER ask AFTER INSERT OR UPDATE OF at ON migrate_ext.throttle FOR EACH ROW EXECUTE FUNCTION ask();
	SQL

# What was accounted for when a batch got leave to begin, the last time that its process asked, was paid for by then.
my $paid = <<~SQL;
	SELECT coalesce(bool_and(done <= allowed), false), count(*) > 2, bool_or(done > allowed * 0.3)
	FROM (SELECT (SELECT sum(%1\$s) FROM migrate_ext.batches b
	              WHERE EXISTS (SELECT FROM asked k WHERE k.pid = b.pid AND k.at <= leave
	                            AND k.at >= b.started_at + b.took_ms * interval '1 ms')) AS done,
	             %2\$s * extract(epoch FROM leave - (SELECT min(started_at) FROM migrate_ext.batches)) AS allowed
	      FROM migrate_ext.batches a, LATERAL (SELECT max(k.at) FROM asked k WHERE k.pid = a.pid AND k.at < a.started_at) AS k (leave)
	      WHERE relation = 't'::regclass) x
	WHERE done > 0
	SQL

# ---- rates ----

begin(throttle_rows_per_second => 2000);
waits_ok('^pacing, limited: at most 2000 rows a second', 'rows');

# In one snapshot: what progress says of paces is what the batches, all of the last minute, have in them.
my $paces = <<~SQL;
	SELECT abs(rows_per_second_overall - rows / lasted) < 1, abs(extract(epoch FROM eta) - todo * passed / blocks) <= 1.1,
	       abs(extract(epoch FROM eta_error) - todo * greatest(abs(passed - lasted) / blocks, spread * passed / blocks)) <= 1.1
	FROM (SELECT *, (bytes_total - bytes_done) / 8192 AS todo FROM migrate_ext.progress) AS p,
	     (SELECT sum(rows) AS rows, sum(blocks) AS blocks, count(*) AS n, extract(epoch FROM max(started_at + took) - min(started_at)) AS lasted,
	             extract(epoch FROM clock_timestamp() - min(started_at)) AS passed, stddev(took_ms / blocks) / avg(took_ms / blocks) / sqrt(count(*)) AS spread
	      FROM (SELECT *, last_block - first_block + 1 AS blocks, took_ms * interval '1 ms' AS took FROM migrate_ext.batches WHERE state = 'done') AS b) AS b
	WHERE p.state = 'copying' AND n > 2
	SQL
ok(poll_query($node, $paces, 't|t|t'), 'rows: progress tells the pace of all of it, and how sure it is of the end');
ok(poll_query($node, "SELECT state <> 'copying' FROM migrate_ext.progress"), 'rows: it gets through');
is(sql(sprintf $paid, 'rows', 2000), 't|t|t', 'rows: the rate holds, for two processes together')
  or diag(sql('SELECT batch, first_block, last_block, rows, pid, started_at, took_ms FROM migrate_ext.batches ORDER BY 1'));
is(events('throttled'), 'pacing, limited: at most 2000 rows a second', 'rows: one event');
finish('rows');

begin(throttle_mb_per_second => 1);
waits_ok('^pacing, limited: at most 1 MB a second', 'megabytes');
ok(poll_query($node, "SELECT state <> 'copying' FROM migrate_ext.progress"), 'megabytes: it gets through');
is(sql(sprintf $paid, '(last_block - first_block + 1) * 8192', 1048576), 't|t|t', 'megabytes: the rate holds')
  or diag(sql('SELECT batch, first_block, last_block, rows, pid, started_at, took_ms FROM migrate_ext.batches ORDER BY 1'));
finish('megabytes');

# A debt of an hour: a pause ends the helpers at once, and a new setting forgives it.
begin(throttle_rows_per_second => 1);
waits_ok('^pacing, limited: at most 1 row a second', 'debt');
sql("SELECT migrate_ext.pause('t', 'lunch')");
ok( poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'migrate_ext helper'", '0', 1),
	'debt: a pause acts within a second');
is(sql('SELECT waiting_for FROM migrate_ext.progress'), 'resume: it is paused, lunch', 'debt: progress says so');
sql("SELECT migrate_ext.resume('t')");
ok(poll_query($node, "SELECT seen_at > (SELECT at FROM migrate_ext.events WHERE kind = 'resumed') FROM migrate_ext.throttle"), 'debt, resumed: somebody is held back');
waits_ok('^pacing, limited: at most 1 row a second', 'debt, resumed');
my $before = sql('SELECT rows_done FROM migrate_ext.progress');
configure('throttle_rows_per_second', 0);
ok(poll_query($node, "SELECT rows_done > $before FROM migrate_ext.progress", 't', 2), 'debt: configure frees it');
# the pause may have been one as well
my $ends = q{SELECT count(*) FROM migrate_ext.events WHERE kind = 'unthrottled'
	AND at > (SELECT max(at) FROM migrate_ext.events WHERE kind = 'configured')};
ok(poll_query($node, $ends, '1', 20), 'debt: an event tells the end');
finish('debt');

# ---- a query ----

begin(throttle_query => 'SELECT level FROM public.load');
stops_ok('throttle_query says 1', 'query');
sql('UPDATE load SET level = 0.8');
ok( poll_query($node, "SELECT rows_done > 0 FROM migrate_ext.progress"), 'query: below the limit it goes on');
finish('query');
sql('UPDATE load SET level = 1');
begin(throttle_query => 'SELECT level >= 1 FROM public.load');
stops_ok('throttle_query says 1', 'boolean query');
my $session = open_session($node);
$session->query_safe('BEGIN; LOCK TABLE load');
waits_ok('throttle_query can.t be read within 500 ms', 'a query that waits');
sql("SELECT migrate_ext.pause('t')");
ok( poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'migrate_ext helper'", '0', 1),
	'a query that waits: a pause acts within a second');
$session->query_safe('COMMIT');
$session->quit;
sql("SELECT migrate_ext.resume('t')");
waits_ok('throttle_query says 1', 'boolean query, resumed');
configure('throttle_query', '');
finish('boolean query');

# Verification asks as well, and a deadline comes first.
begin();
wait_live($node, 't');
# what a process saw while it copied holds for a second
ok(poll_query($node, q{SELECT clock_timestamp() > live_at + interval '1500 ms' FROM migrate_ext.migrations}), 'verification: a while after the copy');
configure('throttle_query', 'SELECT true');
my ($code, $out, $err) = $node->psql('postgres', "CALL migrate_ext.verify('t', '2 s')");
is(sql('SELECT complete, checked_rows FROM migrate_ext.verifications'), 'f|0', 'verification: held back until its time was up')
  or diag("$code $out $err");
configure('throttle_query', '');
sql("CALL migrate_ext.verify('t')");
is( sql('SELECT complete, checked_rows, missing FROM migrate_ext.verifications ORDER BY verified_at DESC LIMIT 1'),
	't|12000|0', 'verification: then it goes through');
finish('verification');

# ---- sessions and locks ----

my $holder = open_session($node);
my $waiter = open_session($node);
$holder->query_safe("BEGIN; UPDATE t SET pad = 'held' WHERE id = 1");
$waiter->query_until(qr/begun/, "\\echo begun\nUPDATE t SET pad = 'waited' WHERE id = 1;\n");
ok(poll_query($node, "SELECT count(*) FROM pg_locks WHERE NOT granted", '1'), 'a session waits for a row');
# the trigger can't come while the row is being written: on another table
sql('CREATE TABLE u (id integer PRIMARY KEY)');
sql('INSERT INTO u SELECT generate_series(1, 1000)');
sql("SELECT migrate_ext.partition_by_hash('u', 'id', 2)");
sql("SELECT migrate_ext.configure('u', 'throttle_active_sessions', '1')");
sql("SELECT migrate_ext.start('u')");
waits_ok('^pacing, stopped: active sessions: \d+, limit 1', 'sessions');
sql("SELECT migrate_ext.configure('u', 'throttle_active_sessions', '0')");
wait_live($node, 'u');
sql("CALL migrate_ext.cancel('u')");
sql("SELECT migrate_ext.forget('u')");
$holder->query_safe('COMMIT');
$waiter->quit;
begin(throttle_query => 'SELECT true');
stops_ok('throttle_query says 1', 'before the lock');
$waiter = open_session($node);
$holder->query_safe("BEGIN; UPDATE t SET pad = 'held' WHERE id = 1");
$waiter->query_until(qr/begun/, "\\echo begun\nUPDATE t SET pad = 'waited' WHERE id = 1;\n");
ok(poll_query($node, "SELECT count(*) FROM pg_locks WHERE NOT granted", '1'), 'again');
configure('throttle_lock_waiters', 1);
configure('throttle_query', '');
waits_ok('^pacing, stopped: sessions waiting for locks: 1, limit 1', 'lock waiters');
is(sql('SELECT rows_done FROM migrate_ext.progress'), '0', 'lock waiters: nothing is copied');
$holder->query_safe('COMMIT');
$holder->quit;
$waiter->quit;
finish('lock waiters');

# ---- replication ----

my $standby = make_standby($node, 'standby');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'");
write_wal();
begin(throttle_replay_lag_mb => 2);
stops_ok('replay lag of standby "standby" is \d+\.\d MB, limit 2', 'lag in megabytes');
configure('throttle_replay_lag_mb', 0);
finish('lag in megabytes');

# of one that stops after it kept up
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$node->wait_for_catchup($standby);
ok( poll_query($node, "WITH w AS (INSERT INTO scratch VALUES ('w')) SELECT replay_lag < '1 s' FROM pg_stat_replication"),
	'lag in seconds: none');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'");
begin(throttle_replay_lag_s => 2, throttle_query => 'SELECT true');
ok( poll_query($node, "SELECT count(*) FROM migrate_ext.events WHERE message ~ '^pacing, stopped: replay lag of standby .standby. is'", '1', 30),
	'lag in seconds: it grows');
configure('throttle_query', '');
waits_ok('^pacing, stopped: replay lag of standby "standby" is \d+\.\d s, limit 2', 'lag in seconds');
is(sql('SELECT rows_done FROM migrate_ext.progress'), '0', 'lag in seconds: nothing is copied');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
finish('lag in seconds');

# one that isn't there can't be asked: slower, not stopped
begin(throttle_replay_lag_mb => 1000, throttle_standbys => 'standby, away');
waits_ok('^pacing, slowed down: throttle_replay_lag_mb can.t be read: standby "away" is not connected', 'no such standby');
finish('no such standby');
$standby->stop;

sql("SELECT pg_create_physical_replication_slot('lagging', true)");
write_wal();
begin(throttle_slot_lag_mb => 2);
stops_ok('replication slot "lagging" is \d+\.\d MB behind, limit 2', 'slot');
sql("SELECT pg_drop_replication_slot('lagging')");
finish('slot');

# ---- the archiver, WAL ----

sql("ALTER SYSTEM SET archive_command = 'false'");
sql('SELECT pg_reload_conf()');
ok(poll_query($node, 'SHOW archive_command', 'false'), 'the archiver fails');
for (1 .. 3)
{
	sql('INSERT INTO load VALUES (0)');
	sql('SELECT pg_switch_wal()');
}
ok(poll_query($node, "SELECT count(*) >= 2 FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"), 'files wait');
begin(throttle_archive_files => 2);
stops_ok('WAL files waiting for the archiver: \d+, limit 2', 'archive');
sql("ALTER SYSTEM SET archive_command = 'true'");
sql('SELECT pg_reload_conf()');
sql('SELECT pg_switch_wal()');
finish('archive');

begin(throttle_wal_mb_per_second => 1, batch_target_ms => 10);
waits_ok('^pacing, stopped: more than 1 MB of WAL', 'WAL rate');
finish('WAL rate');

$node->stop;
done_testing;
