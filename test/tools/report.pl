# report() in a browser: its figures and names, wide and as narrow as a phone, light and dark.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use File::Path qw(remove_tree);
use IPC::Run;
use JSON::PP;
use MigrateTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Names that are HTML, SQL and a script.
my $NAME = q{<script>alert("1")</script>'; DROP TABLE x; --&};
my $MIGRATION = q{<b>m & "co"</b>};
my $M = "'$MIGRATION'";

# A page with all figures: copied in several batches, changed meanwhile, swapped there and back.
$node = new_node('main');
my $table = sql(qq{SELECT format('%I', \$n\$$NAME\$n\$)});
sql(<<~"SQL");
	CREATE TABLE $table (id integer PRIMARY KEY, pad text);
	INSERT INTO $table SELECT i, repeat('x', 500) FROM generate_series(1, 10000) i;
	SELECT migrate_ext.partition_by_hash(\$t\$$table\$t\$, 'id', 2, migration => $M);
	SELECT migrate_ext.configure($M, 'throttle_rows_per_second', '4000'), migrate_ext.configure($M, 'batch_target_ms', '50'), migrate_ext.start($M);
	SQL
ok(poll_query($node, "SELECT count(*) > 2 FROM migrate_ext.batches WHERE state = 'done'"), 'copying');
sql(qq{UPDATE $table SET pad = 'changed' WHERE id % 7 = 0});
wait_live($node, $MIGRATION);
sql("CALL migrate_ext.$_($M)") for qw(finalize undo);
my $page = sql("SELECT migrate_ext.report($M)");

my $folder = PostgreSQL::Test::Utils::tempdir;

# What a script on the page finds becomes its title.
my $PROBE = <<~'JS';
	<script>document.title = 'found ' + JSON.stringify({
		figures: document.querySelectorAll('figure svg').length,
		lines: [...document.querySelectorAll('svg .line')].filter(p => p.getTotalLength() > 100).length,
		rows: document.querySelectorAll('#swaps tbody tr').length,
		heading: document.querySelector('h1').textContent,
		table: document.querySelector('.lead').textContent,
		renamed: [...document.querySelectorAll('#carried td')].map(td => td.textContent).filter(text => text.startsWith('<')).sort()[0],
		scripts: document.scripts.length,
		bold: document.querySelectorAll('b:not(#figures b)').length,
		width: window.innerWidth,
		beyond: Math.max(0, document.documentElement.scrollWidth - window.innerWidth),
		dark: getComputedStyle(document.body).backgroundColor === 'rgb(20, 25, 31)' })</script></body>
	JS

# A window has a least width of 500; a frame in it hasn't.
my $FRAME = <<~'HTML';
	<!DOCTYPE html><body style="margin: 0"><iframe src="page.html" style="border: 0" width="%d" height="900"></iframe>
	<script>onload = () => document.title = frames[0].document.title</script></body>
	HTML

# What is found on the page at that width, and the size of a screenshot
sub browse
{
	my ($width, @options) = @_;
	my ($out, $err) = ('', '');
	my ($frame, $image) = map { "$folder/$_" } qw(frame.html page.png);
	unlink $frame, $image;
	append_to_file($frame, sprintf $FRAME, $width);
	local $ENV{HOME} = $folder;
	my @command = (qw(chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
		--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --allow-file-access-from-files),
		"--user-data-dir=$folder/profile", "--window-size=$width,900", @options);
	IPC::Run::run([ @command, '--dump-dom', "file://$frame" ], \undef, \$out, \$err, IPC::Run::timeout(120));
	IPC::Run::run([ @command, "--screenshot=$image", "file://$frame" ], \undef, \my $none, \$err, IPC::Run::timeout(120));
	my ($found) = $out =~ /<title>found (.*?)<\/title>/s or die "nothing found: $out\n$err\n";
	my %character = (lt => '<', gt => '>', amp => '&');
	return (decode_json($found =~ s/&(lt|gt|amp);/$character{$1}/gr), -s $image // 0);
}

$page =~ s/<\/body>/$PROBE/;
append_to_file("$folder/page.html", $page);
for my $case ([ 1200, 'wide' ], [ 360, 'phone' ], [ 1200, 'dark', '--blink-settings=preferredColorScheme=0' ])
{
	my ($width, $name, @options) = @$case;
	my ($found, $size) = browse($width, @options);
	like(delete $found->{table}, qr/^of (?:public\.)?\Q$table\E, owner /, "$name: the table's name, letter by letter");
	is_deeply($found, {
			figures => 3, lines => 2, rows => 2,
			heading => "Migration $MIGRATION",
			renamed => $NAME,
			scripts => 1, bold => 0,
			width => $width, beyond => 0,
			dark => $name eq 'dark' ? JSON::PP::true : JSON::PP::false },
		"$name: figures and names, nothing made of those, and all fits") or diag(encode_json($found));
	cmp_ok($size, '>', 10_000, "$name: a screenshot");
}
remove_tree("$folder/profile");

$node->stop;
done_testing();
