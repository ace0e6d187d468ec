# What hangs on a table may change until the very moment of the swap: it follows all the same, or the swap
# waits or refuses, and nothing is ever left behind. What can't follow is told before.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

$node = new_node('main', conf => "wal_level = logical\n");

sub errors_of_preflight
{
	my ($migration) = @_;
	return sql_as('shop', "SELECT object || ' ' || problem FROM migrate_ext.preflight('$migration') WHERE severity = 'error' ORDER BY 1");
}

sub migrate
{
	my ($table, $how) = @_;
	sql_as('shop', "SELECT migrate_ext.$how");
	sql_as('shop', "SELECT migrate_ext.start('$table')");
	wait_live($node, $table);
	return;
}

sql(<<~'SQL');
	CREATE ROLE shop LOGIN;
	CREATE ROLE web LOGIN;
	CREATE ROLE stranger LOGIN;
	GRANT CREATE ON SCHEMA public TO shop, stranger;
	GRANT CREATE ON DATABASE postgres TO shop;
	CREATE EXTENSION btree_gist;
	SQL

# ---------------------------------------------------------------------------------------------
# What can't follow

sql_as('shop', <<~'SQL');
	CREATE TABLE refused (id integer PRIMARY KEY, k integer NOT NULL, v text, span int4range);
	INSERT INTO refused SELECT i, i % 4 FROM generate_series(1, 100) i;
	CREATE TABLE other (id integer PRIMARY KEY);
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	GRANT SELECT ON refused TO stranger;
	SQL
migrate('refused', q{partition_by_hash('refused', 'k', 2)});
is(errors_of_preflight('refused'), '', 'nothing stands in the way');

# [what it is, whose, how it is made, and undone, what preflight says]
my @REFUSED = (
	[ 'an exclusion constraint', 'shop', 'ALTER TABLE refused ADD CONSTRAINT apart EXCLUDE USING gist (span WITH &&)',
		'ALTER TABLE refused DROP CONSTRAINT apart', qr/apart.* can not be had on a partitioned table/ ],
	[ 'a row trigger with a transition table', 'shop', 'CREATE TRIGGER tr AFTER INSERT ON refused REFERENCING NEW TABLE AS n FOR EACH ROW EXECUTE FUNCTION nothing()',
		'DROP TRIGGER tr ON refused', qr/trigger tr/ ],
	[ 'a foreign key that is not valid', 'shop', 'ALTER TABLE refused ADD CONSTRAINT late FOREIGN KEY (k) REFERENCES other NOT VALID',
		'ALTER TABLE refused DROP CONSTRAINT late', qr/constraint late/ ],
	[ 'a mark of CLUSTER', 'shop', 'ALTER TABLE refused CLUSTER ON refused_pkey', 'ALTER TABLE refused SET WITHOUT CLUSTER', qr/refused_pkey.*cluster/ ],
	[ 'a child', 'shop', 'CREATE TABLE child () INHERITS (refused)', 'DROP TABLE child', qr/child:? inherits/ ],
	[ 'a parent', 'shop', 'CREATE TABLE parent (id integer); ALTER TABLE refused INHERIT parent', 'ALTER TABLE refused NO INHERIT parent; DROP TABLE parent', qr/inherits from .*parent/ ],
	[ 'a column of its row type', 'shop', 'CREATE TABLE holds (r refused)', 'DROP TABLE holds', qr/column r of table .*holds/ ],
	[ 'membership of an extension', 'postgres', 'ALTER EXTENSION btree_gist ADD TABLE refused', 'ALTER EXTENSION btree_gist DROP TABLE refused', qr/belongs to extension btree_gist/ ],
	[ 'a publication of all tables', 'postgres', 'CREATE PUBLICATION everything FOR ALL TABLES', 'DROP PUBLICATION everything', qr/publication everything/ ],
	[ 'a publication of partitions', 'shop', 'CREATE PUBLICATION leaves FOR TABLE refused', 'DROP PUBLICATION leaves', qr/publication leaves/ ],
	[ 'a publication of the schema', 'postgres', 'CREATE PUBLICATION whole FOR TABLES IN SCHEMA public', 'DROP PUBLICATION whole', qr/publication whole/ ],
);

# views and functions of others follow, whoever owns them: they stay what they are
sql_as('stranger', 'CREATE VIEW theirs AS SELECT k FROM refused; CREATE FUNCTION theirs() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM refused; END');
my $refused = description('refused');
for my $case (@REFUSED)
{
	my ($what, $role, $make, $unmake, $like) = @$case;
	$role = sql('SELECT CURRENT_USER') if $role eq 'postgres';
	sql_as($role, $make);
	like(errors_of_preflight('refused'), $like, "$what is told before the swap");
	my ($exit, undef, $err) = try_as('shop', "\\set VERBOSITY verbose\nCALL migrate_ext.finalize('refused', '20 s')");
	ok($exit != 0 && $err =~ /ERROR:  MX003/ && $err =~ $like, "$what keeps finalize from swapping") || diag("exit $exit, $err");
	sql_as($role, $unmake);
}
described_ok('refused', $refused, 'nothing has happened to it');
is(errors_of_preflight('refused'), '', 'and nothing is in the way any more');
sql_as('shop', "CALL migrate_ext.finalize('refused')");
described_ok('refused', $refused, 'now it is swapped');
is(sql_as('stranger', 'SELECT theirs() = count(*) FROM theirs'), 't', "what strangers have made works, with their rights");
sql_as('shop', 'REVOKE SELECT ON refused FROM stranger');
my (undef, undef, $err) = try_as('stranger', 'SELECT count(*) FROM theirs');
like($err, qr/permission denied for table refused/, 'and no more than these');
sql_as('shop', 'GRANT SELECT ON refused TO stranger');

# ---------------------------------------------------------------------------------------------
# What is made in the last moment

# The swap has looked at everything; now it is held before it takes its locks.
sub late
{
	my ($what, $make, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $direction = migration_state($node, 'late') eq 'live' ? 'finalize' : 'undo';
	my $point = hold_point($node, 'swap_before_locks');
	my $call = begin_call($node, "CALL migrate_ext.$direction('late')", extra_params => [ '-U', 'shop' ]);
	wait_point($point);
	sql_as('shop', $make);
	my $description = description('late');
	release_point($point);
	is(end_call($call), '', "$what: $direction ends");
	is(migration_state($node, 'late'), $direction eq 'finalize' ? 'swapped' : 'live', "$what: $direction is done");
	return described_ok('late', $description, "$what follows");
}

sql_as('shop', <<~'SQL');
	CREATE TABLE late (id integer, k integer NOT NULL, v text, PRIMARY KEY (id, k));
	INSERT INTO late SELECT i, i % 4, 'v' FROM generate_series(1, 100) i;
	SQL
migrate('late', q{partition_by_hash('late', 'k', 4)});
late('a view', 'CREATE VIEW late_view AS SELECT * FROM late');
late('a view made while swapped', 'CREATE VIEW late_view_2 AS SELECT k FROM late_view JOIN late USING (id, k)');
late('a function', 'CREATE FUNCTION late_function() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM late; END');
late('a writing function', 'CREATE FUNCTION late_insert() RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO late VALUES (1000, 1); END');
late('a grant', 'GRANT SELECT ON late TO web; GRANT UPDATE (v) ON late TO stranger');
late('another grant, and one taken away', 'REVOKE SELECT ON late FROM web; GRANT INSERT ON late TO PUBLIC');
late('a policy', 'ALTER TABLE late ENABLE ROW LEVEL SECURITY; CREATE POLICY late_policy ON late USING (k > 0)');

is(errors_of_preflight('late'), '', 'nothing is in the way');
sql_as('shop', "CALL migrate_ext.verify('late')");
is(rows_that_differ($node, 'late', migration_state($node, 'late') eq 'live' ? 'late_new' : 'late_orig'), '0', 'both tables are equal');

done_testing();
