# A whole migration without a single background worker of ours: by jobs of pg_cron, and by a loop in a shell on a server that
# has none at all. A second caller is told so; what an interrupted one leaves the next goes on with.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use IPC::Run;
use MigrateTest;
use PostgreSQL::Test::Utils;
use Test::More;

# What README.md shows is what runs here, on another table.
my $README = slurp_file("$FindBin::RealBin/../../README.md");
my $DEADLINE_S = $PostgreSQL::Test::Utils::timeout_default;

# A table of a role's that is no superuser; its migration, slow enough to be interrupted where a limit is given.
sub make_table
{
	my ($server, $limit) = @_;
	$server->safe_psql('postgres', <<~"SQL");
		CREATE ROLE app LOGIN;
		CREATE SCHEMA app AUTHORIZATION app;
		ALTER ROLE app SET search_path = app;
		SET ROLE app; SET search_path = app;
		CREATE TABLE t (id integer PRIMARY KEY, pad text);
		INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i;
		SELECT migrate_ext.partition_by_range('t', 'id', 10000, headroom => 2);
		SELECT migrate_ext.configure('t', 'throttle_rows_per_second', '$limit'), migrate_ext.configure('t', 'batch_target_ms', '50');
		SQL
	return;
}

sub no_workers
{
	my ($server, $name) = @_;
	return is($server->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'migrate_ext%'"), 0, "$name: no worker of ours");
}

# ---------------------------------------------------------------------------------------------
# pg_cron: a job of each minute, which comes while the shell is at it; and the one that README has, for a second table. The only
# worker slot is pg_cron's own. On another server its jobs are background workers, sessions without a client.

my ($schedule) = $README =~ /`(SELECT cron\.schedule\([^`]*\))`/;
my ($swaps) = $README =~ /`(\$\$DO [^`]*\$\$)`/;
my $schedule_both = $schedule =~ s/\$\$.*\$\$/$swaps/r =~ s/\bvisits\b/t/gr;

sub cron_node
{
	my ($name, $conf, $jobs) = @_;
	my $server = new_node($name, conf => "max_logical_replication_workers = 0\n$conf\n");
	$server->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron'\ncron.host = '" . $server->host . "'\n");
	$server->restart;
	make_table($server, 0);
	$server->safe_psql('postgres', <<~"SQL");
		CREATE EXTENSION pg_cron;
		GRANT USAGE ON SCHEMA cron TO app;
		SET ROLE app; SET search_path = app;
		CREATE TABLE visits (id integer PRIMARY KEY);
		INSERT INTO visits SELECT generate_series(1, 20000);
		SELECT migrate_ext.partition_by_range('visits', 'id', 10000);
		$jobs;
		SQL
	return $server;
}

my $cron = cron_node('cron', 'max_worker_processes = 1', "$schedule_both; $schedule");
my $inside = cron_node('inside', 'cron.use_background_workers = on', $schedule);

# ---------------------------------------------------------------------------------------------
# A shell

$node = new_node('shell', conf => "max_worker_processes = 0\n");
make_table($node, 1000);

my $psql = sprintf q{psql -X -q -h '%s' -p %d -U app -d postgres}, $node->host, $node->port;
my ($loop_shown, $call) = $README =~ /^    (until (psql .*); do sleep 10; done)$/m;
s/\bpsql\b/$psql/, s/\bvisits\b/t/, s/sleep 10/sleep 1/ for $loop_shown, $call;
my ($said, $second) = ('', '');
my $loop = IPC::Run::start([ 'sh', '-c', $loop_shown ], '<', \undef, '>&', \$said);
my $ours = q{state = 'active' AND query LIKE 'CALL migrate_ext.run%'};
ok(poll_query($node, "SELECT count(*) > 2 FROM migrate_ext.batches WHERE state = 'done'"), 'shell: copying');

ok(IPC::Run::run([ 'sh', '-c', $call ], '<', \undef, '>&', \$second, IPC::Run::timeout($DEADLINE_S)), 'a second caller is through at once');
like($second, qr/NOTICE:  another process is at work on migration "t" already/, 'and is told why');
is(migration_state($node, 't'), 'copying', 'while the first goes on');

# what is done stays done: the same batches, by the same process
my $done = q{SELECT coalesce(string_agg(format('%s %s %s', batch, pid, started_at), ',' ORDER BY batch), '') FROM migrate_ext.batches WHERE state = 'done' AND batch <= %d};
my $pid = sql("SELECT pid FROM pg_stat_activity WHERE $ours");
sql("UPDATE app.t SET pad = 'changed' WHERE id % 1000 = 0");
sql("SELECT pg_terminate_backend($pid, 60000)");
my $last = sql("SELECT max(batch) FROM migrate_ext.batches WHERE state = 'done'");
my $before = sql(sprintf $done, $last);
is(migration_state($node, 't'), 'copying', 'interrupted half way');
ok(poll_query($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE $ours AND pid <> $pid"), 'the loop calls again');
sql(q{SELECT migrate_ext.configure('t', 'throttle_rows_per_second', '0')});
is(IPC::Run::finish($loop, IPC::Run::timeout($DEADLINE_S)), 1, 'until the call succeeds');
like($said, qr/terminating connection due to administrator command/, 'after one that did not');
is(migration_state($node, 't'), 'live', 'shell: live');
is(sql(sprintf $done, $last), $before, 'what the first had copied was not copied again');
is(sql('SELECT sum(rows) FROM migrate_ext.batches'), sql('SELECT rows_done FROM migrate_ext.progress'), 'each row once');
is(rows_that_differ($node, 'app.t', 'app.t_new'), 0, 'both tables are equal');
no_workers($node, 'shell');

sql_as('app', q{CALL migrate_ext.finalize('t')});
is(migration_state($node, 't'), 'swapped', 'shell: swapped');

# a run of what is live or swapped looks after it
is(sql("SELECT to_regclass('app.t_p50000')"), '', 'two partitions ahead');
sql('INSERT INTO app.t VALUES (45000)');
sql_as('app', q{CALL migrate_ext.run('t')});
is(sql("SELECT to_regclass('app.t_p50000')"), 'app.t_p50000', 'a call while swapped keeps partitions ahead');
sql_as('app', q{CALL migrate_ext.undo('t')});
is(sql('SELECT count(*) FROM app.t'), 20001, 'undo');
sql_as('app', "CALL migrate_ext.$_('t')") for qw(finalize complete);
sql_as('app', q{CALL migrate_ext.run('t')});
is(migration_state($node, 't'), 'completed', 'shell: completed, and a call more is none');
$node->stop;

# ---------------------------------------------------------------------------------------------
# pg_cron, by now

ok(wait_state($cron, 't', 'swapped'), 'cron: swapped');
for my $server ($cron, $inside)
{
	my $name = "README's job, " . $server->name;
	ok(wait_state($server, 'visits', 'live'), "$name: live");
	ok(poll_query($server, q{SELECT count(*) > 0 FROM cron.job_run_details WHERE command = $$CALL migrate_ext.run('visits')$$ AND status = 'succeeded'}),
		"$name: succeeds");
	is(rows_that_differ($server, 'app.visits', 'app.visits_new'), 0, "$name: both tables are equal");
}
$inside->stop;
no_workers($cron, 'cron');
is($cron->safe_psql('postgres', 'SELECT count(*) FROM app.t'), 20000, 'cron: all rows are there');
is($cron->safe_psql('postgres', q{SELECT relkind FROM pg_class WHERE oid = 'app.t'::regclass}), 'p', 'cron: partitioned');
is($cron->safe_psql('postgres', q{SELECT DISTINCT username FROM cron.job_run_details WHERE status = 'succeeded'}), 'app', 'cron: by the owner of the table');
my ($unschedule) = $README =~ /`(SELECT cron\.unschedule\([^`]*\))`/;
is($cron->safe_psql('postgres', "SET ROLE app; $unschedule"), 't', "README's job is ended");
$cron->stop;
done_testing();
