# report() in a browser: its figures and names, wide and as narrow as a phone, light and dark.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use File::Path qw(remove_tree);
use IPC::Run;
use MigrateTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $M = q{'<b>m & "co"</b>'};

# A page with all figures: copied in several batches, changed meanwhile, swapped there and back.
$node = new_node('main');
sql(<<~"SQL");
	CREATE TABLE "<script>" (id integer PRIMARY KEY, pad text);
	INSERT INTO "<script>" SELECT i, repeat('x', 500) FROM generate_series(1, 10000) i;
	SELECT migrate_ext.partition_by_hash('"<script>"', 'id', 2, migration => $M);
	SELECT migrate_ext.configure($M, 'throttle_rows_per_second', '4000'), migrate_ext.configure($M, 'batch_target_ms', '50'), migrate_ext.start($M);
	SQL
ok(poll_query($node, "SELECT count(*) > 2 FROM migrate_ext.batches WHERE state = 'done'"), 'copying');
sql(qq{UPDATE "<script>" SET pad = 'changed' WHERE id % 7 = 0});
wait_live($node, '<b>m & "co"</b>');
sql("CALL migrate_ext.$_($M)") for qw(finalize undo);
my $page = sql("SELECT migrate_ext.report($M)");

my $folder = PostgreSQL::Test::Utils::tempdir;

# What a script on the page finds comes back as its title.
my $PROBE = <<~'JS';
	<script>document.title = 'found ' + JSON.stringify({
		figures: document.querySelectorAll('figure svg').length,
		lines: [...document.querySelectorAll('svg .line')].filter(p => p.getTotalLength() > 100).length,
		rows: document.querySelectorAll('#swaps tbody tr').length,
		heading: document.querySelector('h1').textContent,
		scripts: document.scripts.length,
		wide: document.documentElement.scrollWidth > window.innerWidth,
		dark: getComputedStyle(document.body).backgroundColor === 'rgb(20, 25, 31)' })</script></body>
	JS

sub browse
{
	my ($width, @options) = @_;
	my ($out, $err) = ('', '');
	my $image = "$folder/page.png";
	unlink $image;
	local $ENV{HOME} = $folder;
	my @command = (qw(chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
		--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars), "--user-data-dir=$folder/profile", "--window-size=$width,900", @options);
	IPC::Run::run([ @command, '--dump-dom', "file://$folder/page.html" ], \undef, \$out, \$err, IPC::Run::timeout(120));
	IPC::Run::run([ @command, "--screenshot=$image", "file://$folder/page.html" ], \undef, \my $none, \$err, IPC::Run::timeout(120));
	return ($out =~ /<title>found (.*?)<\/title>/s ? $1 : $err, -s $image // 0);
}

$page =~ s/<\/body>/$PROBE/;
append_to_file("$folder/page.html", $page);
for my $case ([ 1200, 'wide' ], [ 500, 'narrow' ], [ 1200, 'dark', '--blink-settings=preferredColorScheme=0' ])
{
	my ($width, $name, @options) = @$case;
	my ($found, $size) = browse($width, @options);
	like($found, qr/"figures":3,"lines":2,"rows":2,"heading":"Migration &lt;b&gt;m &amp; \\"co\\"&lt;\/b&gt;","scripts":1/, "$name: figures, lines and names");
	like($found, $name eq 'dark' ? qr/"dark":true/ : qr/"wide":false,"dark":false/, "$name: fits, in its colours");
	cmp_ok($size, '>', 10_000, "$name: a screenshot");
}
remove_tree("$folder/profile");

$node->stop;
done_testing();
