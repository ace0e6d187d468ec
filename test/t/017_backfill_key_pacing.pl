# Pacing of a key that is filled in place: a pause doesn't make verify() outlive its time, and rate limits cut
# the pieces of verification and of later passes, too, and count what was done once.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROWS = 2000;

$node = new_node('main');

sub configure
{
	my ($migration, $setting, $value) = @_;
	return sql("SELECT migrate_ext.configure('$migration', '$setting', '$value')");
}

# waiting_for of a migration
sub waits_ok
{
	my ($migration, $like, $name) = @_;
	return ok(poll_query($node, "SELECT waiting_for ~ '$like' FROM migrate_ext.progress WHERE migration = '$migration'"),
		"$name: progress tells why");
}

# complete, checked rows, missing of the last one; how many there are
sub verified
{
	return sql('SELECT complete, checked_rows, missing FROM migrate_ext.verifications ORDER BY verified_at DESC LIMIT 1');
}

sub verifications
{
	return sql('SELECT count(*) FROM migrate_ext.verifications');
}

# About 18 rows a block.
sub make_table
{
	sql(<<~SQL);
		CREATE TABLE t (id int PRIMARY KEY, pad text);
		INSERT INTO t SELECT i, repeat('x', 400) FROM generate_series(1, $ROWS) i;
		SELECT migrate_ext.add_sharding_key('t', 'k', 'int', 's.id + 1', false);
		SELECT migrate_ext.backfill_key('t', 'k');
		SELECT migrate_ext.start('t');
		SQL
	wait_live($node, 't');
	sql('VACUUM FULL t');
	sql('ANALYZE t');
	return;
}

# Whoever is held back looks at limits once a second, and tells what he saw. Who is paused has none: so the pause comes
# when he has just told, and he finds it before he looks again.
sub pause_between_looks
{
	sql(<<~'SQL');
		DO $$
		DECLARE
			before timestamptz := (SELECT seen_at FROM migrate_ext.throttle);
		BEGIN
			FOR i IN 1 .. 500 LOOP
				EXIT WHEN (SELECT seen_at > before FROM migrate_ext.throttle);
				PERFORM pg_sleep(0.01);
			END LOOP;
			PERFORM migrate_ext.pause('t', 'lunch');
		END $$;
		SQL
	return;
}

# Held back until it is paused, so that the pause meets it on its way.
sub paused
{
	my $before = verifications();
	configure('t', 'throttle_query', 'SELECT true');
	my $call = begin_call($node, "CALL migrate_ext.verify('t', '6 s')");
	waits_ok('t', '^pacing, stopped: throttle_query', 'verification');
	pause_between_looks();
	configure('t', 'throttle_query', '');
	ok(poll_query($node, 'SELECT count(*) FROM migrate_ext.verifications', $before + 1, 30), 'a paused verification ends when its time is up')
	  or sql("SELECT migrate_ext.resume('t')");
	is(verified(), 'f|0|0', 'it has looked at nothing');
	end_call($call);
	sql("SELECT migrate_ext.resume('t')");
	sql("CALL migrate_ext.verify('t')");
	is(verified(), "t|$ROWS|0", 'resumed: it goes through');
	return;
}

# The first range is paid for by those that would come after it: there is no time for all of them.
sub verify_in_pieces
{
	configure('t', 'throttle_rows_per_second', $ROWS / 4);
	$node->psql('postgres', "CALL migrate_ext.verify('t', '2 s')");
	like(verified(), qr/^f\|[1-9]\d*\|0$/, "verification: its time was up before it had looked at all rows");
	is(sql("SELECT checked_rows < $ROWS FROM migrate_ext.verifications ORDER BY verified_at DESC LIMIT 1"), 't', 'verification: by pieces');
	return;
}

# Rows that lack the key again are the last pass's: no piece of it is more than a second's rows.
sub fill_in_pieces
{
	my $last = sql("SELECT max(batch) FROM migrate_ext.batches WHERE migration = 't'");
	sql('UPDATE t SET k = NULL');
	sql('VACUUM FULL t');
	sql("CALL migrate_ext.finalize('t')");
	is( sql("SELECT sum(rows), max(rows) <= $ROWS / 4 FROM migrate_ext.batches WHERE migration = 't' AND batch > $last"),
		"$ROWS|t",
		'last pass: by pieces')
	  or diag(sql("SELECT batch, first_block, last_block, rows FROM migrate_ext.batches ORDER BY 1"));
	is(sql('SELECT count(*) FROM t WHERE k IS DISTINCT FROM id + 1'), '0', 'last pass: all rows are filled');
	return;
}

# The first batch has more rows than a transaction is to fill, and is cut. The limit comes while it is filled, so
# what it counted as is the debt, which a row a second hardly pays off. The batch isn't the table's end, where
# rows would move to that are filled.
sub counted_once
{
	sql(<<~SQL);
		CREATE TABLE narrow (id int PRIMARY KEY);
		INSERT INTO narrow SELECT generate_series(1, 5000);
		SELECT migrate_ext.add_sharding_key('narrow', 'k', 'int', 's.id + 1', false);
		SELECT migrate_ext.backfill_key('narrow', 'k');
		SELECT migrate_ext.configure('narrow', 'workers', '0');
		SELECT migrate_ext.configure('narrow', 'throttle_mb_per_second', '1000000');
		SQL
	my $point = hold_point($node, 'key_before_update');
	sql("SELECT migrate_ext.start('narrow')");
	ok(wait_point($point), 'a piece of the first batch is being filled');
	is(sql("SELECT first_block, last_block FROM migrate_ext.batches WHERE migration = 'narrow'"), '0|15', 'of some blocks');
	my $rows = sql("SELECT count(*) FROM narrow WHERE ctid < '(16,0)'");
	configure('narrow', 'throttle_rows_per_second', 1);
	release_point($point);
	waits_ok('narrow', '^pacing, limited: at most 1 row and 1000000 MB a second', 'debt');
	my $due = sql('SELECT rows_due FROM migrate_ext.throttle WHERE migration = (SELECT id FROM migrate_ext.migration WHERE name = $$narrow$$)');
	cmp_ok($due, '<=', $rows, 'debt: each row counts once');
	cmp_ok($due, '>', $rows - 100, 'debt: all of them');
	configure('narrow', 'throttle_rows_per_second', 0);
	wait_live($node, 'narrow');
	is(sql('SELECT count(*) FROM narrow WHERE k IS DISTINCT FROM id + 1'), '0', 'debt: forgiven, and all rows are filled');
	return;
}

make_table();
paused();
verify_in_pieces();
fill_in_pieces();
counted_once();
$node->stop;
done_testing();
