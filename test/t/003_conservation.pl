# Conservation: clients at three isolation levels change two tables at random and enter, in the same
# transaction, what each change did into a ledger. So in every snapshot the ledger's sums are those of
# the tables' contents: a write lost, doubled or kept against a rollback, on either side of a
# migration, breaks at least one of them, and the sums stay broken.
#
# The harness is proven first: without a migration the sums must agree, and a write that goes past the
# ledger must be seen. Then both tables are swapped and swapped back, ten times, under the load.
#
# The load takes its locks in ascending order of keys and can't deadlock by itself: any deadlock would
# be the migration's.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROUNDS = $ENV{TEST_ROUNDS} // 10;

# Few enough that clients meet on the same rows all the time, enough for several pages.
my $IDS = 2000;

# Transactions a second of each of the three loads: leaves the machine room for the migration.
my $RATE = 250;

my @OPERATIONS = qw(update transfer key_change move delete insert insert_new upsert savepoint rewrite plain);

# acct: the partition key isn't part of the identity. item: it is, so ON CONFLICT works on both sides.
my %KEY = (acct => 'id = $a', item => 'id = $a AND part = $p');

$node = new_node(
	'main',
	preload => 1,
	# Serialization failures are the load's daily bread: not each needs its statement in the log.
	conf => "log_min_error_statement = panic\n");

# ---------------------------------------------------------------------------------------------
# The tables and what changes them

sub make_tables
{
	sql(<<~SQL);
		CREATE TABLE acct (
			id bigserial PRIMARY KEY, part int NOT NULL, balance bigint NOT NULL, tag bigint NOT NULL, note text);
		CREATE TABLE item (
			id bigserial, part int NOT NULL, balance bigint NOT NULL, tag bigint NOT NULL, note text,
			PRIMARY KEY (id, part));
		ALTER SEQUENCE acct_id_seq RESTART 1000000;
		ALTER SEQUENCE item_id_seq RESTART 1000000;
		CREATE TABLE ledger (
			tab text, operation text, rows bigint, id bigint, part bigint, balance bigint, tag bigint);

		INSERT INTO acct SELECT g, g % 64, 100, 7 * g, repeat('x', g % 200)
		FROM generate_series(1, $IDS, 2) AS g;
		INSERT INTO item SELECT g, g % 4, 100, 7 * g, repeat('x', g % 200)
		FROM generate_series(1, $IDS, 2) AS g;
		INSERT INTO ledger
		SELECT t, 'initial', count(*), sum(id), sum(part), sum(balance), sum(tag)
		FROM (SELECT 'acct' AS t, * FROM acct UNION ALL SELECT 'item', * FROM item) AS both_tables GROUP BY t;

		CREATE FUNCTION enter(tab text, operation text, rows bigint, id bigint, part bigint, balance bigint, tag bigint)
		RETURNS void LANGUAGE sql AS 'INSERT INTO ledger VALUES (\$1, \$2, \$3, \$4, \$5, \$6, \$7)';
		SQL
	for my $table (qw(acct item))
	{
		sql(functions_of($table));
	}
	return;
}

# The functions by which the load changes a table. Each knows by itself what it did: by the number of
# rows, and by what it read of a row that it had locked.
#
# a, p: the key to work on, b: a higher id, d: an amount, x: a random mark, never 0
sub functions_of
{
	my ($table) = @_;
	my $key = $KEY{$table} =~ s/\$//gr;
	my $other = $key =~ s/\ba\b/b/r;
	my $upsert =
		$table eq 'item'
	  ? <<~'SQL'
		INSERT INTO item VALUES (a, p, d, x, 'upserted')
		ON CONFLICT (id, part) DO UPDATE SET balance = item.balance + EXCLUDED.balance, tag = item.tag + EXCLUDED.tag
		RETURNING tag INTO mark;
		inserted := (mark = x)::int;
		SQL
	  : <<~'SQL';
		BEGIN
			INSERT INTO acct VALUES (a, p, d, x, 'upserted');
			inserted := 1;
		EXCEPTION WHEN unique_violation THEN
			inserted := 0;
			UPDATE acct SET balance = balance + d, tag = tag + x WHERE id = a;
			IF NOT FOUND THEN RETURN; END IF;
		END;
		SQL
	my $begin = "(a bigint, p int, b bigint, d bigint, x bigint) RETURNS void LANGUAGE plpgsql AS \$\$\n";

	return <<~SQL;
		CREATE FUNCTION ${table}_update$begin
		DECLARE n bigint;
		BEGIN
			UPDATE $table SET balance = balance + d, tag = tag + x WHERE $key;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 'update', 0, 0, 0, n * d, n * x);
		END \$\$;

		-- Two rows, in the order of their keys.
		CREATE FUNCTION ${table}_transfer$begin
		DECLARE n bigint; m bigint;
		BEGIN
			UPDATE $table SET balance = balance - d WHERE $key;
			GET DIAGNOSTICS n = ROW_COUNT;
			UPDATE $table SET balance = balance + d, tag = tag + x WHERE $other;
			GET DIAGNOSTICS m = ROW_COUNT;
			PERFORM enter('$table', 'transfer', 0, 0, 0, (m - n) * d, m * x);
		END \$\$;

		CREATE FUNCTION ${table}_key_change$begin
		DECLARE n bigint;
		BEGIN
			UPDATE $table SET id = b, tag = tag + x WHERE $key;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 'key_change', 0, n * (b - a), 0, 0, n * x);
		EXCEPTION WHEN unique_violation THEN
			NULL;                       -- taken: nothing was done, nothing is entered
		END \$\$;

		-- To a higher part, for the order of locks; the top ones stay.
		CREATE FUNCTION ${table}_move$begin
		DECLARE n bigint; old_part int; new_part int;
		BEGIN
			SELECT part INTO old_part FROM $table WHERE $key FOR UPDATE;
			IF NOT FOUND THEN RETURN; END IF;
			new_part := old_part + 1 + abs(d) % 5;
			UPDATE $table SET part = new_part, tag = tag + x WHERE id = a AND part = old_part;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 'move', 0, 0, n * (new_part - old_part), 0, n * x);
		EXCEPTION WHEN unique_violation THEN
			NULL;
		END \$\$;

		CREATE FUNCTION ${table}_delete$begin
		DECLARE gone $table%ROWTYPE;
		BEGIN
			DELETE FROM $table WHERE $key RETURNING * INTO gone;
			IF NOT FOUND THEN RETURN; END IF;
			PERFORM enter('$table', 'delete', -1, -gone.id, -gone.part, -gone.balance, -gone.tag);
		END \$\$;

		-- A key that was there before, perhaps, and perhaps still is.
		CREATE FUNCTION ${table}_insert$begin
		BEGIN
			INSERT INTO $table VALUES (a, p, d, x, repeat('y', (x % 300)::int));
			PERFORM enter('$table', 'insert', 1, a, p, d, x);
		EXCEPTION WHEN unique_violation THEN
			NULL;
		END \$\$;

		-- A key from the sequence: that must go on through every swap.
		CREATE FUNCTION ${table}_insert_new$begin
		DECLARE new_id bigint;
		BEGIN
			INSERT INTO $table (part, balance, tag) VALUES (p, d, x) RETURNING id INTO new_id;
			PERFORM enter('$table', 'insert_new', 1, new_id, p, d, x);
		END \$\$;

		CREATE FUNCTION ${table}_upsert$begin
		DECLARE inserted int; mark bigint;
		BEGIN
			$upsert
			PERFORM enter('$table', 'upsert', inserted, inserted * a, inserted * p, d, x);
		END \$\$;

		-- What a savepoint takes back must be nowhere; what came before it and after it must be.
		CREATE FUNCTION ${table}_savepoint$begin
		DECLARE n bigint; m bigint;
		BEGIN
			UPDATE $table SET balance = balance + d WHERE $key;
			GET DIAGNOSTICS n = ROW_COUNT;
			BEGIN
				DELETE FROM $table WHERE $key;
				INSERT INTO $table VALUES (a, p, -d, -x, 'taken back');
				UPDATE $table SET part = part + 1 WHERE id = a AND note = 'taken back';
				RAISE EXCEPTION SQLSTATE 'ME001';
			EXCEPTION WHEN unique_violation OR SQLSTATE 'ME001' THEN
				NULL;
			END;
			UPDATE $table SET tag = tag + x WHERE $key;
			GET DIAGNOSTICS m = ROW_COUNT;
			PERFORM enter('$table', 'savepoint', 0, 0, 0, n * d, m * x);
		END \$\$;

		-- Gone and back in one transaction.
		CREATE FUNCTION ${table}_rewrite$begin
		DECLARE gone $table%ROWTYPE;
		BEGIN
			DELETE FROM $table WHERE $key RETURNING * INTO gone;
			IF NOT FOUND THEN RETURN; END IF;
			INSERT INTO $table VALUES (gone.id, gone.part, d, x, gone.note);
			PERFORM enter('$table', 'rewrite', 0, 0, 0, d - gone.balance, x - gone.tag);
		END \$\$;
		SQL
}

# ---------------------------------------------------------------------------------------------
# The load

# One script an operation; plain is the same without a function, so that the statement itself is
# prepared by the client. Every tenth or so transaction is rolled back as a whole.
sub script_for
{
	my ($table, $operation, $end) = @_;
	my $draw = <<~SQL;
		\\set a random(1, $IDS)
		\\set b :a + random(1, 50)
		\\set p random(0, 3)
		\\set d random(-100, 100)
		\\set x random(1, 1000000000000)
		SQL
	my $key = $KEY{$table} =~ s/\$/:/gr;
	my $statement = $operation eq 'plain'
	  ? "WITH u AS (UPDATE $table SET balance = balance + :d, tag = tag + :x WHERE $key RETURNING 1)\n"
	  . "INSERT INTO ledger SELECT '$table', 'plain', 0, 0, 0, n * :d, n * :x FROM (SELECT count(*) AS n FROM u) AS c;\n"
	  : "SELECT ${table}_$operation(:a, :p, :b, :d, :x);\n";
	return "${draw}BEGIN;\n$statement$end;\n";
}

sub write_scripts
{
	my $dir = PostgreSQL::Test::Utils::tempdir('scripts');
	my @arguments;
	for my $table (qw(acct item))
	{
		for my $operation (@OPERATIONS)
		{
			for my $end ('COMMIT', 'ROLLBACK')
			{
				my $file = "$dir/${table}_${operation}_$end.sql";
				append_to_file($file, script_for($table, $operation, $end));
				push @arguments, '--file' => $file . ($end eq 'COMMIT' ? '@9' : '@1');
			}
		}
	}
	return @arguments;
}

sub start_loads
{
	my @scripts = write_scripts();
	my %protocol = (
		'read committed'  => 'prepared',
		'repeatable read' => 'extended',
		'serializable'    => 'simple');
	return map {
		start_pgbench($node,
			clients   => 3,
			isolation => $_,
			protocol  => $protocol{$_},
			args      => [ '--rate' => $RATE, '--max-tries' => 1000, @scripts ])
	} sort keys %protocol;
}

# ---------------------------------------------------------------------------------------------
# The check

# What a table holds, and what the ledger says: the same five numbers, or something is lost.
sub sums_query
{
	my ($table, $other) = @_;
	my $contents = sub {
		"(SELECT concat_ws(' ', count(*), sum(id), sum(part), sum(balance), sum(tag)) FROM $_[0])"
	};
	my $ledger =
	  "(SELECT concat_ws(' ', sum(rows), sum(id), sum(part), sum(balance), sum(tag)) FROM ledger WHERE tab = '$table')";
	return "SELECT $ledger, " . join ', ', map { $contents->($_) } grep { defined } $table, $other;
}

# One statement, one snapshot: the load goes on meanwhile.
sub conserved
{
	my ($table, $other, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($ledger, @sides) = split /\|/, sql(sums_query($table, $other));
	is(join(' | ', @sides), join(' | ', ($ledger) x @sides), "$name: $table is what the ledger says");
	is(rows_that_differ($node, $table, $other), '0', "$name: $table and $other are equal, row for row")
	  if defined $other;
	return;
}

# Does the check see a write that isn't in the ledger? In a transaction that is rolled back.
sub sees_sabotage
{
	my ($statement, $name) = @_;
	my $query = sums_query('acct');
	my ($ledger, $contents) = split /\|/, sql("BEGIN; $statement; $query; ROLLBACK");
	return isnt($contents, $ledger, "the harness sees $name");
}

sub wait_for_work
{
	my ($transactions) = @_;
	my $now = sql('SELECT count(*) FROM ledger');
	return poll_query($node, "SELECT count(*) > $now + $transactions FROM ledger");
}

# ---------------------------------------------------------------------------------------------

make_tables();
my @loads = start_loads();

# Without a migration: that the harness itself keeps its books, and notices where they're cooked.
ok(wait_for_work(1000), 'the load works');
conserved($_, undef, 'without a migration') for qw(acct item);
my $some = '(SELECT id FROM acct ORDER BY id LIMIT 1)';
sees_sabotage("UPDATE acct SET tag = tag + 1 WHERE id = $some", 'a lost update');
sees_sabotage("DELETE FROM acct WHERE id = $some", 'a lost row');
sees_sabotage("INSERT INTO acct VALUES (-1, 0, 0, 0, NULL)", 'a row too many');
sees_sabotage("UPDATE acct SET part = part + 1 WHERE id = $some", 'a row in the wrong place');

# With one, each round there and back.
sql("SELECT migrate_ext.partition_by_hash('acct', 'part', 8)");
sql("SELECT migrate_ext.partition_by_hash('item', 'part', 5)");
sql("SELECT migrate_ext.start('$_')") for qw(acct item);
wait_live($node, qw(acct item));
conserved($_, "${_}_new", 'live') for qw(acct item);

for my $round (1 .. $ROUNDS)
{
	sql("CALL migrate_ext.finalize('$_', '60 s')") for qw(acct item);
	wait_for_work(50);
	conserved($_, "${_}_orig", "round $round, swapped") for qw(acct item);
	sql("CALL migrate_ext.undo('$_', '60 s')") for qw(acct item);
	wait_for_work(50);
	conserved($_, "${_}_new", "round $round, back") for qw(acct item);

	# What is lost stays lost: further rounds would only say so again.
	last unless Test::More->builder->is_passing;
}

pgbench_ok(stop_pgbench($_), 'load') for @loads;
conserved($_, "${_}_new", 'at the end') for qw(acct item);
is( sql("SELECT string_agg(DISTINCT operation, ' ' ORDER BY operation) FROM ledger WHERE operation <> 'initial'"),
	join(' ', sort @OPERATIONS), 'every kind of operation took part');
is(sql("SELECT count(*) FROM migrate_ext.swaps"), 4 * $ROUNDS, 'every swap is recorded');
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock');
note sql('SELECT direction, count(*), round(max(hold_ms)::numeric, 1) AS max_hold_ms FROM migrate_ext.swaps GROUP BY 1');
note sql('SELECT tab, operation, count(*), sum(rows) FROM ledger GROUP BY 1, 2 ORDER BY 1, 2');

$node->stop;
done_testing;
