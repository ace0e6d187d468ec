# Much of everything: 100 columns, 30 indexes, 20 policies, 10 views, 64 partitions. For how long the swap
# holds its locks then is printed and never a failure.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

$node = new_node('main');

my $columns  = join ', ', map { "c$_ integer DEFAULT $_" } 1 .. 98;
my $indexes  = join '; ', map { "CREATE INDEX wide_i$_ ON wide (c$_, c" . ($_ + 1) . ')' } 1 .. 29;
my $policies = join '; ', map { "CREATE POLICY p$_ ON wide USING (c$_ >= 0)" } 1 .. 20;
my $views    = join '; ', map { "CREATE VIEW v$_ AS SELECT id, k, c$_ FROM wide WHERE c$_ > 0" } 1 .. 10;
sql("CREATE TABLE wide (id integer, k integer, $columns, PRIMARY KEY (id, k)); $indexes; $policies; $views;
	ALTER TABLE wide ENABLE ROW LEVEL SECURITY; GRANT SELECT ON wide TO PUBLIC;
	INSERT INTO wide (id, k) SELECT i, i FROM generate_series(1, 500) i");
my $description = description('wide');
sql("SELECT migrate_ext.partition_by_hash('wide', 'k', 64); SELECT migrate_ext.start('wide')");
wait_live($node, 'wide');
for my $direction (qw(finalize undo finalize))
{
	sql("CALL migrate_ext.$direction('wide')");
	described_ok('wide', $description, "$direction: the same hangs on the table");
}
is(sql('SELECT count(*) FROM v10'), '500', 'its views show its rows');
diag(sql("SELECT string_agg(format('%s held %s ms', direction, round(hold_ms::numeric, 1)), ', ' ORDER BY at) FROM migrate_ext.swaps"));

done_testing();
