# What preflight finds out from the server around it: statements of others, a count that outlives a crash;
# and what it costs: it waits for nobody and reads a bounded number of blocks, as does what it relies on.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

$node = new_node('main', conf => "shared_preload_libraries = 'pg_stat_statements'\n");

# What preflight tells a role, of one object and problem; never later than in a few seconds.
sub told
{
	my ($role, $object, $problem) = @_;
	return sql_as($role, "SET statement_timeout = '20 s'; SET lock_timeout = '1 ms';
		SELECT severity || ': ' || problem FROM migrate_ext.preflight('orders')
		WHERE object ~ '$object' AND problem ~ '$problem' ORDER BY 1");
}

my $LEFT = 'left to the fill trigger';

sql("CREATE ROLE shop LOGIN; CREATE ROLE web LOGIN; GRANT CREATE ON SCHEMA public TO shop");
sql_as('shop', "CREATE TABLE customers (id int PRIMARY KEY, region int);
	INSERT INTO customers SELECT i, i % 4 FROM generate_series(1, 100) i;
	CREATE TABLE orders (id int PRIMARY KEY, customer int, filler text);
	GRANT SELECT, INSERT, UPDATE ON orders TO web;
	INSERT INTO orders SELECT i, i % 100 + 1, repeat('x', 1000) FROM generate_series(1, 20000) i");
sql_as('shop', "SELECT migrate_ext.add_sharding_key('orders', 'region', 'int',
		'(SELECT c.region FROM customers c WHERE c.id = s.customer)');
	SELECT migrate_ext.partition_by_hash('orders', 'region', 4)");
sql("VACUUM ANALYZE orders");

# A session that inserts without the key waits for no other that has done so, and not for its end either.
my $open = open_session($node, extra_params => [ '-U', 'web' ]);
$open->query_safe('BEGIN');
$open->query_safe('INSERT INTO orders (id, customer) VALUES (30001, 1)');
sql_as('web', "SET lock_timeout = '1 ms'; INSERT INTO orders (id, customer) VALUES (30002, 1)");
$open->query_safe('COMMIT');
$open->quit;
like(told('shop', 'region', $LEFT), qr/^warning: .*: 2 rows of about \d+ inserted, the last one at /,
	'sessions that leave out the key are counted, and do not wait for each other');

# Statements: what the caller may see of them.
sql('CREATE EXTENSION pg_stat_statements');
sql_as('web', 'INSERT INTO orders (id, customer, region) VALUES (30003, 1, 1) ON CONFLICT (id) DO NOTHING');
sql_as('shop', "INSERT INTO orders (id, customer, region) VALUES (30003, 1, 1)\n  ON CONFLICT (id) DO UPDATE SET customer = 2");
is(told('shop', '^statement .INSERT', '42P10'), 'warning: has ON CONFLICT (id), which fails after the swap with 42P10: there the key is (id, region)',
	'an owner is shown his own statement');
sql('GRANT pg_read_all_stats TO shop');
is(scalar(split /\n/, told('shop', '^statement .INSERT', '42P10')), 2, 'and others with the right to');
is(told('shop', '^statement', '.') =~ tr/\n//, 1, 'but no statement that is none of these');

sql_as('web', 'SELECT customer FROM orders WHERE id = 7');
sql_as('web', 'UPDATE orders SET region = 3 WHERE id = 7 AND region = 3');
sql_as('web', 'SELECT count(*) FROM orders');
is(told('shop', '^statement', 'every partition'), 'warning: has a WHERE that does not name the partition key (region): it reads every partition after the swap',
	'nor one without WHERE, but one that looks for rows by something else than the key');
like(told('shop', '^statement', '40001'), qr/^warning: writes the partition key \(region\)[^\n]*$/, 'and one that moves rows');

# Blocks read: of 2,900, no more than are looked at.
sub blocks_read
{
	return sql("SELECT pg_stat_force_next_flush(); SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables WHERE relname = 'orders'");
}
my $before = blocks_read() =~ s/\s//gr;
my $all = $node->safe_psql('postgres', "SELECT problem FROM migrate_ext.preflight('orders'); SELECT pg_stat_force_next_flush()");
my $read = (blocks_read() =~ s/\s//gr) - $before;
note("$read blocks were read");
cmp_ok(sql("SELECT pg_relation_size('orders') / 8192"), '>', 2000, 'the table is larger');
cmp_ok($read, '>=', 256, 'rows are looked at');
cmp_ok($read, '<=', 256 + 32 + 1000, 'but not all of them');
like($all, qr/is given in all of the \d+ rows written since it was added, as far as they were looked for/, 'and it says so');

# Nobody is waited for.
my $holder = open_session($node);
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE orders IN ACCESS EXCLUSIVE MODE');
like(told('shop', '^rows', '.'), qr/^info: were not looked at/, 'where somebody holds the strongest lock, preflight says what it left out');
like(told('shop', 'region', $LEFT), qr/^warning/, 'and tells the rest');
$holder->query_safe('ROLLBACK');
$holder->quit;
is(told('shop', '^rows', '.'), '', 'which is looked at again');

# The time outlives a crash, the number doesn't and isn't told as none.
my ($time) = told('shop', 'region', $LEFT) =~ /the last one at (\S+ \S+)/;
restart_node($node, 'immediate');
is(told('shop', 'region', $LEFT),
	"warning: is left to the fill trigger by the application: rows whose number is not known, the last one at $time (since add_sharding_key, or the last reset of statistics)",
	'after a crash the time of the last one is still known');

# A counter that somebody took away is nobody's trouble, and the extension goes with all of them.
sql("ALTER EXTENSION migrate_ext DROP SEQUENCE migrate_ext.fill_1; DROP SEQUENCE migrate_ext.fill_1");
sql_as('web', 'INSERT INTO orders (id, customer) VALUES (30004, 1)');
is(sql('SELECT region FROM orders WHERE id = 30004'), '1', 'without a counter a key is filled all the same');
like(told('shop', 'region', 'filled by a trigger'), qr/^warning/, 'and preflight works');
sql("SELECT migrate_ext.add_sharding_key('customers', 'k', 'int', 's.region')");
sql('DROP EXTENSION migrate_ext CASCADE');
is(sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'fill\\_%'"), '0', 'DROP EXTENSION takes the counters with it');

done_testing();
