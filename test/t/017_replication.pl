# Logical replication through swaps: a table that is published, and tables that are fed by a subscription.
# Whatever is written before, during and after a swap in either direction arrives, once.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pub = new_node('pub');
my $sub = new_node('sub');

sub on_pub { return $pub->safe_psql('postgres', $_[0]); }
sub on_sub { return $sub->safe_psql('postgres', $_[0]); }

# All rows of a table of both servers, once the subscriber has what the publisher had.
sub same
{
	my ($table, $what) = @_;
	my $rows = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM (SELECT id, k, v FROM $table) t";
	$pub->wait_for_catchup('s');
	is(on_sub($rows), on_pub($rows), "$table: $what");
	return;
}

# Inserts, updates (of the key, too) and deletes.
my $stage = 0;
sub write_rows
{
	my ($table) = @_;
	my $i = 100 * ++$stage;
	on_pub("INSERT INTO $table SELECT $i + g, g % 30, 'stage $stage' FROM generate_series(1, 30) g;
		UPDATE $table SET v = v || '!' WHERE id % 7 = 0;
		UPDATE $table SET k = (k + 11) % 30 WHERE id % 5 = 0;
		UPDATE $table SET id = -id WHERE id = $i + 3;
		DELETE FROM $table WHERE id % 11 = 0");
	return;
}

my $tables = 'CREATE TABLE %s (id int PRIMARY KEY, k int NOT NULL, v text)';
for my $table ('published', 'fed', 'fed_wide')
{
	on_pub(sprintf($tables, $table));
	on_sub(sprintf($tables, $table));
	write_rows($table);
}
on_pub('ALTER TABLE fed_wide REPLICA IDENTITY FULL');
on_pub('CREATE PUBLICATION p FOR TABLE published (id, k, v), fed, fed_wide WITH (publish_via_partition_root)');
on_sub("CREATE SUBSCRIPTION s CONNECTION '" . $pub->connstr . " dbname=postgres' PUBLICATION p");
$sub->wait_for_subscription_sync($pub, 's');
same($_, 'copied') for ('published', 'fed', 'fed_wide');

# ---------------------------------------------------------------------------------------------
# The publisher's table

# step(migration, name, call, node): each way, with rows written before and after
sub step
{
	my ($node, $table, $name, $call) = @_;
	write_rows($table);
	$node->safe_psql('postgres', $call);
	write_rows($table);
	same($table, $name);
	return;
}

on_pub("SELECT migrate_ext.partition_by_range('published', 'k', 10, 0, 30, 0)");
step($pub, 'published', 'live', "CALL migrate_ext.run('published')");
step($pub, 'published', 'swapped', "CALL migrate_ext.finalize('published')");
is(on_pub("SELECT relkind FROM pg_class WHERE oid = 'published'::regclass"), 'p', 'a partitioned table is published');
on_sub('ALTER SUBSCRIPTION s REFRESH PUBLICATION');
is(on_sub("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'"), 3, 'a refresh finds nothing new');
step($pub, 'published', 'undone', "CALL migrate_ext.undo('published')");
on_pub('TRUNCATE published');
same('published', 'truncated');
step($pub, 'published', 'swapped again', "CALL migrate_ext.finalize('published')");
on_pub('TRUNCATE published');
same('published', 'truncated while partitioned');
step($pub, 'published', 'completed', "CALL migrate_ext.complete('published', true)");

# ---------------------------------------------------------------------------------------------
# A slot as a new subscriber makes it: who reads the rows with its snapshot is waited for as any other; the slot
# itself, which nobody uses then, is not.

sub slot_with_snapshot
{
	my ($slot) = @_;
	my $reader = open_session($pub, replication => 'database');
	$reader->query_safe('BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ');
	$reader->query_safe("CREATE_REPLICATION_SLOT $slot LOGICAL pgoutput USE_SNAPSHOT");
	return $reader;
}

sub rows_read
{
	my ($reader) = @_;
	my $rows = $reader->query_safe("SELECT string_agg(t::text, ' ' ORDER BY id) FROM (SELECT id, k, v FROM slow) t");
	$reader->query_safe('COMMIT');
	$reader->quit;
	return $rows;
}

my $slow_rows = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM (SELECT id, k, v FROM slow) t";
on_pub(sprintf($tables, 'slow'));
write_rows('slow');
on_pub("SELECT migrate_ext.partition_by_range('slow', 'k', 10, 0, 30, 0)");
my $before = on_pub($slow_rows);
my $early  = slot_with_snapshot('early');
write_rows('slow');
on_pub("CALL migrate_ext.run('slow')");
my $finalize = begin_call($pub, "CALL migrate_ext.finalize('slow', '120 s')");
ok(poll_query($pub, "SELECT waiting_for ~ 'transactions with older snapshots' FROM migrate_ext.progress WHERE migration = 'slow'"),
	'finalize waits for who reads with the snapshot of a new slot');
is(rows_read($early), $before, 'who sees what was there');
is(end_call($finalize), '', 'then it goes on');
$before = on_pub($slow_rows);
my $late = slot_with_snapshot('late');
write_rows('slow');
on_pub("CALL migrate_ext.undo('slow', '60 s')");
is(rows_read($late), $before, 'undo waits for no younger one, which sees all rows as well');
is(on_pub("SELECT count(*) FROM pg_replication_slots WHERE slot_name IN ('early', 'late') AND catalog_xmin IS NOT NULL AND NOT active"), 2,
	'nor for a slot that nobody uses');
on_pub("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active; CALL migrate_ext.cancel('slow')");

# ---------------------------------------------------------------------------------------------
# The subscriber's tables: with the key that the publisher has, and with a wider one

# The apply worker forgets what it knows of tables when it begins anew.
sub restart_worker
{
	on_sub('ALTER SUBSCRIPTION s DISABLE');
	poll_query($sub, "SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL", 0) or die "the worker does not end\n";
	# the other end of its connection may be there for longer, and would make the next one fail
	poll_query($pub, "SELECT active FROM pg_replication_slots WHERE slot_name = 's'", 'f') or die "the slot is not let go\n";
	on_sub('ALTER SUBSCRIPTION s ENABLE');
	return;
}

sub entry
{
	my ($table) = @_;
	return on_sub("SELECT srrelid::regclass, srsubstate, srsublsn IS NOT NULL FROM pg_subscription_rel
		WHERE srrelid::regclass::text ~ '^$table(_new|_orig)?\$' ORDER BY 1");
}

on_sub("SELECT migrate_ext.partition_by_hash('fed', 'id', 3)");
on_sub("SELECT migrate_ext.partition_by_range('fed_wide', 'k', 10, 0, 30, 0)");
is(on_sub("SELECT severity FROM migrate_ext.preflight('fed') WHERE object ~ 'subscription'"), '',
	'the same key: nothing to tell');
is(on_sub("SELECT severity FROM migrate_ext.preflight('fed_wide') WHERE object ~ 'subscription'"), 'warning',
	'a wider key: the publisher must send it');
for my $table ('fed', 'fed_wide')
{
	step($sub, $table, 'live', "CALL migrate_ext.run('$table')");
	step($sub, $table, 'swapped', "CALL migrate_ext.finalize('$table')");
	is(entry($table), "$table|r|t", "$table: the entry is the partitioned table's");
	is(on_sub("SELECT relkind FROM pg_class WHERE oid = '$table'::regclass"), 'p', "$table: which is fed");
	restart_worker();
	write_rows($table);
	same($table, 'swapped, worker restarted');
	step($sub, $table, 'undone', "CALL migrate_ext.undo('$table')");
	is(entry($table), "$table|r|t", "$table: the entry is the original's");
	restart_worker();
	write_rows($table);
	same($table, 'undone, worker restarted');

	# In the middle: the worker waits for the swap's lock with a change in its hands.
	on_sub("SELECT migrate_ext.configure('$table', 'lock_timeout_ms', '60000')");
	my $point = hold_point($sub, 'swap_before_commit');
	my $swap  = begin_call($sub, "CALL migrate_ext.finalize('$table')");
	wait_point($point);
	write_rows($table);
	ok(poll_query($sub, "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_subscription USING (pid) WHERE NOT l.granted"),
		"$table: the apply worker waits for the swap");
	release_point($point);
	is(end_call($swap), '', "$table: which is done");
	same($table, 'written in the middle of a swap');
	is(on_sub("SELECT count(*) FROM migrate_ext.verifications WHERE migration = '$table' AND missing + extra + different > 0"), 0,
		"$table: both tables are equal");
	step($sub, $table, 'completed', "CALL migrate_ext.complete('$table', true)");
	restart_worker();
	write_rows($table);
	same($table, 'completed, worker restarted');
}
is(on_sub("SELECT count(*) FROM pg_subscription_rel"), 3, 'no entry is left behind');
my $log = slurp_file($sub->logfile);
unlike($log, qr/logical replication.*ERROR/, 'the apply worker met no error');

done_testing();
