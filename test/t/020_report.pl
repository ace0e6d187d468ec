# report(): what is on the page, whatever things are called, at each state. How it looks in a browser: test/tools/report.pl
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A name that is HTML, SQL and a script; as it comes out on a page.
my $NAME = q{<script>alert("1")</script>'; DROP TABLE x; --&};
my $SHOWN = '&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;; DROP TABLE x; --&amp;';
my $M = q{'<b>m & "co"</b>'};
my $M_SHOWN = '&lt;b&gt;m &amp; &quot;co&quot;&lt;/b&gt;';

$node = new_node('main');
my $table = sql(qq{SELECT format('%I', \$n\$$NAME\$n\$)});

# page(name, migration = $M): what every page has; its sections by name
sub page
{
	my ($name, $migration) = @_;
	my $shown = $migration // $M_SHOWN;
	$migration = $migration ? "'$migration'" : $M;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $page = sql("SELECT migrate_ext.report($migration)");
	like($page, qr/^<!DOCTYPE html>.*<\/html>$/s, "$name: a page");
	like($page, qr/<h1>Migration \Q$shown\E<\/h1>/, "$name: tells which");
	unlike($page, qr/<script|<b>m|DROP TABLE x; --&[^a]/, "$name: names are no HTML");
	unlike($page, qr/(?:src|href)\s*=|url\(|\@import|https?:/i, "$name: nothing comes from outside");
	my %section = $page =~ /<section id="(\w+)">(.*?)<\/section>/gs;
	my (%begin, %end);
	$begin{$_}++ for grep { $_ ne 'meta' } $page =~ /<(\w+)[^>]*(?<!\/)>/g;
	$end{$_}++ for $page =~ /<\/(\w+)>/g;
	is_deeply(\%begin, \%end, "$name: what begins ends");
	is(join(' ', sort keys %section), 'attempts carried failed log rate states swaps throttling verification', "$name: all sections");
	return ($page, \%section);
}

# ---------------------------------------------------------------------------------------------
# What is on it

sql(<<~"SQL");
	CREATE TABLE $table (id integer PRIMARY KEY, k integer, pad text);
	INSERT INTO $table SELECT i, i % 100, repeat('x', 500) FROM generate_series(1, 20000) i;
	CREATE VIEW "<u>v" AS SELECT id FROM $table;
	GRANT SELECT (k) ON $table TO pg_monitor;
	ALTER TABLE $table ADD CONSTRAINT "<s>ck" CHECK (k > -1) NOT VALID;
	CREATE TABLE other (id integer PRIMARY KEY, t integer CONSTRAINT "<i>fk" REFERENCES $table);
	SELECT migrate_ext.partition_by_hash(\$t\$$table\$t\$, 'id', 2, migration => $M);
	SQL
my ($page, $section) = page('created');
like($section->{states}, qr/class="state created"/, 'created: the time line has begun');
like($section->{swaps}, qr/have not been swapped/, 'created: no swap');
like($page, qr/id="next"><p>SELECT migrate_ext\.start/, 'created: what comes next');

sql("SELECT migrate_ext.configure($M, 'throttle_rows_per_second', '8000'), migrate_ext.configure($M, 'batch_target_ms', '50'); SELECT migrate_ext.start($M)");
ok(poll_query($node, "SELECT count(*) > 2 FROM migrate_ext.batches WHERE state = 'done'", 't', 60), 'copying');
sql("UPDATE $table SET k = k + 1 WHERE id % 7 = 0");
ok(poll_query($node, q{SELECT count(*) > 0 FROM migrate_ext.events WHERE kind = 'throttled'}, 't', 60), 'slowed down');
($page, $section) = page('copying');
like($section->{throttling}, qr/throttled/, 'copying: tells that it is slowed down');
sql("SELECT migrate_ext.configure($M, 'throttle_rows_per_second', '0')");
wait_live($node, '<b>m & "co"</b>');

# somebody in the way of the lock
my $blocker = open_session($node);
$blocker->query_safe("BEGIN");
$blocker->query_safe(qq{SELECT count(*) FROM $table});
my $finalize = begin_call($node, "CALL migrate_ext.finalize($M, '60 s')");
ok(poll_query($node, q{SELECT count(*) > 0 FROM migrate_ext.events WHERE kind = 'lock_attempt'}, 't', 60), 'an attempt has failed');
$blocker->query_safe('COMMIT');
$blocker->quit;
is(end_call($finalize), '', 'swapped when he has gone');
# written once the swap has been committed
poll_query($node, 'SELECT count(*) = 0 FROM migrate_ext.swaps WHERE hold_ms IS NULL') or die "how long it held the locks is not told\n";

($page, $section) = page('swapped');
like($section->{$_}, qr/<svg.*<path class="line" d="M[\d. L]+"/s, "swapped: a line of $_") for qw(rate log);
my $states = () = $section->{states} =~ /class="state /g;
is($states, 7, 'swapped: seven states on the time line');
like($section->{swaps}, qr/finalize<\/td><td>\d+<\/td><td>[\d.,]+<\/td><td>[\d.]+<\/td><td>.*pid/s, 'swapped: how long it held the locks, and who was in the way');
like($section->{attempts}, qr/lock_attempt/, 'swapped: the attempt');
like($section->{verification}, qr/<td>yes<\/td><td>20,000<\/td><td>0<\/td>/, 'swapped: what was compared');
like($section->{carried}, qr/&lt;i&gt;fk/, 'swapped: what has been carried over');
like($section->{carried}, qr/<li>ALTER TABLE [^<]*&lt;s&gt;ck/, 'swapped: by the statements that made it');
like($section->{carried}, qr/<li>view public\.&quot;&lt;u&gt;v&quot;<\/li>/, 'swapped: a view that moved');
like($section->{carried}, qr/<li>the privileges on column k<\/li>/, 'swapped: privileges');
like($section->{carried}, qr/\Q$SHOWN\E/, 'swapped: under its old and new names');
like($page, qr/migrate_ext\.complete/, 'swapped: what comes next');

sql("CALL migrate_ext.undo($M)");
like((page('undone'))[1]{swaps}, qr/undo/, 'undone: the way back');
sql("CALL migrate_ext.cancel($M)");
($page) = page('cancelled');
like($page, qr/id="next"><p>SELECT migrate_ext\.forget/, 'cancelled: nothing comes next');

# ---------------------------------------------------------------------------------------------
# One that is through, its original gone; one that fills a column and has neither target nor swap

sql(<<~'SQL');
	CREATE TABLE gone (id integer PRIMARY KEY);
	INSERT INTO gone SELECT generate_series(1, 1000);
	SELECT migrate_ext.partition_by_hash('gone', 'id', 2);
	SELECT migrate_ext.start('gone');
	CREATE TABLE filled (id integer PRIMARY KEY);
	INSERT INTO filled SELECT generate_series(1, 1000);
	SELECT migrate_ext.add_sharding_key('filled', 'k', 'integer', 's.id % 7');
	SELECT migrate_ext.backfill_key('filled', 'k');
	SELECT migrate_ext.start('filled');
	SQL
wait_live($node, qw(gone filled));
sql("CALL migrate_ext.finalize('gone'); CALL migrate_ext.complete('gone', drop_original => true)");
($page, $section) = page('completed', 'gone');
like($page, qr/completed<\/b><span>state.*<b>1,000<\/b><span>of 1,000 rows.*aria-valuenow="100[."]/s, 'completed: its figures');
like($section->{states}, qr/completed<\/td><td>[^<]*<\/td><td>0\.0 s<\/td>/, 'completed: the time line has ended');
like($section->{swaps}, qr/<td>finalize<\/td>/, 'completed: the swap');
like($page, qr/id="next"><p>SELECT migrate_ext\.forget/, 'completed: nothing comes next');

my $point = hold_point($node, 'report');
my $report = begin_call($node, "CREATE TABLE pages AS SELECT migrate_ext.report('gone') AS page");
ok(wait_point($point), 'on its way to the page');
sql("SELECT migrate_ext.forget('gone')");
release_point($point);
is(end_call($report), '', 'forgotten in between: no error');
is(sql('SELECT count(*), count(page) FROM pages'), '1|0', '... and no page');

($page, $section) = page('filled', 'filled');
like($page, qr/live<\/b><span>state.*<b>1,000<\/b><span>of 1,000 rows.*id="next"><p>CALL migrate_ext\.finalize/s, 'filled: its figures, and what comes next');
like($section->{swaps}, qr/have not been swapped/, 'filled: no swap');
sql("CALL migrate_ext.finalize('filled')");
like((page('filled to its end', 'filled'))[0], qr/completed<\/b><span>state/, 'filled to its end');

# ---------------------------------------------------------------------------------------------
# Who may, and what there is not

sql('CREATE ROLE stranger LOGIN; CREATE ROLE watcher LOGIN IN ROLE pg_monitor');
refused('stranger', "SELECT migrate_ext.report($M)", qr/permission denied for migration/, 'a stranger may not');
like(sql_as('watcher', "SELECT left(migrate_ext.report($M), 15)"), qr/^<!DOCTYPE html>/, 'who monitors may');
like(errors("SELECT migrate_ext.report('none')"), qr/migration "none" does not exist/, 'none of that name');
like(errors('SELECT migrate_ext.report(NULL)'), qr/must not be null/, 'NULL');

$node->stop;
done_testing();
