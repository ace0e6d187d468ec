# The load of the stress test (Stress.pm): two tables, what clients do to them at random, and the books
# that are kept of it.
#
# Each operation enters what it did into a ledger, in the same transaction. So in every snapshot the
# ledger's sums are those of the tables' contents: a write lost, doubled or kept against a rollback, on
# either side of a migration, breaks at least one of them, and the sums stay broken. Each transaction
# enters its client, too: so the ledger tells what became of a COMMIT whose answer was lost.
#
# The operations take their locks in ascending order of keys, and acct before item: they can't deadlock
# by themselves. Any deadlock would be the migration's.
package StressLoad;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use MigrateTest;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(@TABLES make_tables make_scripts client_scripts books contents compact_ledger);

our @TABLES = qw(acct item);

# Keys that clients meet on all the time; those that nobody touches make the copy take its time. What the
# sequence gives begins far above both.
my $HOT        = 1000;
my $COLD_FROM  = 10_000;
my $COLD       = 8000;
my $FIRST_NEW  = 1_000_000;

# acct: the partition key isn't part of the identity. item: it is, so ON CONFLICT works on both sides.
my %KEY = (acct => 'id = $a', item => 'id = $a AND part = $p');
my %PRIMARY = (acct => 'id', item => 'id, part');

# Functions (below), and how often: of 100 transactions or so. A tenth of them is rolled back as a whole.
my %FUNCTION = (
	update => 9, transfer => 9, key_change => 9, move => 9, delete => 9, insert => 9, insert_new => 5, upsert => 9,
	savepoint => 9, rewrite => 9, bulk_insert => 1, bulk_update => 2, bulk_delete => 2, copy => 2, cancelled => 2);

# What is counted, in the ledger and in a table.
my $SUMS = 'sum(id), sum(part), sum(balance), sum(tag), sum(touched)';

# What both say of a table, as SQL: the same, or something is lost.
sub books
{
	my ($table) = @_;
	return "(SELECT concat_ws(' ', sum(rows), $SUMS) FROM public.ledger WHERE tab = '$table')";
}

sub contents
{
	my ($relation) = @_;
	return "(SELECT concat_ws(' ', count(*), $SUMS) FROM public.$relation)";
}

# Its sums stay, and its rows are few.
sub compact_ledger
{
	sql(<<~SQL);
		WITH old AS (DELETE FROM ledger RETURNING *)
		INSERT INTO ledger
		SELECT client, tab, sum(commits), sum(rows), $SUMS FROM old GROUP BY client, tab
		SQL
	return;
}

# ---------------------------------------------------------------------------------------------
# The tables and what changes them

sub make_tables
{
	sql(<<~SQL);
		CREATE ROLE stress_owner;
		CREATE ROLE stress_client LOGIN IN ROLE pg_execute_server_program;
		GRANT CREATE ON SCHEMA public TO stress_owner;
		SET SESSION AUTHORIZATION stress_owner;

		CREATE TABLE acct (
			id bigserial PRIMARY KEY, part int NOT NULL, balance bigint NOT NULL, tag bigint NOT NULL, note text,
			touched int NOT NULL DEFAULT 0);
		CREATE TABLE item (
			id bigserial, part int NOT NULL, balance bigint NOT NULL, tag bigint NOT NULL, note text,
			touched int NOT NULL DEFAULT 0, PRIMARY KEY (id, part));
		ALTER SEQUENCE acct_id_seq RESTART $FIRST_NEW;
		ALTER SEQUENCE item_id_seq RESTART $FIRST_NEW;

		CREATE TABLE ledger (
			client text, tab text, commits bigint NOT NULL DEFAULT 0, rows bigint, id bigint, part bigint, balance bigint,
			tag bigint, touched bigint);
		GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON acct, item TO stress_client;
		GRANT SELECT, INSERT ON ledger TO stress_client;
		GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO stress_client;

		CREATE FUNCTION enter(tab text, rows bigint, id bigint, part bigint, balance bigint, tag bigint, touched bigint DEFAULT 0)
		RETURNS void LANGUAGE sql AS \$\$
			INSERT INTO ledger (tab, rows, id, part, balance, tag, touched) VALUES (\$1, \$2, \$3, \$4, \$5, \$6, \$7)
		\$\$;
		CREATE FUNCTION commits() RETURNS void LANGUAGE sql AS \$\$
			INSERT INTO ledger (client, commits) VALUES (current_setting('stress.client'), 1)
		\$\$;
		CREATE FUNCTION check_books(tab text) RETURNS void LANGUAGE plpgsql AS \$\$
		DECLARE booked text; there text;
		BEGIN
			SELECT concat_ws(' ', sum(rows), $SUMS) INTO booked FROM ledger WHERE ledger.tab = check_books.tab;
			EXECUTE format('SELECT concat_ws('' '', count(*), $SUMS) FROM %I', tab) INTO there;
			IF booked IS DISTINCT FROM there THEN
				RAISE EXCEPTION 'the books say %, % has %', booked, tab, there;
			END IF;
		END \$\$;
		SQL
	for my $table (@TABLES)
	{
		sql('SET SESSION AUTHORIZATION stress_owner; '
			. functions_of($table) . bulk_functions_of($table) . triggers_of($table) . "SELECT ${table}_fill()");
	}
	return;
}

# The functions by which the load changes a table. Each knows by itself what it did: by the number of
# rows, and by what it read of a row that it had locked.
#
# a, p: the key to work on, b: a higher id, d: an amount, x: a random mark, never 0
my $PARAMETERS = "(a bigint, p int, b bigint, d bigint, x bigint) RETURNS void LANGUAGE plpgsql AS \$\$\n";

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

	return <<~SQL;
		CREATE FUNCTION ${table}_update$PARAMETERS
		DECLARE n bigint;
		BEGIN
			UPDATE $table SET balance = balance + d, tag = tag + x WHERE $key;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 0, 0, 0, n * d, n * x);
		END \$\$;

		-- Two rows, in the order of their keys.
		CREATE FUNCTION ${table}_transfer$PARAMETERS
		DECLARE n bigint; m bigint;
		BEGIN
			UPDATE $table SET balance = balance - d WHERE $key;
			GET DIAGNOSTICS n = ROW_COUNT;
			UPDATE $table SET balance = balance + d, tag = tag + x WHERE $other;
			GET DIAGNOSTICS m = ROW_COUNT;
			PERFORM enter('$table', 0, 0, 0, (m - n) * d, m * x);
		END \$\$;

		CREATE FUNCTION ${table}_key_change$PARAMETERS
		DECLARE n bigint;
		BEGIN
			UPDATE $table SET id = b, tag = tag + x WHERE $key;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 0, n * (b - a), 0, 0, n * x);
		EXCEPTION WHEN unique_violation THEN
			NULL;                       -- taken: nothing was done, nothing is entered
		END \$\$;

		-- To a higher part, for the order of locks; the top ones stay.
		CREATE FUNCTION ${table}_move$PARAMETERS
		DECLARE n bigint; old_part int; new_part int;
		BEGIN
			SELECT part INTO old_part FROM $table WHERE $key FOR UPDATE;
			IF NOT FOUND THEN RETURN; END IF;
			new_part := old_part + 1 + abs(d) % 5;
			UPDATE $table SET part = new_part, tag = tag + x WHERE id = a AND part = old_part;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 0, 0, n * (new_part - old_part), 0, n * x);
		EXCEPTION WHEN unique_violation THEN
			NULL;
		END \$\$;

		CREATE FUNCTION ${table}_delete$PARAMETERS
		DECLARE gone $table%ROWTYPE;
		BEGIN
			DELETE FROM $table WHERE $key RETURNING * INTO gone;
			IF NOT FOUND THEN RETURN; END IF;
			PERFORM enter('$table', -1, -gone.id, -gone.part, -gone.balance, -gone.tag, -gone.touched);
		END \$\$;

		-- A key that was there before, perhaps, and perhaps still is.
		CREATE FUNCTION ${table}_insert$PARAMETERS
		BEGIN
			INSERT INTO $table VALUES (a, p, d, x, repeat('y', (x % 300)::int));
			PERFORM enter('$table', 1, a, p, d, x);
		EXCEPTION WHEN unique_violation THEN
			NULL;
		END \$\$;

		-- A key from the sequence: that must go on through every swap.
		CREATE FUNCTION ${table}_insert_new$PARAMETERS
		DECLARE new_id bigint;
		BEGIN
			INSERT INTO $table (part, balance, tag) VALUES (p, d, x) RETURNING id INTO new_id;
			PERFORM enter('$table', 1, new_id, p, d, x);
		END \$\$;

		CREATE FUNCTION ${table}_upsert$PARAMETERS
		DECLARE inserted int; mark bigint;
		BEGIN
			$upsert
			PERFORM enter('$table', inserted, inserted * a, inserted * p, d, x);
		END \$\$;

		-- What a savepoint takes back must be nowhere; what came before it and after it must be.
		CREATE FUNCTION ${table}_savepoint$PARAMETERS
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
			PERFORM enter('$table', 0, 0, 0, n * d, m * x);
		END \$\$;

		-- Gone and back in one transaction.
		CREATE FUNCTION ${table}_rewrite$PARAMETERS
		DECLARE gone $table%ROWTYPE;
		BEGIN
			DELETE FROM $table WHERE $key RETURNING * INTO gone;
			IF NOT FOUND THEN RETURN; END IF;
			INSERT INTO $table VALUES (gone.id, gone.part, d, x, gone.note);
			PERFORM enter('$table', 0, 0, 0, d - gone.balance, x - gone.tag, -gone.touched);
		END \$\$;
		SQL
}

# The same of many rows at a time. Locked in the order of keys before they are changed.
sub bulk_functions_of
{
	my ($table) = @_;
	my $same = join ' AND ', map { "t.$_ = locked.$_" } split /, /, $PRIMARY{$table};
	my $locked = sub {
		"locked AS (SELECT $PRIMARY{$table} FROM $table WHERE id BETWEEN a AND a + $_[0] ORDER BY $PRIMARY{$table} FOR UPDATE)";
	};
	my $sums = 'count(*), coalesce(sum(id), 0), coalesce(sum(part), 0)';

	return <<~SQL;
		CREATE FUNCTION ${table}_bulk_insert$PARAMETERS
		DECLARE n bigint; ids bigint; parts bigint;
		BEGIN
			WITH new AS (
				INSERT INTO $table (part, balance, tag) SELECT (p + g) % 4, d, x FROM generate_series(1, 20) AS g RETURNING *)
			SELECT $sums INTO n, ids, parts FROM new;
			PERFORM enter('$table', n, ids, parts, n * d, n * x);
		END \$\$;

		CREATE FUNCTION ${table}_bulk_update$PARAMETERS
		DECLARE n bigint;
		BEGIN
			WITH @{[ $locked->(30) ]}
			UPDATE $table AS t SET balance = balance + d, tag = tag + x FROM locked WHERE $same;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 0, 0, 0, n * d, n * x);
		END \$\$;

		-- The oldest ones of the sequence's, so that the table doesn't grow for ever.
		CREATE FUNCTION ${table}_bulk_delete$PARAMETERS
		DECLARE n bigint; ids bigint; parts bigint; balances bigint; tags bigint; touches bigint;
		BEGIN
			WITH locked AS (
				SELECT $PRIMARY{$table} FROM $table WHERE id >= $FIRST_NEW ORDER BY $PRIMARY{$table} LIMIT 40
				FOR UPDATE SKIP LOCKED),
			gone AS (DELETE FROM $table AS t USING locked WHERE $same RETURNING t.*)
			SELECT $sums, coalesce(sum(balance), 0), coalesce(sum(tag), 0), coalesce(sum(touched), 0)
			INTO n, ids, parts, balances, tags, touches FROM gone;
			PERFORM enter('$table', -n, -ids, -parts, -balances, -tags, -touches);
		END \$\$;

		CREATE FUNCTION ${table}_copy$PARAMETERS
		DECLARE n bigint; ids bigint; parts bigint; lines text;
		BEGIN
			SELECT count(*), sum(id), sum(part), string_agg(concat_ws(',', id, part, d, x), '\\n')
			INTO n, ids, parts, lines
			FROM (SELECT nextval(pg_get_serial_sequence('$table', 'id')) AS id, (p + g) % 4 AS part
			      FROM generate_series(1, 8) AS g) AS new;
			-- who cancels or ends a session means its programs, too; COPY would tell of the program's end
			EXECUTE format('COPY $table (id, part, balance, tag) FROM PROGRAM %L (FORMAT csv)',
			               'trap '''' INT TERM; printf ''' || lines || '''');
			PERFORM enter('$table', n, ids, parts, n * d, n * x);
		END \$\$;

		-- Somewhere in the middle the client's patience ends (script_for).
		CREATE FUNCTION ${table}_cancelled$PARAMETERS
		DECLARE n bigint;
		BEGIN
			BEGIN
				WITH @{[ $locked->(100) ]}
				UPDATE $table AS t SET balance = balance + d, tag = tag + x FROM locked WHERE $same;
				GET DIAGNOSTICS n = ROW_COUNT;
				PERFORM enter('$table', 0, 0, 0, n * d, n * x);
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
			PERFORM set_config('statement_timeout', '0', true);
		END \$\$;

		CREATE FUNCTION ${table}_fill() RETURNS void LANGUAGE plpgsql AS \$\$
		DECLARE n bigint; ids bigint; parts bigint; balances bigint; tags bigint;
		BEGIN
			WITH new AS (
				INSERT INTO $table (id, part, balance, tag, note)
				SELECT g, g % 4, 100, 7 * g, repeat('x', g % 200)
				FROM (SELECT generate_series(1, $HOT, 2) AS g UNION ALL SELECT generate_series($COLD_FROM, $COLD_FROM + $COLD)) AS ids
				RETURNING *)
			SELECT $sums, sum(balance), sum(tag) INTO n, ids, parts, balances, tags FROM new;
			PERFORM enter('$table', n, ids, parts, balances, tags);
		END \$\$;

		-- For READ COMMITTED: an older snapshot doesn't see all that goes. One in sixteen is one: it is dear.
		CREATE FUNCTION ${table}_truncate$PARAMETERS
		BEGIN
			IF x % 16 <> 0 THEN RETURN; END IF;
			PERFORM pg_advisory_xact_lock(@{[ READERS() ]});
			LOCK TABLE $table IN ACCESS EXCLUSIVE MODE;
			PERFORM enter('$table', -count(*), @{[ join ', ', map { "-sum($_)::bigint" } qw(id part balance tag touched) ]})
			FROM $table;
			TRUNCATE $table;
			PERFORM ${table}_fill();
		END \$\$;
		SQL
}

# Triggers that touch the row again: one sorts before the sync trigger, one after it. What they did, they
# enter themselves; where a row moves between partitions they don't fire.
sub triggers_of
{
	my ($table) = @_;
	return <<~SQL;
		CREATE FUNCTION ${table}_touch() RETURNS trigger LANGUAGE plpgsql AS \$\$
		DECLARE n bigint;
		BEGIN
			UPDATE $table SET touched = touched + 1, note = TG_NAME WHERE id = NEW.id AND part = NEW.part;
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM enter('$table', 0, 0, 0, 0, 0, n);
			RETURN NULL;
		END \$\$;
		CREATE TRIGGER " first" AFTER UPDATE OF balance ON $table
		FOR EACH ROW WHEN (NEW.balance % 2 = 0) EXECUTE FUNCTION ${table}_touch();
		CREATE TRIGGER last AFTER UPDATE OF tag ON $table
		FOR EACH ROW WHEN (NEW.tag % 3 = 0) EXECUTE FUNCTION ${table}_touch();
		SQL
}

# ---------------------------------------------------------------------------------------------
# Scripts for pgbench

# TRUNCATE isn't MVCC-safe: it and who reads with an old snapshot keep out of each other's way.
sub READERS { return 77 }

my $DRAW = <<~SQL;
	\\set a random(1, $HOT)
	\\set b :a + random(1, 50)
	\\set p random(0, 3)
	\\set d random(-100, 100)
	\\set x random(1, 1000000000000)
	\\set t random(2, 30)
	SQL

my $ARGUMENTS = '(:a, :p, :b, :d, :x);';

# The scripts that are the same for all clients; the part of a name behind the last _ tells how they end.
# Returns arguments of pgbench.
sub make_scripts
{
	my ($dir) = @_;
	my %script;
	for my $table (@TABLES)
	{
		for my $operation (keys %FUNCTION)
		{
			my $weight = $FUNCTION{$operation};
			my $limit = $operation eq 'cancelled' ? "SELECT set_config('statement_timeout', :t::text, true);\n" : '';
			my $call = "BEGIN;\n${limit}SELECT ${table}_$operation$ARGUMENTS\n";
			$script{"${table}_${operation}_COMMIT"} = [ $weight * 9, "${call}SELECT commits();\nCOMMIT;\n" ];
			$script{"${table}_${operation}_ROLLBACK"} = [ $weight, "${call}ROLLBACK;\n" ];
		}
		%script = (%script, scripts_of($table));
	}
	$script{both_COMMIT} = [ 30, <<~SQL ];
		BEGIN;
		SELECT acct_update$ARGUMENTS
		\\sleep :t ms
		SELECT item_transfer$ARGUMENTS
		SELECT commits();
		COMMIT;
		SQL
	return write_scripts($dir, %script);
}

# write_scripts(folder, name => [weight, text]...): arguments of pgbench
sub write_scripts
{
	my ($dir, %script) = @_;
	my @arguments;
	for my $name (sort keys %script)
	{
		my ($weight, $text) = @{ $script{$name} };
		append_to_file("$dir/$name.sql", $DRAW . $text);
		push @arguments, "--file=$dir/$name.sql\@$weight";
	}
	return @arguments;
}

# What isn't a function: the statement itself prepared by the client, savepoints, readers. They take their
# snapshot, and long after that look for the first time.
sub scripts_of
{
	my ($table) = @_;
	my $key = $KEY{$table} =~ s/\$/:/gr;
	my $readers = READERS();
	return (
		"${table}_plain_COMMIT" => [ 81, <<~SQL ],
			BEGIN;
			WITH u AS (UPDATE $table SET balance = balance + :d, tag = tag + :x WHERE $key RETURNING 1)
			INSERT INTO ledger (tab, rows, id, part, balance, tag, touched)
			SELECT '$table', 0, 0, 0, n * :d, n * :x, 0 FROM (SELECT count(*) AS n FROM u) AS c;
			SELECT commits();
			COMMIT;
			SQL
		"${table}_subtransaction_COMMIT" => [ 30, <<~SQL ],
			BEGIN;
			SAVEPOINT s;
			SELECT ${table}_rewrite$ARGUMENTS
			SELECT ${table}_move$ARGUMENTS
			ROLLBACK TO SAVEPOINT s;
			SELECT ${table}_update$ARGUMENTS
			SELECT commits();
			COMMIT;
			SQL
		"${table}_books_READ" => [ 5, <<~SQL ]);
			SELECT pg_advisory_lock_shared($readers);
			BEGIN ISOLATION LEVEL REPEATABLE READ;
			SELECT 1;
			\\set s :t * 10
			\\sleep :s ms
			SELECT check_books('$table');
			COMMIT;
			SELECT pg_advisory_unlock_shared($readers);
			SQL
}

# A client's own: prepared transactions, whose names are the client's; TRUNCATE, at one isolation level.
sub client_scripts
{
	my ($dir, $client, $isolation) = @_;
	my %script;
	my $prepare = "BEGIN;\nSELECT acct_transfer$ARGUMENTS\nSELECT item_rewrite$ARGUMENTS\nSELECT item_insert_new$ARGUMENTS\n"
	  . "SELECT commits();\nPREPARE TRANSACTION '$client';\n\\sleep 5 ms\n";
	$script{prepared_COMMIT}   = [ 36, "${prepare}COMMIT PREPARED '$client';\n" ];
	$script{prepared_ROLLBACK} = [ 4,  "${prepare}ROLLBACK PREPARED '$client';\n" ];
	if ($isolation eq 'read committed')
	{
		$script{"${_}_truncate_COMMIT"} = [ 5, "BEGIN;\nSELECT ${_}_truncate$ARGUMENTS\nSELECT commits();\nCOMMIT;\n" ]
		  for @TABLES;
	}
	return write_scripts($dir, %script);
}

1;
