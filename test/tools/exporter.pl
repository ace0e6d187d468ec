# monitoring/: Prometheus scrapes Debian's exporter while a migration runs, by a role that has nothing but pg_monitor; what it
# gets is what the views say, each metric stands on the dashboard and nothing else, and each expression there has an answer.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $MONITORING = "$FindBin::RealBin/../../monitoring";
my $DEADLINE_S = $PostgreSQL::Test::Utils::timeout_default;

# A name that labels must escape.
my $NAME = 'the "first" \\ one';
my $M = "'$NAME'";

my @programs;
my $folder = PostgreSQL::Test::Utils::tempdir;
my $http = HTTP::Tiny->new(timeout => 10);
my %address = map { $_ => '127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() } qw(exporter prometheus);

# ---------------------------------------------------------------------------------------------
# Programs

sub start_program
{
	my ($name, @command) = @_;
	my $run = IPC::Run::start(\@command, '<', \undef, '>', "$folder/$name.out", '2>', "$folder/$name.err");
	push @programs, $run;
	until_true("$name answers", sub { die slurp_file("$folder/$name.err") if !still_running($run); get($name, '/') });
	return;
}

END
{
	my $exit_code = $?;
	eval { $_->kill_kill } for @programs;
	$? = $exit_code;
}

# The page, or nothing.
sub get
{
	my ($name, $path) = @_;
	my $response = $http->get("http://$address{$name}$path");
	return $response->{success} ? $response->{content} : undef;
}

# until_true(name, what): an assertion that it comes true in time
sub until_true
{
	my ($name, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $deadline = time + $DEADLINE_S;
	usleep(100_000) until $what->() || time > $deadline;
	return ok(time <= $deadline, $name);
}

# ---------------------------------------------------------------------------------------------
# What is scraped, by the exporter's own page and by Prometheus's answers

# Our samples of a page: "name label=value ..." => value; labels in their order, without the server's
sub samples
{
	my ($page) = @_;
	my %sample;
	for my $line (grep { /^migrate_ext/ } split /\n/, $page)
	{
		my ($name, $labels, $value) = $line =~ /^(\w+)\{(.*)\} (\S+)$/ or die "no sample: $line\n";
		my %label = $labels =~ /(\w+)="((?:[^"\\]|\\.)*)"/g;
		delete $label{server};
		s/\\(.)/$1/g for values %label;
		$sample{ join ' ', $name, map { "$_=$label{$_}" } sort keys %label } = $value;
	}
	return \%sample;
}

sub scrape
{
	my $page = get('exporter', '/metrics') // die "no metrics\n";
	like($page, qr/^pg_exporter_last_scrape_error 0$/m, 'a scrape without an error');
	return samples($page);
}

# Prometheus's answer to an expression
sub ask
{
	my ($expr) = @_;
	my $answer = $http->post_form("http://$address{prometheus}/api/v1/query", { query => $expr });
	return decode_json($answer->{content})->{data}{result} // die "$expr: $answer->{content}\n";
}

# values_ok(name, metric => SQL, ...): what is scraped is what the views say; "metric a=b" has labels besides those that all have
sub values_ok
{
	my ($name, %sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sample = scrape();
	for my $metric (sort keys %sql)
	{
		my ($plain, @labels) = split / /, $metric;
		my $key = join ' ', "migrate_ext_$plain", sort 'datname=postgres', "migration=$NAME", @labels;
		my $expected = sql("SELECT coalesce(($sql{$metric})::float8, 'NaN')");
		my $value = $sample->{$key};
		ok(defined $value && ($value eq $expected || abs($value - $expected) <= 1e-6 * abs $expected), "$name: $metric is $expected")
		  or diag("scraped: ", $value // join("\n", 'nothing under that name, but', sort keys %$sample));
	}
	return;
}

sub column
{
	my ($view, $expression, $where) = @_;
	return "SELECT $expression FROM migrate_ext.$view WHERE migration = $M" . ($where ? " AND $where" : '');
}

# ---------------------------------------------------------------------------------------------
# A migration under their eyes

$node = new_node('main');
sql(<<~"SQL");
	CREATE ROLE exporter LOGIN IN ROLE pg_monitor;
	CREATE TABLE t (id integer PRIMARY KEY, k integer, pad text);
	INSERT INTO t SELECT i, i % 100, repeat('x', 500) FROM generate_series(1, 20000) i;
	INSERT INTO t VALUES (20001, 1, 'none');
	SELECT migrate_ext.partition_by_range('t', 'k', 25, start => 0, stop => 50, headroom => 0, migration => $M,
		options => '{"columns": {"pad": "s.pad || CASE s.pad WHEN ''none'' THEN 1 / (s.id - s.id) END"}, "reverse_columns": {"pad": "s.pad"}}');
	SELECT migrate_ext.configure($M, 'throttle_rows_per_second', '600'), migrate_ext.configure($M, 'batch_target_ms', '50');
	SQL

{
	local $ENV{DATA_SOURCE_NAME} = sprintf 'host=%s port=%d user=exporter dbname=postgres', $node->host, $node->port;
	start_program('exporter', 'prometheus-postgres-exporter', "--web.listen-address=$address{exporter}",
		"--extend.query-path=$MONITORING/postgres_exporter.yaml");
}
append_to_file("$folder/prometheus.yaml", <<~"YAML");
	global: {scrape_interval: 1s, evaluation_interval: 1s}
	rule_files: [$MONITORING/alerts.yaml]
	scrape_configs: [{job_name: postgres, static_configs: [{targets: ['$address{exporter}']}]}]
	YAML
start_program('prometheus', 'prometheus', "--config.file=$folder/prometheus.yaml", "--storage.tsdb.path=$folder/data",
	"--web.listen-address=$address{prometheus}");

values_ok('created',
	'state_active state=created' => 'SELECT 1',
	'state_active state=copying' => 'SELECT 0',
	'copied_rows_total'          => 'SELECT 0',
	'live_timestamp_seconds'     => "SELECT 'NaN'",
	'created_timestamp_seconds'  => column('migrations', 'extract(epoch FROM created_at)'));

sql("SELECT migrate_ext.start($M)");
ok(poll_query($node, "SELECT count(*) > 2 FROM migrate_ext.batches WHERE state = 'done'"), 'copying');
# only then can it be told, and changes as it goes: scraped while it stands still
my ($before, $sample, $after);
until_true('copying: it can be told how far the time left may be off', sub {
	($before, $sample, $after) = (sql(column('progress', 'extract(epoch FROM eta_error)::float8')), samples(get('exporter', '/metrics')),
		sql(column('progress', 'extract(epoch FROM eta_error)::float8')));
	$before ne '' && $before eq $after;
});
is($sample->{"migrate_ext_eta_error_seconds datname=postgres migration=$NAME"}, $after, 'copying: eta_error_seconds');
until_true('Prometheus sees that it is slowed down', sub { @{ ask('migrate_ext_wait_active{reason="pacing"} == 1') } });
sql("SELECT migrate_ext.pause($M, 'to be looked at')");
ok(poll_query($node, "SELECT workers <= 1 AND NOT EXISTS (SELECT FROM migrate_ext.batches WHERE state = 'running') FROM migrate_ext.progress"),
	'paused');
sql("UPDATE t SET pad = 'changed' WHERE id <= 10");
values_ok('paused',
	'state_active state=copying' => 'SELECT 1',
	'paused'                     => 'SELECT 1',
	'wait_active reason=resume'  => 'SELECT 1',
	'wait_active reason=worker'  => 'SELECT 0',
	'wait_active reason=pacing'  => 'SELECT 0',
	'progress_ratio'             => column('progress', 'percent / 100'),
	'copied_rows_total'          => column('progress', 'rows_done'),
	'expected_rows'              => column('progress', 'rows_total'),
	'copied_bytes_total'         => column('progress', 'bytes_done'),
	'expected_bytes'             => column('progress', 'bytes_total'),
	'log_entries'                => column('progress', 'log_entries'),
	'eta_seconds'                => column('progress', 'extract(epoch FROM eta)'),
	'eta_error_seconds'          => column('progress', 'extract(epoch FROM eta_error)'),
	'work_batches state=done'    => column('batches', 'count(*)', q{state = 'done'}),
	'events_total kind=paused'   => 'SELECT 1',
	'events_total kind=refused'  => 'SELECT 0',
	'events_total kind=throttled' => column('events', 'count(*)', q{kind = 'throttled'}));
cmp_ok(sql(column('progress', 'least(rows_done, log_entries)')), '>', 0, 'paused: with something to tell');
until_true('the alert of a pause is due', sub { @{ ask('ALERTS{alertname="MigrateExtPaused", alertstate="pending"}') } });
sql("SELECT migrate_ext.configure($M, 'throttle_rows_per_second', '0'), migrate_ext.resume($M)");
wait_live($node, $NAME);

my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN');
$blocker->query_safe('SELECT count(*) FROM t');
my $finalize = begin_call($node, qq{CALL migrate_ext.finalize($M, '60 s', '{"accept_failed": true}')});
ok(poll_query($node, q{SELECT count(*) > 0 FROM migrate_ext.events WHERE kind = 'lock_attempt'}), 'somebody is in the way of the swap');
$blocker->query_safe('COMMIT');
$blocker->quit;
is(end_call($finalize), '', 'finalize');
values_ok('swapped',
	'state_active state=swapped'  => 'SELECT 1',
	'state_active state=copying'  => 'SELECT 0',
	'progress_ratio'              => 'SELECT 1',
	'eta_seconds'                 => 'SELECT 0',
	'copied_rows_total'           => column('progress', 'rows_done'),
	'failed_rows'                 => 'SELECT 1',
	'default_rows'                => 'SELECT count(*) FROM t_default',
	'skipped_rows'                => 'SELECT 0',
	'workers'                     => column('progress', 'workers'),
	'error'                       => column('migrations', 'count(last_error)'),
	'swapped_timestamp_seconds'   => column('migrations', 'extract(epoch FROM swapped_at)'),
	'completed_timestamp_seconds' => "SELECT 'NaN'",
	'verified_timestamp_seconds'  => column('verifications', 'extract(epoch FROM max(verified_at))', 'complete'),
	'ranges'                      => column('verified_ranges', 'count(*)'),
	'verified_ranges'             => column('verified_ranges', 'count(*)', 'verified'),
	'verification_rows result=checked' => 'SELECT 20000',
	'verification_rows result=missing' => 'SELECT 0',
	'verification_rows result=failed'  => 'SELECT 1',
	'swap_runs_total direction=finalize'        => 'SELECT 1',
	'swap_runs_total direction=undo'            => 'SELECT 0',
	'swap_attempts_total direction=finalize'    => column('swaps', 'attempts'),
	'swap_wait_seconds_total direction=finalize' => column('swaps', 'wait_ms / 1000'),
	'swap_hold_seconds_total direction=finalize' => column('swaps', 'hold_ms / 1000'),
	'swap_last_wait_seconds direction=finalize' => column('swaps', 'wait_ms / 1000'),
	'swap_last_hold_seconds direction=finalize' => column('swaps', 'hold_ms / 1000'),
	'swap_last_hold_seconds direction=undo'     => "SELECT 'NaN'",
	'events_total kind=lock_attempt'            => column('events', 'count(*)', q{kind = 'lock_attempt'}));

# ---------------------------------------------------------------------------------------------
# What is scraped, what is shown

# The lines are those that a linter of Prometheus's reads.
my $page = join '', grep { /^(?:# (?:HELP|TYPE) )?migrate_ext/ } map { "$_\n" } split /\n/, get('exporter', '/metrics');
my ($out, $err) = ('', '');
IPC::Run::run([qw(promtool check metrics)], \$page, \$out, \$err);
is($out . $err, '', 'metrics are named and typed as Prometheus wants it');

my %scraped = map { /^(\w+)/ => 1 } keys %{ samples($page) };
my $dashboard = decode_json(slurp_file("$MONITORING/grafana.json"));
my @panels = grep { $_->{type} ne 'row' } @{ $dashboard->{panels} };
my @expressions = map { my $panel = $_; map { [ $panel->{title}, $_->{expr} ] } @{ $panel->{targets} } } @panels;
my %shown = map { $_ => 1 } map { $_->[1] =~ /(migrate_ext_\w+)/g } @expressions;
is(join("\n", sort keys %shown), join("\n", sort keys %scraped), 'what is on the dashboard is what is scraped');
is_deeply([ grep { !/^migrate_ext_paused/ } map { ref $_->{query} ? $_->{query}{query} =~ /\((\w+)/ : () } @{ $dashboard->{templating}{list} } ],
	[], 'the lists to choose from are of a metric that is always there');

my %id = map { $_->{id} => 1 } @{ $dashboard->{panels} };
is(scalar keys %id, scalar @{ $dashboard->{panels} }, 'each panel has a number of its own');
my (%taken, @overlap);
for my $panel (@{ $dashboard->{panels} })
{
	my ($x, $y, $w, $h) = @{ $panel->{gridPos} }{qw(x y w h)};
	push @overlap, $panel->{title} if $x + $w > 24 || grep { $taken{$_}++ } map { my $row = $_; map { "$row $_" } $x .. $x + $w - 1 } $y .. $y + $h - 1;
}
is_deeply(\@overlap, [], 'no panel lies over another, or beyond the edge');

# What holds at the end has an answer: but for what waits for nothing, and what didn't happen within the last minute.
for my $expression (@expressions)
{
	my ($title, $expr) = @$expression;
	$expr =~ s/"\$(?:datname|migration)"/".*"/g;
	$expr =~ s/\$__rate_interval/5m/g;
	unlike($expr, qr/\$/, "$title: no other variable");
	until_true("$title: Prometheus has an answer", sub { my $rows = ask($expr); @$rows || $title eq 'What it waits for' });
}

# ---------------------------------------------------------------------------------------------
# Alerts

my $groups = decode_json(get('prometheus', '/api/v1/rules'))->{data}{groups};
my @rules = map { @{ $_->{rules} } } @$groups;
is_deeply([ map { $_->{name} } grep { $_->{health} ne 'ok' } @rules ], [], 'all rules can be evaluated');
my %unknown = map { $_ => 1 } grep { !$scraped{$_} } map { $_->{query} =~ /(migrate_ext_\w+)/g } @rules;
is_deeply([ keys %unknown ], [], 'by metrics that there are');
until_true('a row that failed alerts', sub { @{ ask('ALERTS{alertname="MigrateExtRowsFail", alertstate="firing"}') } });
is(scalar @{ ask('ALERTS{alertname="MigrateExtPaused"}') }, 0, 'the pause is over');

# ---------------------------------------------------------------------------------------------
# No migration, and no extension

sql("CALL migrate_ext.complete($M)");
values_ok('completed',
	'state_active state=completed' => 'SELECT 1',
	'completed_timestamp_seconds'  => column('migrations', 'extract(epoch FROM completed_at)'));
sql("SELECT migrate_ext.forget($M)");
is_deeply(scrape(), {}, 'forgotten: nothing is told');
sql('DROP EXTENSION migrate_ext');
like(get('exporter', '/metrics'), qr/^pg_exporter_last_scrape_error 1$/m, 'without the extension a scrape says so');

$_->kill_kill for splice @programs;
$node->stop;
done_testing();
