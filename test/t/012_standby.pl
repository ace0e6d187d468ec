# Streaming standbys: what is read there holds the swap back, a standby is told from a primary by every
# call, one that is promoted goes on with what it found, and a synchronous one that is away keeps nobody
# behind the swap's lock.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROWS = 2000;

# A standby tells what it reads at least so often.
my $FEEDBACK = "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\nmax_standby_streaming_delay = -1\n";

# Four rows a block, so that a copy has batches.
sub make_migration
{
	my ($table) = @_;
	sql(<<~SQL);
		CREATE TABLE $table (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL DEFAULT 0, pad text NOT NULL DEFAULT repeat('x', 1900));
		ALTER TABLE $table ALTER pad SET STORAGE PLAIN;
		INSERT INTO $table SELECT g, g % 16 FROM generate_series(1, $ROWS) AS g;
		SELECT migrate_ext.partition_by_hash('$table', 'k', 3);
		SQL
	return;
}

sub bring_live
{
	my ($table) = @_;
	sql("SELECT migrate_ext.start('$table')");
	wait_live($node, $table);
	return;
}

sub waits_for_ok
{
	my ($table, $what, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(poll_query($node, "SELECT waiting_for ~ '$what' FROM migrate_ext.progress WHERE migration = '$table'"), $name);
}

# ---------------------------------------------------------------------------------------------
# Older snapshots on a standby

# A transaction on the standby that has a snapshot, and has not yet read the table.
sub old_reader
{
	my ($standby) = @_;
	my $reader = open_session($standby);
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$reader->query_safe('SELECT count(*) FROM pg_class');
	return $reader;
}

# $shown: the query on the primary that shows the xmin that the standby reports
sub check_reader
{
	my ($standby, $table, $shown, $what) = @_;
	make_migration($table);
	$node->wait_for_catchup($standby);
	my $reader = old_reader($standby);
	my $held = $standby->safe_psql('postgres',
		"SELECT min(backend_xmin::text::bigint) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
	# writes, so that what the standby reports is told from what it would report without the reader
	sql("UPDATE $table SET v = 1 WHERE id = 1; UPDATE $table SET v = 2 WHERE id = 1;");
	ok(poll_query($node, "SELECT xmin::text::bigint <= $held FROM ($shown) AS s (xmin)"), "$what: the primary knows of the reader");
	bring_live($table);
	$node->wait_for_catchup($standby);

	my $named = qr/MX002.*older snapshots on standbys: $what/s;
	like((errors_in_time(sub { errors("CALL migrate_ext.finalize('$table', '$_[0] s')") }, $named))[0], $named, "$what: finalize gives up in time and names it");
	is(migration_state($node, $table), 'live', "$what: and nothing has changed");
	like(sql("SELECT string_agg(problem, ' ') FROM migrate_ext.preflight('$table')"), qr/a standby reads with it/, "$what: preflight names it") if $what =~ /slot/;

	my $call = begin_call($node, "CALL migrate_ext.finalize('$table', '120 s')");
	waits_for_ok($table, "older snapshots on standbys: $what", "$what: finalize waits and says for whom");
	is($reader->query_safe("SELECT count(*) FROM $table"), $ROWS, "$what: the reader sees all rows");
	$reader->query_safe('COMMIT');
	is(end_call($call), '', "$what: when the reader has ended, finalize goes on");
	is(migration_state($node, $table), 'swapped', "$what: and swaps");
	$node->wait_for_catchup($standby);
	is($standby->safe_psql('postgres', "SELECT (SELECT count(*) FROM $table), relkind FROM pg_class WHERE oid = '$table'::regclass"),
		"$ROWS|p", "$what: the standby follows");
	$reader->quit;
	check_reader_of_undo($standby, $table, $shown, $what);
	return;
}

# There and back: who began after the swap has all rows in the original as well, but for what is carried back later.
sub check_reader_of_undo
{
	my ($standby, $table, $shown, $what) = @_;
	my $younger = old_reader($standby);
	sql("ALTER TABLE ${table}_orig ADD CONSTRAINT not_now CHECK (v < 90); UPDATE $table SET v = 99 WHERE id = 1;");
	$node->wait_for_catchup($standby);
	my $older = old_reader($standby);
	my $held = $standby->safe_psql('postgres',
		"SELECT max(backend_xmin::text::bigint) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
	$younger->query_safe('COMMIT');
	sql("UPDATE $table SET v = 3 WHERE id = 2; UPDATE $table SET v = 4 WHERE id = 2;");
	ok(poll_query($node, "SELECT xmin::text::bigint <= $held FROM ($shown) AS s (xmin)"), "undo, $what: the primary knows of the reader");
	sql("ALTER TABLE ${table}_orig DROP CONSTRAINT not_now");
	ok(poll_query($node, "SELECT log_entries FROM migrate_ext.progress WHERE migration = '$table'", '0'), "undo, $what: a row is carried back");
	my $named = qr/MX002.*older snapshots on standbys: $what/s;
	like((errors_in_time(sub { errors("CALL migrate_ext.undo('$table', '$_[0] s')") }, $named))[0], $named, "undo, $what: it gives up in time and names it");
	my $call = begin_call($node, "CALL migrate_ext.undo('$table', '120 s')");
	waits_for_ok($table, "older snapshots on standbys: $what", "undo, $what: it waits and says for whom");
	is($older->query_safe("SELECT count(*), max(v) FROM $table"), "$ROWS|99", "undo, $what: the reader sees what was there");
	$older->query_safe('COMMIT');

	# nobody waits for the one that begins now, and it misses nothing either
	$younger->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$younger->query_safe('SELECT count(*) FROM pg_class');
	is(end_call($call), '', "undo, $what: when the reader has ended, it goes on");
	$node->wait_for_catchup($standby);
	is($standby->safe_psql('postgres', "SELECT relkind FROM pg_class WHERE oid = '$table'::regclass"), 'r', "undo, $what: the standby follows");
	is($younger->query_safe("SELECT count(*), max(v) FROM $table"), "$ROWS|99", "undo, $what: a reader from before it sees all rows afterwards");
	$younger->query_safe('COMMIT');
	$_->quit for $older, $younger;
	return;
}

sub snapshots_node
{
	$node = new_node('feedback');
	my $standby = make_standby($node, 'reader', $FEEDBACK);
	check_reader($standby, 'by_sender', 'SELECT backend_xmin FROM pg_stat_replication', 'WAL sender with pid \d+');

	# with a slot it is the slot that holds the snapshot
	sql("SELECT pg_create_physical_replication_slot('seat')");
	$standby->append_conf('postgresql.conf', "primary_slot_name = 'seat'\n");
	restart_node($standby, 'fast');
	check_reader($standby, 'by_slot', "SELECT xmin FROM pg_replication_slots WHERE slot_name = 'seat'", 'replication slot seat');

	# of a standby that went away in the middle of a query, and nobody knows whether it comes back
	make_migration('by_nobody');
	$node->wait_for_catchup($standby);
	my $reader = old_reader($standby);
	sql('CREATE TABLE noise ()');
	ok(poll_query($node, q{SELECT pg_replication_slots.xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'seat'}), 'idle slot: it has an xmin');
	$standby->stop('immediate');
	eval { $reader->quit };
	bring_live('by_nobody');
	ok(poll_query($node, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'seat'"), 'idle slot: nobody uses it');
	my $call = begin_call($node, "CALL migrate_ext.finalize('by_nobody', '120 s')");
	waits_for_ok('by_nobody', 'older snapshots on standbys: replication slot seat', 'idle slot: finalize waits and names it');
	sql("SELECT pg_drop_replication_slot('seat')");
	is(end_call($call), '', 'idle slot: when it is dropped, finalize goes on');
	is(migration_state($node, 'by_nobody'), 'swapped', 'idle slot: and swaps');
	$node->stop;
	return;
}

# ---------------------------------------------------------------------------------------------
# Every call, on a standby

# By function, for what PUBLIC may call.  What only reads must work; all else is refused.
my @READS = ("preflight('live')", "differences('live')", "preview('plain', 'k', 2)", "plan('live')", "describe('plain')",
	"catalog_difference('{}', '{}')", "report('live')");
my %REFUSED = (
	SELECT => [
		"partition_by_hash('plain', 'k', 2)", "partition_by_list('plain', 'k')", "partition_by_range('plain', 'k', 10)",
		"create_migration('plain', 'live_new')", "add_sharding_key('plain', 'k', 'int')", "backfill_key('plain', 'k')",
		"configure('live', 'workers', '1')",
		map { "$_('live')" } qw(install_sync start start_backfill replace_sync pause resume swap unswap repair retry_failed forget)
	],
	CALL => [ "enforce_key('plain', 'k')", "wait_for('live', 'swapped', '1 s')", map { "$_('live')" } qw(run verify finalize undo complete cancel rehearse) ]);

sub standby_refuses
{
	my ($standby) = @_;
	$node = $standby;
	for my $how (sort keys %REFUSED)
	{
		like(errors("$how migrate_ext.$_"), qr/ERROR:  25006/, "standby: $how $_ is refused") for @{ $REFUSED{$how} };
	}
	for my $call (@READS)
	{
		is(errors("SELECT count(*) FROM migrate_ext.$call"), '', "standby: $call can be read");
	}
	is(errors("TABLE migrate_ext.$_"), '', "standby: view $_ can be read")
	  for split /\n/, sql("SELECT relname FROM pg_class WHERE relnamespace = 'migrate_ext'::regnamespace AND relkind = 'v'
			AND relname NOT LIKE 'any%'");
	is(sql("SELECT string_agg(state, ' ' ORDER BY migration) FROM migrate_ext.migrations"), 'copying live swapped', 'standby: and tell the truth');

	# nobody may be forgotten here
	my %named = map { /^(\w+)/ ? ($1 => 1) : () } @READS, map { @$_ } values %REFUSED;
	my @forgotten = grep { !$named{$_} } split /\n/, sql(<<~'SQL');
		SELECT DISTINCT proname FROM pg_proc
		WHERE pronamespace = 'migrate_ext'::regnamespace AND prorettype <> 'trigger'::regtype
		  AND has_function_privilege('public', oid, 'EXECUTE') AND obj_description(oid, 'pg_proc') NOT LIKE 'internal:%'
		ORDER BY 1
		SQL
	is("@forgotten", '', 'standby: all functions are tried here');
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%'"), '0', 'standby: no worker');
	return;
}

# ---------------------------------------------------------------------------------------------
# Promotion

sub write_to
{
	my ($table, $round) = @_;
	sql(<<~SQL);
		UPDATE $table SET v = v + 1 WHERE id % 3 = 0;
		UPDATE $table SET k = (k + 5) % 16 WHERE id % 7 = $round;
		UPDATE $table SET id = id + 100000 * ($round + 1) WHERE id % 11 = $round;
		DELETE FROM $table WHERE id % 13 = $round;
		INSERT INTO $table SELECT $ROWS * ($round + 1) + g, g % 16 FROM generate_series(1, 50) AS g;
		SQL
	return;
}

sub same_rows_ok
{
	my ($table, $other, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(rows_that_differ($node, $table, $other), '0', "$name: both tables are equal");
	return is(sql("SELECT count(*) - count(DISTINCT id) FROM $other"), '0', "$name: no row is there twice");
}

sub goes_on_ok
{
	my ($preload, $name) = @_;
	if (!$preload)
	{
		is(sql("SELECT waiting_for FROM migrate_ext.progress WHERE migration = 'copying'"), 'a worker: no process is at work on it',
			"$name: says that nobody is at work");
		sql("SELECT migrate_ext.resume('$_')") for qw(copying live swapped);
	}
	wait_live($node, 'copying');
	for my $type (qw(copying live swapped))
	{
		ok(poll_query($node, "SELECT workers > 0 FROM migrate_ext.progress WHERE migration = '$type'"), "$name, $type: has a leader");
	}
	write_to($_, 2) for qw(copying live swapped);
	same_rows_ok('copying', 'copying_new', "$name, copying");
	same_rows_ok('live', 'live_new', "$name, live");
	same_rows_ok('swapped', 'swapped_orig', "$name, swapped");
	is(sql("SELECT sum(rows) <= $ROWS FROM migrate_ext.batches WHERE migration = 'copying' AND first_block IS NOT NULL"), 't',
		"$name, copying: no row is copied twice");
	sql("CALL migrate_ext.finalize('$_', '60 s')") for qw(copying live);
	sql("CALL migrate_ext.undo('swapped', '60 s')");
	write_to($_, 3) for qw(copying live swapped);
	same_rows_ok('copying', 'copying_orig', "$name, copying, swapped there");
	same_rows_ok('live', 'live_orig', "$name, live, swapped there");
	same_rows_ok('swapped', 'swapped_new', "$name, swapped, undone there");
	return;
}

sub promotion_node
{
	my ($preload) = @_;
	my $name = $preload ? 'promoted with preload' : 'promoted without preload';
	my $primary = $node = new_node($preload ? 'preload' : 'plain', preload => $preload);
	sql('CREATE TABLE plain (id int PRIMARY KEY, k int NOT NULL)');
	make_migration($_) for qw(copying live swapped);
	bring_live($_) for qw(live swapped);
	sql("CALL migrate_ext.finalize('swapped', '60 s')");
	my $standby = make_standby($primary, $preload ? 'heir' : 'plain_heir');

	# one batch is done, another has been begun
	my $first = hold_point($primary, 'copy_before_commit');
	sql("SELECT migrate_ext.configure('copying', 'workers', '1'); SELECT migrate_ext.start('copying');");
	wait_point($first) or die 'nobody copies';
	my $point = hold_point($primary, 'copy_after_claim');
	release_point($first);
	wait_point($point) or die 'nobody copies on';
	is(sql("SELECT state, rows_done > 0, rows_done < $ROWS FROM migrate_ext.progress WHERE migration = 'copying'"), 'copying|t|t',
		"$name: in the middle of the copy");
	write_to($_, 0) for qw(copying live swapped);
	$primary->wait_for_catchup($standby);
	standby_refuses($standby);

	$primary->stop('immediate');
	drop_point($point);
	$node = $standby;
	$standby->promote;
	write_to($_, 1) for qw(copying live swapped);
	same_rows_ok('live', 'live_new', "$name: live from the first statement on");
	same_rows_ok('swapped', 'swapped_orig', "$name: swapped from the first statement on");
	goes_on_ok($preload, $name);
	$standby->stop;
	return;
}

# ---------------------------------------------------------------------------------------------
# A synchronous standby

sub synchronous_node
{
	$node = new_node('sync_primary');
	make_migration('t');
	bring_live('t');
	my $standby = make_standby($node, 'sync_standby');
	sql("ALTER SYSTEM SET synchronous_standby_names = 'sync_standby'");
	$node->reload;
	ok(poll_query($node, "SELECT sync_state FROM pg_stat_replication", 'sync'), 'synchronous: the standby is one');
	my $warned = "SELECT count(*) FROM migrate_ext.preflight('t') WHERE severity = 'warning' AND object = 'synchronous standbys'";
	is(sql($warned), '0', 'synchronous: no warning while it is there');

	# it goes away while the swap has its locks
	my $point = hold_point($node, 'swap_before_commit');
	my $call = begin_call($node, "CALL migrate_ext.finalize('t', '120 s')");
	wait_point($point) or die 'nobody swaps';
	$standby->stop('immediate');
	like(errors("SET lock_timeout = '100ms'; SELECT count(*) FROM t;"), qr/55P03/, 'synchronous: the swap has its locks');
	ok(poll_query($node, 'SELECT count(*) FROM pg_stat_replication', '0'), 'synchronous: the standby is away');
	release_point($point);
	ok(poll_query($node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", '1'), 'synchronous: a process waits for the standby');
	is(sql("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.mode = 'AccessExclusiveLock' AND c.relname ~ '^t(_new|_orig)?\$'"),
		'0', 'synchronous: but none that has the locks of the swap');
	is(sql("SET lock_timeout = '5s'; SELECT count(*) FROM t;"), $ROWS, 'synchronous: the table can be read');
	is(migration_state($node, 't'), 'swapped', 'synchronous: the swap is done');
	is(sql($warned), '1', 'synchronous: preflight warns while it is away');

	$standby->start;
	is(end_call($call), '', 'synchronous: finalize ends when it is back');
	ok(poll_query($node, $warned, '0'), 'synchronous: and nobody is warned');
	ok(poll_query($node, "SELECT hold_ms IS NOT NULL FROM migrate_ext.swaps WHERE migration = 't'"), 'synchronous: how long the locks were held is told');
	sql("UPDATE t SET v = v + 1; CALL migrate_ext.undo('t', '60 s');");
	is(rows_that_differ($node, 't', 't_new'), '0', 'synchronous: and back');
	$node->wait_for_catchup($standby);
	$standby->stop;
	$node->stop('immediate');
	return;
}

snapshots_node();
promotion_node($_) for 1, 0;
synchronous_node();
done_testing;
