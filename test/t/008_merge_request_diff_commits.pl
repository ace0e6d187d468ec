# examples/merge_request_diff_commits, step by step as its README tells, by the very files that a newcomer
# runs: a table gets a sharding key and is partitioned by it, into a target that a hand-written trigger has
# half filled. The application works throughout, in three releases, with prepared statements, and not one of
# its transactions may fail. It writes everything to a table called control as well, which nobody migrates.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $EXAMPLE   = "$FindBin::RealBin/../../examples/merge_request_diff_commits";
my $MIGRATION = 'merge_request_diff_commits';
my $TARGET    = 'merge_request_diff_commits_b5377a7a34';

# Transactions a second of a release of the application.
my $RATE = 80;

# What a release does, and how often.
my @ALWAYS = ('amend@6', 'reorder@2', 'remove@1');
my @N0     = (@ALWAYS, 'push_without_key@4', 'move_without_key@2', 'read@3');
my @N      = (@ALWAYS, 'push_with_key@4', 'move_with_key@2', 'read_by_flag@3');
my @N_RS   = (@ALWAYS, 'push_with_key@4', 'move_with_key@2', 'read@3');

# Diffs that somebody moves to another project from a console, and forgets their commits.
my $FORGOTTEN = 'id BETWEEN 1000 AND 1060';

$node = new_node('main');

# One step. Most end with the example's own checks, which end psql with an error. Some are made twice below:
# that is no harm. One that doesn't get its lock in time says that it is to be made again. Returns its output.
sub step
{
	my ($file) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return example_step("$EXAMPLE/$file", again => qr/lock timeout|could not obtain lock/);
}

sub start_release
{
	my (@scripts) = @_;
	my $load = start_pgbench(
		$node,
		clients  => 3,
		protocol => 'prepared',
		args     => [ '--rate' => $RATE, map { ('--file' => "$EXAMPLE/application/" . s/@/.sql@/r) } @scripts ]);
	wait_for_work();
	return $load;
}

sub stop_release
{
	my ($load, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return pgbench_ok(stop_pgbench($load), $name);
}

# Until the application has pushed a few more diffs than it had when we came here.
sub wait_for_work
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $last = sql('SELECT last_value FROM merge_request_diffs_id_seq');
	return ok(poll_query($node, "SELECT last_value > $last + 5 FROM merge_request_diffs_id_seq"),
		'the application works');
}

# The numbers of the last comparison but n.
sub verification
{
	my ($n) = @_;
	return sql("SELECT missing, extra, different, failed FROM migrate_ext.verifications
		WHERE migration = '$MIGRATION' ORDER BY verified_at DESC OFFSET $n LIMIT 1");
}

sub stale_keys
{
	my ($n) = @_;
	return sql("SELECT stale_key FROM migrate_ext.verifications
		WHERE migration = '$MIGRATION' ORDER BY verified_at DESC OFFSET $n LIMIT 1");
}

# Two statements of one REPEATABLE READ transaction, the application at work meanwhile: do they read the same?
# All but the key, which old rows of the source lack, and but commits without a diff.
sub reads_equal
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $contents = q{SELECT count(*), sum(hashtextextended(concat_ws('|', merge_request_diff_id, relative_order, sha, message,
		trailers, authored_date, committed_date, commit_author_id, committer_id), 0)) FROM };
	my $known = 'WHERE merge_request_diff_id IN (SELECT id FROM merge_request_diffs)';
	my ($source, $target) = split /\n/, sql(<<~SQL);
		BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
		$contents $MIGRATION $known;
		$contents $TARGET $known;
		COMMIT;
		SQL
	return is($target, $source, 'a REPEATABLE READ reader sees both tables equal');
}

# As from a console: in one transaction, under the application's lock, and without the commits.
sub forget_commits
{
	return sql(<<~SQL);
		BEGIN;
		SELECT count(pg_advisory_xact_lock(id)) FROM merge_request_diffs WHERE $FORGOTTEN;
		UPDATE merge_request_diffs SET project_id = project_id % 400 + 1 WHERE $FORGOTTEN;
		COMMIT;
		SQL
}

# ---------------------------------------------------------------------------------------------
# Release N: MR1, MR3, MR4

step('00_starting_point.sql');
my $orphans = sql("SELECT count(*) FROM control WHERE merge_request_diff_id NOT IN (SELECT id FROM merge_request_diffs)");
cmp_ok($orphans, '>', 0, 'some commits have no diff');
cmp_ok(sql("SELECT count(*) FROM $TARGET WHERE project_id = 0"), '>', 0, 'the target is half filled, without projects');
example_sees(
	"$EXAMPLE/check.sql",
	"UPDATE $MIGRATION SET message = message || '!' WHERE merge_request_diff_id = 1 AND relative_order = 0",
	"UPDATE $MIGRATION SET message = left(message, -1) WHERE merge_request_diff_id = 1 AND relative_order = 0",
	'the table is not what it would be');

my $release = start_release(@N0);
step('01_mr1_add_sharding_key.sql');
wait_for_work();
step('01_mr1_down.sql');
is( sql("SELECT tgname FROM pg_trigger WHERE tgrelid = '$MIGRATION'::regclass AND tgenabled <> 'D'"),
	'table_sync_trigger_57c8465cd7', "MR1's down: the hand-written trigger is back, alone");
wait_for_work();
my $preflight;
$preflight = step('01_mr1_add_sharding_key.sql') for 1 .. 2;
is( sql("SELECT count(*) FROM pg_trigger
		WHERE tgrelid = '$MIGRATION'::regclass AND tgname = 'table_sync_trigger_57c8465cd7' AND tgenabled <> 'D'"),
	'0', 'MR1: the hand-written trigger is off');
like($preflight, qr/merge_request_diff_id.*2147483647/, 'and preflight tells that diff ids outgrow the original');
wait_for_work();

my $next = start_release(@N);
stop_release($release, 'release N - 1');
$release = $next;
step('02_mr1_application.sql') for 1 .. 2;
is( sql("SELECT count(*) FROM $MIGRATION c JOIN merge_request_diffs d ON d.id = c.merge_request_diff_id
		WHERE c.project_id <> d.project_id"),
	'0', 'no commit has another project than its diff');

# Parents change while rows are on their way: what a batch has read is old when it commits.
my $point = hold_point($node, 'reconcile_before_commit');
step('03_mr3_queue_backfill.sql');
ok(wait_point($point), 'a batch is under way');
forget_commits();
release_point($point);
step('03_mr3_queue_backfill.sql');
step('03_mr3_down.sql') for 1 .. 2;
is(sql("SELECT paused, pause_reason FROM migrate_ext.migrations WHERE migration = '$MIGRATION'"),
	't|MR3 was rolled back', "MR3's down: the workers rest");
wait_for_work();
sql("SELECT migrate_ext.resume('$MIGRATION')");

step('04_mr4_read_partitioned.sql');
is(migration_state($node, $MIGRATION), 'live', 'MR4: the backfill is through');
for (1 .. 3)
{
	wait_for_work();
	reads_equal();
}
step('check.sql');
step('04_mr4_down.sql');
wait_for_work();
step('04_mr4_read_partitioned.sql');
wait_for_work();

# ---------------------------------------------------------------------------------------------
# Release N + RS: MR5, MR6

forget_commits();
step('05_mr5_finalize_backfill.sql');
cmp_ok(stale_keys(1), '>', 0, 'MR5: commits that were forgotten are noticed');
is(stale_keys(0), '0', 'and put right');
is(verification(0), '0|0|0|0', 'no row is missing, extra, different or failed');
# the application removes commits meanwhile: of two counts that are not of one moment, try more than once
my $skipped = 'f';
for (1 .. 20)
{
	last if $skipped eq 't';
	sql("CALL migrate_ext.verify('$MIGRATION')");
	$skipped = sql("SELECT skipped > 0 AND skipped = (SELECT count(*) FROM control
			WHERE merge_request_diff_id NOT IN (SELECT id FROM merge_request_diffs))
		FROM migrate_ext.verifications WHERE migration = '$MIGRATION' ORDER BY verified_at DESC LIMIT 1");
}
is($skipped, 't', 'and commits without a diff are counted as skipped');
is(sql("SELECT count(*) FROM $TARGET WHERE project_id = 0"), '0', 'no row of the target is without project any more');

$next = start_release(@N_RS);
stop_release($release, 'release N');
$release = $next;
step('06_mr6_swap.sql') for 1 .. 2;
wait_for_work();
step('check.sql');
step('06_mr6_down.sql') for 1 .. 2;
is(sql("SELECT relkind FROM pg_class WHERE oid = '$MIGRATION'::regclass"), 'r', "MR6's down: it is one table again");
wait_for_work();
step('check.sql');
step('06_mr6_swap.sql');
is(sql("SELECT relkind FROM pg_class WHERE oid = '$MIGRATION'::regclass"), 'p', 'MR6: it is partitioned');
wait_for_work();
step('check.sql');

# What preflight has told of: the application goes on, only the way back is closed.
sql('ALTER SEQUENCE merge_request_diffs_id_seq RESTART 2147483600');
ok(poll_query($node, "SELECT max(merge_request_diff_id) > 2147483647 FROM $MIGRATION"), 'diff ids outgrow the original');
like(errors("CALL migrate_ext.undo('$MIGRATION', '60 s')"), qr/could not be carried over/, 'and there is no way back');
like(sql("SELECT string_agg(DISTINCT sqlstate || ' ' || message, '; ') FROM migrate_ext.failed_rows"),
	qr/^22003 integer out of range$/, 'which failed_rows explains');
ok( poll_query($node, "SELECT EXISTS (SELECT FROM $MIGRATION
		WHERE merge_request_diff_id > 2147483647 AND message LIKE 'amended: %')"),
	'statements prepared before the swap work on them');

# ---------------------------------------------------------------------------------------------
# Later

step('07_complete.sql');
wait_for_work();
stop_release($release, 'release N + RS');
step('check.sql');
is( sql(<<~SQL), "0|p||0", 'at the end: nothing lost, partitioned, the original and all triggers gone');
	SELECT unlike_control('$MIGRATION', orphans => false),
	       (SELECT relkind FROM pg_class WHERE oid = '$MIGRATION'::regclass),
	       to_regclass('${MIGRATION}_orig'),
	       (SELECT count(*) FROM pg_trigger
	        WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('$MIGRATION')) AND NOT tgisinternal)
	SQL
example_sees(
	"$EXAMPLE/check.sql",
	"CREATE TABLE lost AS SELECT * FROM $MIGRATION LIMIT 1;
	 DELETE FROM $MIGRATION WHERE (merge_request_diff_id, relative_order) IN (SELECT merge_request_diff_id, relative_order FROM lost)",
	"INSERT INTO $MIGRATION TABLE lost",
	'the table is not what it would be');
example_sees(
	"$EXAMPLE/check.sql",
	"UPDATE $MIGRATION SET project_id = project_id % 400 + 1 WHERE merge_request_diff_id = 2",
	"UPDATE $MIGRATION SET project_id = d.project_id FROM merge_request_diffs d WHERE d.id = 2 AND merge_request_diff_id = 2",
	'a commit stands under another project')
  if sql("SELECT EXISTS (SELECT FROM $MIGRATION WHERE merge_request_diff_id = 2)") eq 't';
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock');

$node->stop;
done_testing;
