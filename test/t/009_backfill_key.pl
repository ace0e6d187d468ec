# A key filled in place by workers while the application writes: nobody waits for long or fails, no value
# that the application wrote is lost, whatever happens to the workers; and then NOT NULL.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROWS = 20000;

# What a client may wait. A batch holds its rows for 100 ms, a lock attempt lasts 200 ms; the rest is for a machine that
# has other things to do as well.
my $LONGEST_WAIT_MS = 3000;

# A parent for every ten rows; some rows have no parent. "given" are keys that the application wrote.
sub make_tables
{
	sql(<<~SQL);
		CREATE TABLE parent (id int PRIMARY KEY, k int NOT NULL);
		INSERT INTO parent SELECT g, g + 1000000 FROM generate_series(0, $ROWS / 10) AS g;
		CREATE TABLE t (id serial PRIMARY KEY, v int NOT NULL DEFAULT 0, pad text NOT NULL DEFAULT repeat('x', 300));
		INSERT INTO t SELECT FROM generate_series(1, $ROWS) AS g;
		CREATE TABLE given (id int PRIMARY KEY);
		CREATE TABLE bumped (n bigserial PRIMARY KEY);
		SELECT migrate_ext.add_sharding_key('t', 'k', 'int', '(SELECT p.k FROM parent p WHERE p.id = s.id / 10 % ($ROWS / 10))', false);
		CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS \$\$
		BEGIN
			IF old.k IS NULL AND new.k IS NOT NULL THEN
				PERFORM pg_sleep(0.0005);
			END IF;
			RETURN new;
		END
		\$\$;
		CREATE TRIGGER slowly BEFORE UPDATE OF k ON t FOR EACH ROW EXECUTE FUNCTION slowly();
		SQL
	return;
}

sub start_load
{
	my $dir = PostgreSQL::Test::Utils::tempdir('scripts');
	my %script = (
		bump => <<~SQL,
			\\set id random(1, $ROWS)
			BEGIN; UPDATE t SET v = v + 1 WHERE id = :id; INSERT INTO bumped DEFAULT VALUES; COMMIT;
			SQL
		give => <<~SQL,
			\\set id random(1, $ROWS)
			BEGIN; UPDATE t SET k = -id WHERE id = :id; INSERT INTO given VALUES (:id) ON CONFLICT DO NOTHING; COMMIT;
			SQL
		insert => "INSERT INTO t DEFAULT VALUES;\n",
		savepoint => <<~SQL);
			\\set id random(1, $ROWS)
			BEGIN; SAVEPOINT a; UPDATE t SET k = 0, v = v + 100 WHERE id = :id; ROLLBACK TO a; COMMIT;
			SQL
	append_to_file("$dir/$_.sql", $script{$_}) for sort keys %script;
	return start_pgbench($node, clients => 4, log => $dir, args => [ '--rate' => 200, map { ('--file' => "$dir/$_.sql") } sort keys %script ]);
}

# The clients end: none failed, and none waited for long.
sub stop_load
{
	my ($load, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	pgbench_ok(stop_pgbench($load), $name);
	my $longest = longest_wait($load);
	cmp_ok($longest, '<', $LONGEST_WAIT_MS, "$name: no client waited for long");
	note sprintf('%s: the longest wait was %.0f ms', $name, $longest);
	return;
}

# Every row has the key that it should have, and every bump counts.
sub right_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is( sql(<<~SQL), '0|0|0|t', "$name: every row has its key, the application's where it gave one, and no update is lost");
		SELECT count(*) FILTER (WHERE t.k IS NULL),
			count(*) FILTER (WHERE g.id IS NOT NULL AND t.k <> -t.id),
			count(*) FILTER (WHERE g.id IS NULL AND t.k <> t.id / 10 % ($ROWS / 10) + 1000000),
			sum(t.v) = (SELECT count(*) FROM bumped)
		FROM t LEFT JOIN given g USING (id)
		SQL
}

sub done
{
	return sql("SELECT rows_done FROM migrate_ext.progress WHERE migration = 't'");
}

sub under_load
{
	my $load = start_load();
	sql("SELECT migrate_ext.backfill_key('t', 'k'); SELECT migrate_ext.configure('t', 'workers', '3')");
	sql("SELECT migrate_ext.start('t')");
	ok(poll_query($node, "SELECT rows_done > 500 FROM migrate_ext.progress WHERE migration = 't'"), 'rows are filled');

	sql("SELECT migrate_ext.pause('t', 'lunch')");
	ok(poll_query($node, "SELECT count(*) FROM migrate_ext.batches WHERE migration = 't' AND state = 'running'", '0'), 'paused');
	is(sql("SELECT waiting_for FROM migrate_ext.progress WHERE migration = 't'"), 'resume: it is paused, lunch', 'progress says why');
	my $done = done();
	cmp_ok($done, '<', $ROWS, 'before the end');
	ok(poll_query($node, "SELECT count(*) >= 20 FROM bumped"), 'the application goes on');
	is(done(), $done, 'and nobody fills');
	sql("SELECT migrate_ext.resume('t')");

	terminate_workers($node, 't', $_) for 'helper', 'leader', 'helper';
	is(migration_state($node, 't'), 'copying', 'workers terminated while they fill');
	wait_live($node, 't');
	is(sql("SELECT last_error FROM migrate_ext.migrations WHERE migration = 't'"), '', 'and nobody calls it an error');
	stop_load($load, 'while it is filled');
	ok(poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%'", '0'), 'live needs no worker');
	sql("CALL migrate_ext.finalize('t')");
	right_ok('finalized');
	sql("SELECT migrate_ext.forget('t')");
	return;
}

# A process killed by signal 9 in the middle of a batch: the server recovers, the launcher brings them back.
sub killed
{
	sql("TRUNCATE given; UPDATE t SET k = NULL");
	my $point = hold_point($node, 'key_before_commit');
	sql("SELECT migrate_ext.backfill_key('t', 'k'); SELECT migrate_ext.start('t')");
	ok(wait_point($point, 2), 'helpers stand before their commit');
	my $pid = sql("SELECT pid FROM migrate_ext.batches WHERE migration = 't' AND state = 'running' LIMIT 1");
	kill 'KILL', $pid;
	ok(poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0'), 'one is killed, the server recovers');
	drop_point($point);
	wait_live($node, 't');
	right_ok('after a crash');
	is(sql("SELECT sum(rows) = (SELECT count(*) FROM t) FROM migrate_ext.batches WHERE migration = 't'"), 't', 'each row was filled once');
	sql("CALL migrate_ext.finalize('t')");
	return;
}

# Somebody keeps the table open for a while: who writes other rows isn't held up by enforce_key.
sub enforce
{
	my $load = start_load();
	my $session = open_session($node);
	sql("DROP TRIGGER slowly ON t");
	sql("ALTER TABLE t ALTER k SET DEFAULT -1"); # so that no row comes without
	sql("UPDATE t SET k = -1 WHERE k IS NULL");
	$session->query_safe('BEGIN; INSERT INTO t DEFAULT VALUES');
	my $call = begin_call($node, "CALL migrate_ext.enforce_key('t', 'k')");
	my $now = sql('SELECT count(*) FROM bumped');
	ok(poll_query($node, "SELECT count(*) >= $now + 150 FROM bumped"), 'the application goes on while the lock is waited for');
	is(sql("SELECT attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'k'"), 'f', 'not yet');
	$session->query_safe('COMMIT');
	is(end_call($call), '', 'the lock is had');
	is(sql("SELECT attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'k'"), 't', 'NOT NULL');
	$session->quit;
	stop_load($load, 'while it is enforced');
	return;
}

start_clock();
$node = new_node('backfill', preload => 1, conf => "restart_after_crash = on\n");
make_tables();
under_load();
killed();
enforce();
$node->stop;
done_testing();
