# Whose rights count. A migration is done wholly by an owner who is nobody special, whatever settings the
# database and the role have; code of the owner's never acts with more than the owner's rights, whoever
# makes it run; and strangers neither see, nor steer, nor disturb.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Settings come and go.
my ($major) = qx(pg_config --version) =~ /(\d+)/;
my %NO_TRANSACTION_TIMEOUT = $major >= 17 ? (transaction_timeout => '0') : ();
my %MAY_IDLE = (idle_session_timeout => '0', idle_in_transaction_session_timeout => '0');
my %NO_TIMEOUT = (statement_timeout => '0', %MAY_IDLE, %NO_TRANSACTION_TIMEOUT);

# What the test itself needs, in spite of what the database has: see make_hostile.
my %SANE = (
	default_transaction_isolation       => 'read committed',
	default_transaction_read_only       => 'off',
	default_transaction_deferrable      => 'off',
	search_path                         => 'public',
	session_replication_role            => 'origin',
	row_security                        => 'on',
	standard_conforming_strings         => 'on',
	%NO_TIMEOUT,
	lock_timeout                        => '0');

$ENV{PGOPTIONS} = pgoptions(%SANE);

$node = new_node('main');

# ---------------------------------------------------------------------------------------------
# Settings

# For each function and operator of PostgreSQL's that takes plain types, one of the same name and types
# that raises an error: an unqualified name that is looked up along such a search_path fails loudly.
sub make_evil_schema
{
	sql(<<~'SQL');
		CREATE SCHEMA evil;
		GRANT USAGE ON SCHEMA evil TO PUBLIC;
		DO $do$
		DECLARE f record; body text := $$ BEGIN RAISE EXCEPTION 'EVIL was called'; END $$;
		BEGIN
			FOR f IN
				SELECT p.proname, oidvectortypes(p.proargtypes) AS arguments, p.prorettype::regtype AS result
				FROM pg_proc p
				WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
				  AND p.provariadic = 0 AND p.pronargs BETWEEN 1 AND 3
				  AND NOT EXISTS (SELECT FROM pg_type t
				                  WHERE t.typtype = 'p' AND (t.oid = ANY (p.proargtypes) OR t.oid = p.prorettype))
			LOOP
				EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.proname, f.arguments, f.result, body);
			END LOOP;
			FOR f IN
				SELECT DISTINCT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, p.proname
				FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
				JOIN pg_proc e ON e.proname = p.proname AND e.proargtypes = p.proargtypes
				WHERE e.pronamespace = 'evil'::regnamespace AND o.oprleft <> 0 AND o.oprright <> 0
			LOOP
				EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%I)', f.oprname, f.l, f.r, f.proname);
			END LOOP;
		END $do$;
		CREATE FUNCTION evil.count_step(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'EVIL was called'; END $$;
		CREATE AGGREGATE evil.count(*) (SFUNC = evil.count_step, STYPE = bigint, INITCOND = 0);
		SQL
	my ($functions, $operators) =
	  split /\|/, sql("SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'evil'::regnamespace),
		(SELECT count(*) FROM pg_operator WHERE oprnamespace = 'evil'::regnamespace)");
	cmp_ok($functions, '>', 1000, 'there are evil functions');
	cmp_ok($operators, '>', 300, 'there are evil operators');
	return;
}

sub make_hostile
{
	my ($what) = @_;
	my %hostile = (
		default_transaction_isolation       => "'serializable'",
		default_transaction_read_only       => 'on',
		default_transaction_deferrable      => 'on',
		search_path                         => 'evil, pg_catalog',
		session_replication_role            => 'replica',
		row_security                        => 'off',
		statement_timeout                   => "'50ms'",
		lock_timeout                        => "'10ms'",
		idle_session_timeout                => "'1s'",
		idle_in_transaction_session_timeout => "'50ms'",
		DateStyle                           => "'SQL, DMY'",
		IntervalStyle                       => "'sql_standard'",
		TimeZone                            => "'Asia/Kathmandu'",
		extra_float_digits                  => '-15',
		bytea_output                        => "'escape'",
		quote_all_identifiers               => 'on',
		standard_conforming_strings         => 'off',
		transform_null_equals               => 'on',
		array_nulls                         => 'off');
	$hostile{ $major < 16 ? 'force_parallel_mode' : 'debug_parallel_query' } = "'regress'";
	$hostile{transaction_timeout} = "'100ms'" if $major >= 17;
	sql(join ' ', map { "ALTER $what SET $_ = $hostile{$_};" } sort keys %hostile);
	return;
}

# What a call itself needs: it writes, and may take its time, as may psql between two statements. Everything else stays
# hostile.
my %MAY_CALL = (default_transaction_read_only => 'off', %NO_TIMEOUT);

# ---------------------------------------------------------------------------------------------
# An owner's migration

# Values that depend on settings when they are written as text.
sub make_table
{
	my ($table, $owner) = @_;
	sql(<<~SQL);
		SET ROLE $owner;
		CREATE TABLE app.$table (
			id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, k int NOT NULL, v int NOT NULL,
			day date NOT NULL, at timestamptz NOT NULL, took interval, f float8, b bytea, tags text[],
			twice int GENERATED ALWAYS AS (v * 2) STORED, note text DEFAULT 'back\\slash', CHECK (note <> 'it''s'));
		INSERT INTO app.$table (k, v, day, at, took, f, b, tags)
		SELECT g % 7, g, '2024-01-05'::date + g % 90, '2024-01-05 10:00+00'::timestamptz + g * interval '7 hours',
		       g * interval '1 month 3 days -2 hours', g / 3.0, decode(md5(g::text), 'hex'), ARRAY['a', NULL, g::text]
		FROM generate_series(1, 300) AS g;
		CREATE INDEX ON app.$table (at, lower(note)) WHERE v > 5;
		SQL
	return;
}

# As an application would write that takes no notice of any of this.
sub write_to
{
	my ($role, $table, $n) = @_;
	sql_as($role, <<~SQL, %MAY_CALL, search_path => 'pg_catalog');
		UPDATE app.$table SET v = v + 1, f = f / 3 WHERE id % 3 = $n;
		UPDATE app.$table SET k = k + 1, day = day + 31, at = at + interval '31 days' WHERE id % 5 = $n;
		UPDATE app.$table SET id = id + 1000 * ($n + 1) WHERE id % 11 = $n;
		DELETE FROM app.$table WHERE id % 13 = $n;
		INSERT INTO app.$table (k, v, day, at) VALUES (3, 3, '2024-02-03', '2024-02-03 04:05:06.789+00');
		SQL
	return;
}

# As text too: 1.0 and 1.00 are equal, and not the same.
sub equal_ok
{
	my ($a, $b, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(
		sql("SELECT count(*) FROM (SELECT x::text FROM app.$a AS x EXCEPT ALL SELECT x::text FROM app.$b AS x) AS d")
		  . '|' . sql("SELECT count(*) FROM app.$a") . '|' . rows_that_differ($node, "app.$a", "app.$b"),
		'0|' . sql("SELECT count(*) FROM app.$b") . '|0',
		"$name: both tables are equal");
}

# Nothing that came with a migration may belong to somebody else.
sub all_belong_to
{
	my ($owner, $table, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is( sql("SELECT string_agg(oid::regclass::text, ' ') FROM pg_class
			WHERE relnamespace = 'app'::regnamespace AND relname LIKE '$table%' AND relowner <> '$owner'::regrole"),
		'', "$name: all of it belongs to $owner");
}

# The life of a migration, every call by this role, under the settings that the role has.
sub life
{
	my ($role, $owner, $table, $begin) = @_;
	make_table($table, $owner);
	is(sql_as($role, "SELECT $begin", %MAY_CALL), $table, "$table: the migration is made");
	isnt(sql_as($role, "TABLE migrate_ext.$_", %NO_TIMEOUT), '', "$table: the view $_ can be read") for qw(migrations progress events);
	sql_as($role, "SELECT migrate_ext.configure('$table', 'workers', '1'); SELECT migrate_ext.start('$table');", %MAY_CALL);
	sql_as($role, "CALL migrate_ext.wait_for('$table', 'live', '60 s')", %MAY_CALL);
	write_to($role, $table, 0);
	equal_ok($table, "${table}_new", "$table: live");
	sql_as($role, "CALL migrate_ext.verify('$table')", %MAY_CALL);
	like(sql_as($role, 'SELECT complete, missing, extra, "different" FROM migrate_ext.verifications', %MAY_CALL), qr/^t\|0\|0\|0$/m,
		"$table: verified");
	unlike(sql_as($role, "SELECT severity FROM migrate_ext.preflight('$table')", %MAY_CALL), qr/error/,
		"$table: preflight has no error");
	sql_as($role, "CALL migrate_ext.finalize('$table', '60 s')", %MAY_CALL);
	write_to($role, $table, 1);
	equal_ok($table, "${table}_orig", "$table: swapped");
	sql_as($role, "CALL migrate_ext.undo('$table', '60 s')", %MAY_CALL);
	write_to($role, $table, 2);
	equal_ok($table, "${table}_new", "$table: back");
	sql_as($role, "CALL migrate_ext.finalize('$table', '60 s')", %MAY_CALL);
	all_belong_to($owner, $table, $table);
	sql_as($role, "CALL migrate_ext.complete('$table', drop_original => true)", %MAY_CALL);
	is(migration_state($node, $table), 'completed', "$table: completed");
	all_belong_to($owner, $table, "$table, completed");
	is(sql("SELECT last_error FROM migrate_ext.migrations WHERE migration = '$table'"), '', "$table: without an error");
	return;
}

sub make_roles
{
	sql(<<~'SQL');
		CREATE ROLE app_group NOLOGIN;
		CREATE ROLE app_member LOGIN IN ROLE app_group;
		CREATE ROLE app_outsider LOGIN NOINHERIT IN ROLE app_group;
		CREATE ROLE app_owner LOGIN;
		CREATE ROLE app_writer LOGIN;
		CREATE ROLE stranger LOGIN;
		CREATE ROLE watcher LOGIN IN ROLE pg_monitor;
		CREATE ROLE look_group NOLOGIN;
		CREATE ROLE looker LOGIN IN ROLE look_group;
		CREATE SCHEMA app;
		GRANT USAGE, CREATE ON SCHEMA app TO app_group, app_owner;
		GRANT USAGE ON SCHEMA app TO PUBLIC;
		CREATE SCHEMA strange AUTHORIZATION stranger;
		SQL
	return;
}

sub owners_migrations
{
	make_evil_schema();
	make_hostile($_) for 'DATABASE postgres', 'ROLE app_member', 'ROLE postgres';
	my $offset = -s $node->logfile;

	life('app_member', 'app_group', 'by_hash', "migrate_ext.partition_by_hash('app.by_hash', 'k', 3)");
	life('app_member', 'app_group', 'by_month', "migrate_ext.partition_by_range('app.by_month', 'at', '1 month'::interval)");
	life('app_owner', 'app_owner', 'by_day', "migrate_ext.partition_by_range('app.by_day', 'day', '40 days', '2024-01-01', '2024-05-01')");

	# in the session itself, without a worker; swap and unswap in a transaction
	make_table('alone', 'app_group');
	sql_as('app_member', "SELECT migrate_ext.partition_by_hash('app.alone', 'k', 3); CALL migrate_ext.run('alone');", %MAY_CALL);
	is(migration_state($node, 'alone'), 'live', 'run() under hostile settings');
	sql_as('app_member', "CALL migrate_ext.finalize('alone', '60 s'); CALL migrate_ext.verify('alone');", %MAY_CALL);
	sql_as('app_member', 'BEGIN ISOLATION LEVEL READ COMMITTED; SELECT migrate_ext.unswap(\'alone\'); COMMIT;', %MAY_CALL);
	sql_as('app_member', "CALL migrate_ext.verify('alone');", %MAY_CALL);
	sql_as('app_member', 'BEGIN ISOLATION LEVEL READ COMMITTED; SELECT migrate_ext.swap(\'alone\'); COMMIT;', %MAY_CALL);
	is(migration_state($node, 'alone'), 'swapped', 'swap() under hostile settings');
	write_to('app_member', 'alone', 1);
	equal_ok('alone', 'alone_orig', 'alone: swapped');

	# the worker waits for the call's transaction, whatever the database's lock_timeout is
	make_table('patient', 'app_group');
	my $caller = open_session($node);
	$caller->query_safe("BEGIN; SELECT migrate_ext.partition_by_hash('app.patient', 'k', 3); SELECT migrate_ext.start('patient');");
	ok(poll_query($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'migrate_ext leader'
			AND wait_event = 'transactionid' AND backend_start < clock_timestamp() - interval '0.3 s'}),
		'a worker waits for the transaction of the call');
	$caller->query_safe('COMMIT');
	$caller->quit;
	wait_live($node, 'patient');
	sql_as('app_member', "CALL migrate_ext.cancel('patient')", %MAY_CALL);

	# a time-out of the caller's own counts, and leaves nothing behind
	my $reader = open_session($node);
	$reader->query_safe('BEGIN; SELECT count(*) FROM app.alone');
	refused('app_member', "CALL migrate_ext.undo('alone', '60 s');", qr/57014.*statement timeout/,
		'statement_timeout ends a CALL that waits', default_transaction_read_only => 'off', %MAY_IDLE, %NO_TRANSACTION_TIMEOUT);
	$reader->query_safe('COMMIT');
	$reader->quit;
	ok(poll_query($node, "SELECT goal FROM migrate_ext.migrations WHERE migration = 'alone'", 'swapped'),
		'and the request with it');
	sql_as('app_member', "CALL migrate_ext.undo('alone', '60 s');", %MAY_CALL);
	refused('app_member', "SELECT migrate_ext.pause('alone');", qr/25006/, 'a read-only transaction is refused',
		%NO_TIMEOUT);
	sql_as('app_member', "CALL migrate_ext.cancel('alone');", %MAY_CALL);

	# what a request may do to sessions that are in the way is what its owner may
	$reader = open_session($node);
	my $pid = $reader->query_safe('SELECT pg_backend_pid()');
	make_table('guarded', 'app_owner');
	sql_as('app_owner', "SELECT migrate_ext.partition_by_hash('app.guarded', 'k', 3); SELECT migrate_ext.start('guarded');", %MAY_CALL);
	wait_live($node, 'guarded');
	$reader->query_safe('BEGIN; SELECT count(*) FROM app.guarded');
	my $named = qr/MX002.*DETAIL:.*\b$pid\b/s;
	my ($errors) = errors_in_time(
		sub { (try_as('app_owner', "\\set VERBOSITY verbose\nCALL migrate_ext.finalize('guarded', '$_[0] s', '{\"blockers\": \"terminate\"}');", %MAY_CALL))[2] },
		$named, 2);
	like($errors, $named, "a superuser's session is in the way of the owner's swap");
	is($reader->query_safe('SELECT 1'), '1', 'and is not terminated for it');
	$reader->query_safe('COMMIT');
	$reader->quit;
	sql_as('app_owner', "CALL migrate_ext.cancel('guarded');", %MAY_CALL);

	# rows that the owner's policies hide from the owner are rows like others
	make_table('hidden', 'app_group');
	sql('ALTER TABLE app.hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE app.hidden FORCE ROW LEVEL SECURITY;');
	sql_as('app_member', "SELECT migrate_ext.partition_by_hash('app.hidden', 'k', 3); SELECT migrate_ext.start('hidden');", %MAY_CALL);
	wait_live($node, 'hidden');
	equal_ok('hidden', 'hidden_new', 'row security');
	sql('UPDATE app.hidden SET v = v + 1, k = k + 1 WHERE id < 100');
	equal_ok('hidden', 'hidden_new', 'row security, written');
	sql_as('app_member', "CALL migrate_ext.verify('hidden')", %MAY_CALL);
	is(sql("SELECT checked_rows, missing, extra, \"different\" FROM migrate_ext.verifications WHERE migration = 'hidden'"),
		'300|0|0|0', 'row security, verified');
	sql_as('app_member', "CALL migrate_ext.cancel('hidden')", %MAY_CALL);

	my $log = slurp_file($node->logfile, $offset);
	unlike($log, qr/EVIL was called/, 'no name was looked up along the search_path of the session');
	unlike($log, qr/migrate_ext (leader|helper|launcher).*(ERROR|FATAL)/, 'no worker was disturbed by settings');
	sql("ALTER $_ RESET ALL") for 'DATABASE postgres', 'ROLE app_member', 'ROLE postgres';
	return;
}

# ---------------------------------------------------------------------------------------------
# Code of the owner's

# app.attack(place) tries whatever would be more than its owner may do, and reports each call and each
# success in the server's log. It may be called where only immutable functions may: a function that says
# it is one calls it.
sub make_attack
{
	sql(<<~'SQL');
		SET ROLE app_owner;
		CREATE TABLE app.armed (place text);
		CREATE FUNCTION app.deferred() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			RAISE LOG 'ATTACK at deferred as %', current_user;
			RETURN NULL;
		END $$;
		CREATE CONSTRAINT TRIGGER later AFTER INSERT ON app.armed DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION app.deferred();
		CREATE FUNCTION app.attack(place text) RETURNS int LANGUAGE plpgsql AS $$
		DECLARE try text;
		BEGIN
			RAISE LOG 'ATTACK at % as %', place, current_user;
			-- that says it all; and a superuser who writes runs the table's checks as what he is, always
			IF current_user = 'postgres' THEN
				RETURN 0;
			END IF;
			FOREACH try IN ARRAY ARRAY[
				'SET ROLE postgres', 'RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT', 'CREATE ROLE pwned SUPERUSER',
				'ALTER ROLE app_owner SUPERUSER', 'UPDATE migrate_ext.migration SET paused = paused',
				'INSERT INTO migrate_ext.event (migration, kind, message) VALUES (1, ''planted'', ''planted'')',
				'CREATE TABLE migrate_ext.planted ()', 'COPY app.armed TO PROGRAM ''true''']
			LOOP
				BEGIN
					EXECUTE try;
					RAISE LOG 'ATTACK at % succeeded as %: %', place, current_user, try;
				EXCEPTION WHEN OTHERS THEN
					NULL;
				END;
			END LOOP;
			-- what is deferred is to be fired when somebody else is back
			BEGIN
				INSERT INTO app.armed VALUES (place);
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
			PERFORM set_config('search_path', 'stolen', false);
			RETURN 0;
		END $$;
		CREATE FUNCTION app.zero(place text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN
			RETURN app.attack(place);
		END $$;
		CREATE FUNCTION app.same(place text, x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM app.attack(place);
			RETURN x;
		END $$;
		SQL
	return;
}

# What was called where as whom since then: "place as role", each once.
sub attacks_since
{
	my ($offset) = @_;
	my %seen = map { $_ => 1 } slurp_file($node->logfile, $offset) =~ /LOG:  ATTACK at (\w+ as \w+)$/mg;
	return sort keys %seen;
}

sub attacks_failed
{
	my ($offset, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = slurp_file($node->logfile, $offset);
	is(join("\n", $log =~ /LOG:  (ATTACK at \w+ succeeded.*)/g), '', "$name: no attack succeeded");
	is(sql("SELECT string_agg(rolname, ' ' ORDER BY 1) FROM pg_roles WHERE rolsuper"), 'postgres', "$name: one superuser");
	is(sql("SELECT count(*) FROM migrate_ext.event WHERE kind = 'planted'") . sql("SELECT to_regclass('migrate_ext.planted') IS NULL"),
		'0t', "$name: nothing planted");
	return;
}

# All attacks that took place were made by the owner, and these places were among them.
sub attacks_by_owner
{
	my ($offset, $name, @places) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @attacks = attacks_since($offset);
	is(join(', ', grep { !/ as app_owner$/ } @attacks), '', "$name: nothing ran as anybody but the owner");
	for my $place (@places)
	{
		ok(scalar(grep { $_ eq "$place as app_owner" } @attacks), "$name: $place was evaluated")
		  or diag(join ', ', @attacks);
	}
	attacks_failed($offset, $name);
	return;
}

# The role that a superuser plays here does only what is named: no write to the tables, nor a query.
sub superuser_calls
{
	my ($sql) = @_;
	my ($exit, $out, $err) = try_as('postgres', "$sql\nSHOW search_path;", %SANE);
	is("$exit " . ($out =~ /(\w+)\z/)[0], '0 public', "search_path is left alone by: " . $sql =~ s/\s+/ /gr)
	  or diag($err);
	return;
}

sub attacks_on_workers
{
	# everything that is evaluated or simplified, with and without columns in it
	sql_as('app_owner', <<~'SQL');
		CREATE TYPE app.pair AS (a int, b int);
		CREATE FUNCTION app.far(a float8, b float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM app.attack('range_diff');
			RETURN a - b;
		END $$;
		CREATE TYPE app.span AS RANGE (subtype = float8, subtype_diff = app.far);
		CREATE FUNCTION app.span_to_json(s app.span) RETURNS json IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM app.attack('json_cast');
			RETURN to_json(s::text);
		END $$;
		CREATE CAST (app.span AS json) WITH FUNCTION app.span_to_json(app.span);
		CREATE DOMAIN app.checked AS int CHECK (app.same('domain', VALUE) IS NOT NULL);
		-- the index refuses some rows, but only when a worker writes them
		CREATE FUNCTION app.fussy(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN
			IF x = 13 AND current_setting('application_name') LIKE 'migrate_ext%' THEN
				RAISE EXCEPTION 'no such row';
			END IF;
			RETURN x;
		END $$;
		CREATE TABLE app.v (
			p app.pair, s app.span, k int NOT NULL,
			x app.checked DEFAULT app.attack('default'),
			g int GENERATED ALWAYS AS (app.same('generated', k)) STORED,
			CHECK (k + app.zero('check_constant') >= 0), CHECK (app.same('check', k) >= 0), PRIMARY KEY (p, s));
		INSERT INTO app.v (p, s, k, x) SELECT (g, 1)::app.pair, app.span(0, g), g, g FROM generate_series(1, 6) AS g;
		CREATE INDEX v_expression ON app.v (app.same('index', k));
		CREATE INDEX v_constant ON app.v ((k + app.zero('index_constant')));
		CREATE INDEX v_predicate ON app.v (k) WHERE app.same('predicate', k) > app.zero('predicate_constant');
		CREATE INDEX v_fussy ON app.v (app.fussy(k));
		SQL

	my $offset = -s $node->logfile;
	superuser_calls("SELECT * FROM migrate_ext.preview('app.v', 'k', 2);");
	superuser_calls("SELECT migrate_ext.partition_by_range('app.v', 'k', 4);");
	superuser_calls("SELECT * FROM migrate_ext.plan('v');");
	superuser_calls("SELECT migrate_ext.install_sync('v'); CALL migrate_ext.wait_for('v', 'logging', '60 s');");
	attacks_by_owner($offset, 'made by a superuser', qw(index_constant));

	# logged changes, one of which a drain can't carry over; and what autovacuum does, as the log's owner
	sql_as('app_owner', "INSERT INTO app.v (p, s, k) VALUES ('(13,1)', '[1,2]', 13), ('(14,1)', '[1,2]', 14)");
	my $log = sql("SELECT log FROM migrate_ext.migration WHERE name = 'v'");
	$offset = -s $node->logfile;
	sql("VACUUM ANALYZE $log");
	is(join(', ', attacks_since($offset)), '', 'ANALYZE of the log calls nothing');
	superuser_calls("SELECT migrate_ext.start('v'); CALL migrate_ext.wait_for('v', 'live', '60 s');");
	is(sql("SELECT string_agg(identity->'p'->>'a', ' ') FROM migrate_ext.failed_rows WHERE migration = 'v'"), '13',
		'a row is set aside');
	poll_query($node, "SELECT count(*) = 1 FROM migrate_ext.events WHERE migration = 'v' AND kind = 'analyzed'");
	superuser_calls("TABLE migrate_ext.progress; SELECT * FROM migrate_ext.preflight('v'); SELECT * FROM migrate_ext.plan('v');");
	superuser_calls("CALL migrate_ext.verify('v');");
	attacks_by_owner($offset, 'workers', qw(check index index_constant predicate predicate_constant json_cast));

	# all by a superuser's session, in which nothing restricts but we
	sql_as('app_owner', "CALL migrate_ext.cancel('v'); DELETE FROM app.v WHERE k > 12;");
	$offset = -s $node->logfile;
	superuser_calls("SELECT migrate_ext.partition_by_range('app.v', 'k', 4); CALL migrate_ext.run('v');");
	superuser_calls("SELECT migrate_ext.describe('app.v'); SELECT migrate_ext.describe('app.v_new');");
	superuser_calls("CALL migrate_ext.rehearse('v');");
	superuser_calls("CALL migrate_ext.finalize('v', '60 s');");
	superuser_calls("CALL migrate_ext.verify('v');");
	superuser_calls("CALL migrate_ext.undo('v', '60 s');");
	superuser_calls("CALL migrate_ext.verify('v');");
	superuser_calls("SELECT migrate_ext.swap('v');");
	superuser_calls("CALL migrate_ext.complete('v', true);");
	attacks_by_owner($offset, "a superuser's session", qw(index index_constant predicate predicate_constant));
	return;
}

# The same, where a superuser writes: what belongs to the other table only is evaluated for the trigger,
# not for the writer's own statement.
sub attacks_on_writers
{
	sql_as('app_owner', <<~'SQL');
		CREATE TABLE app.w (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL, CHECK (app.same('source_check', v) > -1));
		INSERT INTO app.w SELECT g, g % 3, g FROM generate_series(1, 20) AS g;
		CREATE TABLE app.w_parts (
			id int NOT NULL, k int NOT NULL, v bigint NOT NULL CHECK (app.same('target_check', v::int) > -1),
			g int GENERATED ALWAYS AS (app.same('target_generated', k)) STORED,
			d int DEFAULT app.same('target_default', 7), x int CHECK (x + app.zero('target_constant') IS NULL))
			PARTITION BY RANGE ((k + app.zero('key_constant')));
		CREATE TABLE app.w_parts_1 PARTITION OF app.w_parts FOR VALUES FROM (MINVALUE) TO (1);
		CREATE TABLE app.w_parts_2 PARTITION OF app.w_parts FOR VALUES FROM (1) TO (10);
		CREATE TABLE app.w_parts_3 PARTITION OF app.w_parts DEFAULT;
		SQL
	my $offset = -s $node->logfile;
	superuser_calls(<<~'SQL');
		SELECT migrate_ext.create_migration('app.w', 'app.w_parts', options =>
			'{"columns": {"v": "app.same(''columns'', s.v)"}, "reverse_columns": {"v": "app.same(''reverse_columns'', s.v::int)"}}');
		SELECT migrate_ext.start('w');
		CALL migrate_ext.wait_for('w', 'live', '60 s');
		CALL migrate_ext.verify('w');
		TABLE migrate_ext.progress;
		SELECT * FROM migrate_ext.preflight('w');
		SQL
	poll_query($node, "SELECT count(*) = 1 FROM migrate_ext.events WHERE migration = 'w' AND kind = 'reverse'");
	attacks_by_owner($offset, 'a given target', qw(key_constant columns target_check target_generated target_default target_constant));

	my $write = <<~'SQL';
		INSERT INTO app.w (id, k, v) VALUES (100, 100, 100), (101, 0, 101);
		UPDATE app.w SET v = v + 1 WHERE id < 5;
		UPDATE app.w SET k = 1 - k, id = id + 200 WHERE id BETWEEN 5 AND 8;
		DELETE FROM app.w WHERE id = 9;
		SQL
	$offset = -s $node->logfile;
	superuser_calls($write);
	writes_by_owner($offset, 'written through', qw(columns target_check target_generated target_default target_constant));
	is(sql("SELECT count(*) FROM (SELECT id, k, v FROM app.w EXCEPT ALL SELECT id, k, v FROM app.w_parts) AS d"), '0', 'both are equal');

	superuser_calls("CALL migrate_ext.finalize('w', '60 s');");
	$offset = -s $node->logfile;
	superuser_calls($write =~ s/100/110/gr =~ s/101/111/gr =~ s/5/10/gr =~ s/8/12/gr =~ s/= 9/= 13/r);
	writes_by_owner($offset, 'reverse', qw(reverse_columns source_check));
	is(sql("SELECT count(*) FROM (SELECT id, k, v FROM app.w EXCEPT ALL SELECT id, k, v FROM app.w_orig) AS d"), '0', 'both are equal');
	$offset = -s $node->logfile;
	superuser_calls('TRUNCATE app.w_parts_1;');
	# rows go by their identity: no key is computed
	is(join(', ', grep { !/ as app_owner$/ } attacks_since($offset)), '', 'TRUNCATE of a partition: nothing ran as anybody but the owner');
	is(sql("SELECT count(*) FROM (SELECT id, k, v FROM app.w_orig EXCEPT ALL SELECT id, k, v FROM app.w) AS d"), '0', 'both are equal');
	# a sharding key that is derived: by the copy, and by the trigger that fills it
	sql_as('app_owner', <<~'SQL');
		CREATE TABLE app.f (id int PRIMARY KEY, k int NOT NULL);
		INSERT INTO app.f SELECT g, g FROM generate_series(1, 10) AS g;
		SELECT migrate_ext.add_sharding_key('app.f', 'shard', 'int', value => 'app.same(''key_value'', s.k)');
		SELECT migrate_ext.partition_by_hash('app.f', 'shard', 2);
		SQL
	my $filled = -s $node->logfile;
	superuser_calls("SELECT migrate_ext.start('f'); CALL migrate_ext.wait_for('f', 'live', '60 s'); CALL migrate_ext.verify('f');");
	writes_by_owner($filled, 'derived by the copy', 'key_value');
	$filled = -s $node->logfile;
	superuser_calls('INSERT INTO app.f (id, k) VALUES (100, 3); UPDATE app.f SET k = 4 WHERE id = 5;');
	writes_by_owner($filled, 'filled in', 'key_value');
	is(sql('SELECT shard FROM app.f WHERE id IN (5, 100) ORDER BY id'), "4\n3", 'keys are filled in');
	sql("CALL migrate_ext.cancel('f')");

	# and filled in place, which fires the table's own triggers
	sql_as('app_owner', <<~'SQL');
		CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM app.same('own_trigger', new.k);
			RETURN new;
		END
		$$;
		CREATE TRIGGER note BEFORE UPDATE ON app.f FOR EACH ROW EXECUTE FUNCTION app.note();
		SQL
	$filled = -s $node->logfile;
	superuser_calls("SELECT migrate_ext.backfill_key('app.f', 'shard'); CALL migrate_ext.run('f'); CALL migrate_ext.finalize('f');");
	writes_by_owner($filled, 'filled in place', qw(key_value own_trigger));
	is(sql('SELECT count(*) FROM app.f WHERE shard IS NULL'), '0', 'all have their key');
	superuser_calls("CALL migrate_ext.enforce_key('app.f', 'shard');");

	superuser_calls("CALL migrate_ext.undo('w', '60 s');");
	superuser_calls('TRUNCATE app.w;');
	superuser_calls("CALL migrate_ext.cancel('w');");
	attacks_failed($offset, 'the end');
	return;
}

# These places were evaluated, and by the owner alone.
sub writes_by_owner
{
	my ($offset, $name, @places) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %by;
	for (attacks_since($offset))
	{
		my ($place, $role) = /^(\w+) as (\w+)$/;
		$by{$place} .= $role;
	}
	is($by{$_}, 'app_owner', "$name: $_ was evaluated by the owner only") for @places;
	return;
}

# ---------------------------------------------------------------------------------------------
# Strangers

# What anybody may do by the grants alone.
sub grants_ok
{
	is( sql(<<~'SQL'), '', 'PUBLIC has no right on a table or sequence but to read the views');
		SELECT string_agg(c.oid::regclass || ' ' || a.privilege_type, ', ' ORDER BY 1)
		FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
		WHERE c.relnamespace = 'migrate_ext'::regnamespace AND a.grantee <> c.relowner
		  AND NOT (a.grantee = 0 AND a.privilege_type = 'SELECT' AND c.relkind = 'v'
		           AND c.relname IN ('migrations', 'progress', 'batches', 'failed_rows', 'verifications', 'verified_ranges', 'swaps', 'events'))
		SQL
	is( sql(<<~'SQL'), '', 'nor on the schema but to use it');
		SELECT string_agg(a.privilege_type, ', ') FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
		WHERE n.nspname = 'migrate_ext' AND a.grantee <> n.nspowner AND a.privilege_type <> 'USAGE'
		SQL
	is( sql(<<~'SQL'), '', 'nothing of it is SECURITY DEFINER');
		SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc WHERE pronamespace = 'migrate_ext'::regnamespace AND prosecdef
		SQL
	return;
}

# Each function of the interface with arguments that would do for the owner.
sub every_call
{
	my ($name) = @_;
	my @calls = map { "SELECT migrate_ext.$_('$name')" } qw(install_sync start_backfill start pause resume swap unswap forget preflight plan report replace_sync differences repair retry_failed);
	push @calls, map { "CALL migrate_ext.$_('$name')" } qw(run verify rehearse finalize undo complete cancel);
	push @calls, "SELECT migrate_ext.configure('$name', 'workers', '0')", "CALL migrate_ext.wait_for('$name', 'live')";
	return @calls;
}

# And each that names a table.
sub every_request
{
	my ($table) = @_;
	return (
		"SELECT migrate_ext.partition_by_hash('$table', 'k', 2)",
		"SELECT migrate_ext.partition_by_list('$table', 'k')",
		"SELECT migrate_ext.partition_by_range('$table', 'k', 10)",
		"SELECT migrate_ext.partition_by_range('$table', 'k', '10')",
		"SELECT migrate_ext.create_migration('$table', 'app.own_new')",
		"SELECT * FROM migrate_ext.preview('$table', 'k', 2)",
		"SELECT migrate_ext.describe('$table')",
		"SELECT migrate_ext.add_sharding_key('$table', 'added', 'bigint')",
		"SELECT migrate_ext.backfill_key('$table', 'k')",
		"CALL migrate_ext.enforce_key('$table', 'k')");
}

# No function of the interface may be left out of the lists; catalog_difference() reads its arguments only.
sub all_calls_listed
{
	my @listed = map { /migrate_ext\.(\w+)\(/ } every_call('x'), every_request('x');
	my %seen = map { $_ => 1 } @listed, qw(sync_log sync_write_through sync_reverse sync_truncate sync_reverse_truncate
	  fill_key derive_key log_entries default_rows leader workers is_granted update_due catalog_difference);
	my @missing = grep { !$seen{$_} } split /\n/, sql(<<~'SQL');
		SELECT DISTINCT proname FROM pg_proc
		WHERE pronamespace = 'migrate_ext'::regnamespace AND has_function_privilege('stranger', oid, 'EXECUTE')
		SQL
	return is("@missing", '', 'this test knows all functions that PUBLIC may call');
}

sub strangers
{
	make_table('own', 'app_group');
	sql("SELECT migrate_ext.partition_by_hash('app.own', 'k', 3); SELECT migrate_ext.start('own');");
	wait_live($node, 'own');
	make_table('logged', 'app_group');
	sql("SELECT migrate_ext.partition_by_hash('app.logged', 'k', 3); SELECT migrate_ext.install_sync('logged');");
	sql("CALL migrate_ext.wait_for('logged', 'logging')");

	grants_ok();
	all_calls_listed();
	sql('GRANT SELECT ON migrate_ext.migrations, migrate_ext.progress TO look_group');
	for my $role ('stranger', 'looker', 'watcher', 'app_outsider')
	{
		# who sees all of a migration may have its page
		my @calls = grep { $role =~ /^(stranger|looker)$/ || !/report/ } every_call('own'), every_request('app.own');
		refused($role, "$_;", qr/42501/, "$role can't: $_") for @calls;
	}
	refused('stranger', 'SELECT * FROM migrate_ext.migration;', qr/42501/, "nobody reads the tables");

	# who sees
	my $seen = 'SELECT string_agg(DISTINCT migration, $$ $$ ORDER BY migration) FROM migrate_ext.';
	my %sees = (stranger => '', app_writer => '', watcher => 'logged own', app_member => 'logged own', app_outsider => 'logged own');
	for my $role (sort keys %sees)
	{
		is(join(' | ', map { sql_as($role, "$seen$_ WHERE migration IN ('own', 'logged')") } qw(migrations progress events)),
			join(' | ', ($sees{$role}) x 3), "$role sees: $sees{$role}");
	}
	my $id = sql("SELECT id FROM migrate_ext.migration WHERE name = 'own'");
	my $functions = "SELECT concat(migrate_ext.log_entries($id), migrate_ext.default_rows($id), migrate_ext.leader($id), migrate_ext.workers($id))";
	is(sql_as('stranger', $functions), '', 'nor do the functions behind the views tell a stranger anything');
	like(sql_as('watcher', $functions), qr/^\d+$/, 'a watcher they do');

	# who is granted a view by name sees all of that one, and nothing more of the others than anybody else
	is(join(' | ', map { sql_as('looker', "$seen$_ WHERE migration IN ('own', 'logged')") } qw(migrations progress events)),
		'logged own | logged own | ', 'looker sees: what was granted to a role of his');
	is(sql_as('looker', "SELECT log_entries, default_rows, workers > 0, next_step FROM migrate_ext.progress WHERE migration = 'own'"),
		sql("SELECT log_entries, default_rows, workers > 0, next_step FROM migrate_ext.progress WHERE migration = 'own'"),
		'and all columns of it');
	sql('REVOKE SELECT ON migrate_ext.migrations, migrate_ext.progress FROM look_group');
	is(sql_as('looker', "${seen}migrations"), '', 'and nothing once it is revoked');

	strangers_triggers($_) for 'own', 'logged';
	writers();
	refused('app_owner', 'SELECT migrate_ext.sync_log();', qr/0A000|39P01/, 'trigger functions are no functions to call');
	sql("CALL migrate_ext.cancel('logged')");
	return;
}

# Trigger functions with somebody else's migration, on a table of one's own.
sub strangers_triggers
{
	my ($victim) = @_;
	my ($id, $log) = split /\|/, sql("SELECT id, log FROM migrate_ext.migration WHERE name = '$victim'");
	my $state = "SELECT (SELECT count(*) FROM $log), (SELECT count(*) FROM app.$victim), (SELECT count(*) FROM app.${victim}_new),
		(SELECT count(*) FROM migrate_ext.truncation), (SELECT count(*) FROM migrate_ext.failed_row)";
	my $before = sql($state);
	my ($exit, $out, $err) = try_as('stranger', <<~SQL);
		CREATE TABLE strange.t_$victim (id bigserial PRIMARY KEY, k int, v int, day date, at timestamptz);
		CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON strange.t_$victim FOR EACH ROW EXECUTE FUNCTION migrate_ext.sync_log('$id');
		CREATE TRIGGER b AFTER INSERT OR UPDATE OR DELETE ON strange.t_$victim FOR EACH ROW EXECUTE FUNCTION migrate_ext.sync_write_through('$id');
		CREATE TRIGGER c AFTER INSERT OR UPDATE OR DELETE ON strange.t_$victim FOR EACH ROW EXECUTE FUNCTION migrate_ext.sync_reverse('$id');
		CREATE TRIGGER d AFTER TRUNCATE ON strange.t_$victim FOR EACH STATEMENT EXECUTE FUNCTION migrate_ext.sync_truncate('$id');
		CREATE TRIGGER e BEFORE TRUNCATE ON strange.t_$victim FOR EACH STATEMENT EXECUTE FUNCTION migrate_ext.sync_reverse_truncate('$id');
		INSERT INTO strange.t_$victim (k, v, day, at) VALUES (1, 1, now(), now()), (2, 2, now(), now());
		UPDATE strange.t_$victim SET v = 3, id = 5 WHERE k = 1;
		DELETE FROM strange.t_$victim WHERE k = 2;
		TRUNCATE strange.t_$victim;
		SQL
	is($exit, 0, "$victim: a stranger's own writes pass");
	like($err, qr/does not carry over changes of table "t_$victim"/, "$victim: and a warning says that nothing comes of them");
	is(sql($state), $before, "$victim: nothing does");
	refused('stranger', "CREATE TRIGGER z AFTER INSERT ON app.$victim FOR EACH ROW EXECUTE FUNCTION migrate_ext.sync_log('$id');",
		qr/42501/, "$victim: no trigger on another's table");
	return;
}

# An application's role that may write the table, and has no right on anything else.
sub writers
{
	sql("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON app.$_ TO app_writer") for qw(own logged);
	my ($logged) = sql("SELECT log FROM migrate_ext.migration WHERE name = 'logged'");
	write_to('app_writer', $_, 0) for qw(own logged);
	cmp_ok(sql("SELECT count(*) FROM $logged"), '>', 0, 'a writer without rights on the log logs');
	equal_ok('own', 'own_new', 'a writer without rights on the target');
	sql("REVOKE ALL ON app.own FROM app_writer; CALL migrate_ext.finalize('own');");
	sql('GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON app.own TO app_writer');
	write_to('app_writer', 'own', 1);
	equal_ok('own', 'own_orig', 'a writer without rights on the original');
	sql_as('app_writer', 'TRUNCATE app.own');
	is(counts($node, 'app.own', 'app.own_orig'), '0|0', 'TRUNCATE by a writer');
	return;
}

# The roles that docs/roles.md tells to make do what it says.
sub documented_roles
{
	my $blocks = join '', slurp_file("$FindBin::RealBin/../../docs/roles.md") =~ /^```sql\n(.*?)^```$/msg;
	sql('CREATE DATABASE documented');
	is( sql($blocks, 'documented'),
		"visits\n\nvisits|swapped|100.0|CALL migrate_ext.complete('visits') or CALL migrate_ext.undo('visits')\nvisits|finalize",
		'roles as docs/roles.md makes them: one runs a migration, one looks on');
	sql('DROP DATABASE documented WITH (FORCE)');
	return;
}

make_roles();
owners_migrations();
make_attack();
attacks_on_workers();
attacks_on_writers();
strangers();
documented_roles();

$node->stop;
done_testing;
