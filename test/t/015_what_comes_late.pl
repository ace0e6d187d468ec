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
		'ALTER TABLE refused DROP CONSTRAINT apart', qr/apart.* is not carried over to a partitioned table/ ],
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

sub direction
{
	return migration_state($node, 'late') eq 'live' ? 'finalize' : 'undo';
}

# Before the call, but after the leader has made everything ready: what would have to wait for the leader's locks.
sub before
{
	my ($what, $make) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $direction = direction();
	sql_as('shop', $make);
	my $description = description('late');
	sql_as('shop', "CALL migrate_ext.$direction('late')");
	return described_ok('late', $description, "$what follows at $direction");
}

# The swap has looked at everything; now it is held before it takes its locks.
sub late
{
	my ($what, $make, $role) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $direction = direction();
	my $point = hold_point($node, 'swap_before_locks');
	my $call = begin_call($node, "CALL migrate_ext.$direction('late')", extra_params => [ '-U', 'shop' ]);
	wait_point($point);
	sql_as($role // 'shop', $make);
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


# made, changed and taken away again, each step once before a finalize and once before an undo
my @LATE = (
	[ 'what is made', <<~'SQL' ],
		CREATE TRIGGER late_trigger BEFORE UPDATE ON late FOR EACH ROW EXECUTE FUNCTION nothing('a');
		CREATE TRIGGER late_off AFTER INSERT ON late EXECUTE FUNCTION nothing();
		CREATE POLICY late_changed ON late FOR SELECT TO web USING (v <> '');
		CREATE POLICY late_own ON late FOR DELETE USING (id = (SELECT max(o.id) FROM late o));
		ALTER TABLE late ADD CONSTRAINT late_check CHECK (id >= 0), ADD CONSTRAINT late_other FOREIGN KEY (k) REFERENCES other, FORCE ROW LEVEL SECURITY;
		CREATE STATISTICS late_statistics ON id, k FROM late;
		GRANT SELECT, DELETE ON late TO web WITH GRANT OPTION;
		GRANT UPDATE (k) ON late TO web;
		COMMENT ON TABLE late IS 'a table';
		COMMENT ON COLUMN late.v IS 'a column';
		COMMENT ON TRIGGER late_off ON late IS 'a trigger';
		COMMENT ON POLICY late_changed ON late IS 'a policy';
		COMMENT ON POLICY late_own ON late IS 'a policy that reads its table';
		COMMENT ON CONSTRAINT late_check ON late IS 'a check';
		COMMENT ON CONSTRAINT late_other ON late IS 'a foreign key';
		COMMENT ON STATISTICS late_statistics IS 'statistics';
		ALTER TABLE late ALTER v SET DEFAULT 'new', ALTER v SET STATISTICS 50;
		SQL
	[ 'what is changed', <<~'SQL' ],
		DROP TRIGGER late_trigger ON late;
		CREATE TRIGGER late_trigger AFTER UPDATE ON late FOR EACH ROW WHEN (NEW.k > 0) EXECUTE FUNCTION nothing('b');
		ALTER TABLE late DISABLE TRIGGER late_off;
		ALTER POLICY late_changed ON late TO stranger USING (v = 'x');
		ALTER POLICY late_own ON late USING (id = (SELECT min(o.id) FROM late o));
		ALTER TABLE late DROP CONSTRAINT late_check, ADD CONSTRAINT late_check CHECK (id > -1) NOT VALID, DROP CONSTRAINT late_other,
			ADD CONSTRAINT late_other FOREIGN KEY (k) REFERENCES other ON DELETE CASCADE;
		DROP STATISTICS late_statistics;
		CREATE STATISTICS late_statistics (ndistinct) ON k, v FROM late;
		REVOKE GRANT OPTION FOR SELECT ON late FROM web;
		REVOKE DELETE ON late FROM web;
		COMMENT ON TABLE late IS 'another';
		COMMENT ON POLICY late_own ON late IS 'another';
		ALTER TABLE late ALTER v SET DEFAULT 'newer', ALTER v SET STATISTICS 60, NO FORCE ROW LEVEL SECURITY;
		SQL
	[ 'what is taken away', <<~'SQL' ],
		DROP TRIGGER late_trigger ON late;
		DROP TRIGGER late_off ON late;
		DROP POLICY late_changed ON late;
		DROP POLICY late_own ON late;
		ALTER TABLE late DROP CONSTRAINT late_check, DROP CONSTRAINT late_other;
		DROP STATISTICS late_statistics;
		REVOKE ALL ON late FROM web;
		REVOKE UPDATE (k) ON late FROM web;
		COMMENT ON TABLE late IS NULL;
		COMMENT ON COLUMN late.v IS NULL;
		ALTER TABLE late ALTER v DROP DEFAULT, ALTER v SET STATISTICS -1;
		SQL
);
sql_as('shop', 'INSERT INTO other SELECT generate_series(0, 3)');
before(@$_) for @LATE, @LATE;

my $superuser = sql('SELECT CURRENT_USER');
late('labels', q{LOAD 'label_provider'; SECURITY LABEL FOR test_labels ON TABLE late IS 'secret'; SECURITY LABEL FOR test_labels ON COLUMN late.v IS 'public'}, $superuser);
late('a label changed, and one removed', q{LOAD 'label_provider'; SECURITY LABEL FOR test_labels ON TABLE late IS 'public'; SECURITY LABEL FOR test_labels ON COLUMN late.v IS NULL}, $superuser);

is(errors_of_preflight('late'), '', 'nothing is in the way');
sql_as('shop', "CALL migrate_ext.verify('late')");
is(rows_that_differ($node, 'late', migration_state($node, 'late') eq 'live' ? 'late_new' : 'late_orig'), '0', 'both tables are equal');

# an event trigger that objects
sql(<<~'SQL');
	CREATE FUNCTION object() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no DDL today'; END $$;
	CREATE EVENT TRIGGER objects ON ddl_command_end EXECUTE FUNCTION object();
	SQL
my ($state, $procedure) = (migration_state($node, 'late'), direction());
my $description = description('late');
refused('shop', "CALL migrate_ext.$procedure('late', '20 s')", qr/no DDL today/, "an event trigger that objects keeps $procedure from swapping");
is(migration_state($node, 'late'), $state, 'nothing is swapped');
described_ok('late', $description, 'nor anything else changed');
like(sql_as('shop', q{SELECT severity || object FROM migrate_ext.preflight('late') WHERE object ~ 'event trigger'}), qr/event trigger objects/, 'preflight had told of it');
sql('DROP EVENT TRIGGER objects');
sql_as('shop', "CALL migrate_ext.$procedure('late')");
described_ok('late', $description, 'without it all follows');

done_testing();
