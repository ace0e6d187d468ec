# Pacing of a key that is filled in place: a pause doesn't make verify() outlive its time.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROWS = 2000;

my $node = new_node('main');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

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

# Held back until it is paused, so that the pause meets it on its way.
sub paused
{
	my $before = verifications();
	my $session = $node->background_psql('postgres');
	configure('t', 'throttle_query', 'SELECT true');
	$session->query_until(qr/begun/, "\\echo begun\nCALL migrate_ext.verify('t', '3 s');\n");
	waits_ok('t', '^pacing, stopped: throttle_query', 'verification');
	sql("SELECT migrate_ext.pause('t', 'lunch')");
	configure('t', 'throttle_query', '');
	ok(poll_query($node, 'SELECT count(*) FROM migrate_ext.verifications', $before + 1, 30), 'a paused verification ends when its time is up')
	  or sql("SELECT migrate_ext.resume('t')");
	is(verified(), 'f|0|0', 'it has looked at nothing');
	$session->quit;
	sql("SELECT migrate_ext.resume('t')");
	sql("CALL migrate_ext.verify('t')");
	is(verified(), "t|$ROWS|0", 'resumed: it goes through');
	return;
}

make_table();
paused();
$node->stop;
done_testing();
