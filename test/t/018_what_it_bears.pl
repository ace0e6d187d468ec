# What a migration bears: settings of roles and databases, errors that pass, clients that die, a full disk. And what the
# application sees of whatever its trigger meets: the table in the README's "What the application sees".
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ---------------------------------------------------------------------------------------------
# Settings

# What is set for the database, for the role that workers connect as and for the owner; and what the test
# itself needs instead.
my %HOSTILE = (
	statement_timeout                   => [ 1,                       0 ],
	lock_timeout                        => [ 1,                       0 ],
	idle_in_transaction_session_timeout => [ 1,                       0 ],
	idle_session_timeout                => [ 1,                       0 ],
	default_transaction_isolation       => [ "'serializable'",        "'read committed'" ],
	default_transaction_read_only       => [ 'on',                    'off' ],
	default_transaction_deferrable      => [ 'on',                    'off' ],
	row_security                        => [ 'off',                   'on' ],
	search_path                         => [ 'evil',                  'public' ],
	session_replication_role            => [ 'replica',               'origin' ],
	default_tablespace                  => [ 'elsewhere',             "''" ],
	temp_tablespaces                    => [ 'elsewhere',             "''" ],
	datestyle                           => [ "'SQL, DMY'",            "'ISO, YMD'" ],
	intervalstyle                       => [ "'sql_standard'",        "'postgres'" ],
	timezone                            => [ "'Asia/Tokyo'",          "'UTC'" ],
	bytea_output                        => [ "'escape'",              "'hex'" ],
	extra_float_digits                  => [ -15,                     3 ],
	xmlbinary                           => [ "'hex'",                 "'base64'" ],
	array_nulls                         => [ 'off',                   'on' ],
	transform_null_equals               => [ 'on',                    'off' ],
	standard_conforming_strings         => [ 'off',                   'on' ],
	quote_all_identifiers               => [ 'on',                    'off' ],
	default_text_search_config          => [ "'pg_catalog.english'", "'pg_catalog.simple'" ],
	client_min_messages                 => [ 'error',                 'notice' ],
	synchronous_commit                  => [ 'off',                   'on' ],
	plan_cache_mode                     => [ 'force_custom_plan',     'auto' ],
	jit_above_cost                      => [ 0,                       100000 ],
	work_mem                            => [ "'64kB'",                "'4MB'" ],
	from_collapse_limit                 => [ 1,                       8 ],
	join_collapse_limit                 => [ 1,                       8 ],
	map { ("enable_$_" => [ 'off', 'on' ]) }
	  qw(seqscan indexscan indexonlyscan bitmapscan tidscan nestloop hashjoin mergejoin sort hashagg material memoize partition_pruning));

sub set_for
{
	my ($whom, $which) = @_;
	sql(join ' ', map { "ALTER $whom SET $_ = $HOSTILE{$_}[$which];" } sort keys %HOSTILE);
	return;
}

sub settings
{
	sql(<<~'SQL');
		SET allow_in_place_tablespaces = on;
		CREATE TABLESPACE elsewhere LOCATION '';
		SQL
	sql(<<~'SQL');
		CREATE ROLE tester SUPERUSER LOGIN;
		CREATE ROLE shop;
		CREATE ROLE nobody;
		GRANT CREATE ON SCHEMA public TO shop;
		CREATE SCHEMA evil;
		CREATE FUNCTION evil.lower(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'evil' $$;
		SQL
	set_for('ROLE tester', 1);
	local $ENV{PGUSER} = 'tester';
	set_for($_, 0) for 'DATABASE postgres', 'ROLE postgres', 'ROLE shop';
	sql('ALTER ROLE postgres SET role = nobody');

	sql(<<~'SQL');
		SET ROLE shop;
		CREATE TABLE items (id int PRIMARY KEY, at timestamptz NOT NULL, raw bytea NOT NULL, f float8 NOT NULL, spelled text);
		CREATE INDEX ON items (at);
		ALTER TABLE items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE POLICY few ON items USING (id < 0);
		RESET ROLE;
		INSERT INTO items SELECT g, timestamptz '2024-01-01 20:00+00' + g * interval '1 hour', '\x6100', 1 / 3.0, 'x' FROM generate_series(1, 2000) AS g;
		CREATE TABLE spelled AS TABLE items;
		ALTER TABLE spelled ADD PRIMARY KEY (id), ALTER at SET NOT NULL;
		CREATE TABLE spelled_parts (id int NOT NULL, at timestamptz NOT NULL, raw bytea, f float8, spelled text) PARTITION BY HASH (id);
		CREATE TABLE spelled_0 PARTITION OF spelled_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
		ALTER TABLE spelled OWNER TO shop; ALTER TABLE spelled_parts OWNER TO shop; ALTER TABLE spelled_0 OWNER TO shop;
		SELECT migrate_ext.partition_by_range('items', 'at', interval '1 month');
		SELECT migrate_ext.create_migration('spelled', 'spelled_parts', options =>
			'{"columns": {"spelled": "lower(s.at::text || s.at::date::text || s.raw::text || s.f::text || (s.at - timestamptz ''2024-01-01'')::text || to_tsvector(''the cars'')::text)"}, "reverse_columns": {"spelled": "s.spelled"}}');
		CREATE TABLE kinds (id int PRIMARY KEY, kind int);
		INSERT INTO kinds SELECT g, g % 5 FROM generate_series(1, 100) AS g;
		CREATE TABLE keyed (id int PRIMARY KEY, kind_id int NOT NULL);
		INSERT INTO keyed SELECT g, 1 + g % 100 FROM generate_series(1, 2000) AS g;
		ALTER TABLE kinds OWNER TO shop; ALTER TABLE keyed OWNER TO shop;
		SELECT migrate_ext.add_sharding_key('keyed', 'kind', 'int', '(SELECT k.kind FROM kinds k WHERE k.id = s.kind_id)');
		SELECT migrate_ext.backfill_key('keyed', 'kind');
		SQL
	my $offset = -s $node->logfile;
	sql("SELECT migrate_ext.start('$_')") for qw(items spelled keyed);
	wait_live($node, qw(items spelled keyed));
	is(sql("SELECT count(*) FROM keyed WHERE kind IS NULL"), '0', 'settings: a key is filled');
	my $write = q{INSERT INTO %1$s VALUES (%2$s, '2024-02-01 00:00+00', '\x00', 0.1, 'y'); UPDATE %1$s SET f = f + 1 WHERE id %% 100 = 7;};
	sql(sprintf $write, 'items', 3001);
	sql("CALL migrate_ext.finalize('items', '60 s')");
	sql(sprintf $write, 'items', 3002);
	sql("CALL migrate_ext.undo('items', '60 s')");
	sql(sprintf $write, 'items', 3003);
	sql("CALL migrate_ext.finalize('items', '60 s')");
	is(counts($node, 'items', 'items_orig') . ' ' . rows_that_differ($node, 'items', 'items_orig'), '2003|2003 0', 'settings: there and back');
	# whoever writes, the value is spelled in one way
	sql('SET timezone = "America/New_York"; SET bytea_output = escape; SET extra_float_digits = 0; SET intervalstyle = iso_8601; SET datestyle = german; SET default_text_search_config = "pg_catalog.english";'
		. sprintf $write, 'spelled', 3001);
	sql("CALL migrate_ext.verify('spelled')");
	is(sql("SELECT missing, extra, different FROM migrate_ext.verifications WHERE migration = 'spelled'"), '0|0|0', 'settings: computed alike by copy, trigger and comparison');
	is(sql("SELECT spelled FROM spelled_parts WHERE id = 4"), q{2024-01-02 00:00:00+002024-01-02\x61000.33333333333333331 day'cars':2 'the':1}, 'settings: and as the README says');
	is(sql("SELECT string_agg(DISTINCT relname, ' ') FROM pg_class WHERE relname ~ '^items|^log_' AND reltablespace <> 0"), '', 'settings: nothing is put elsewhere');
	sql("CALL migrate_ext.complete('items', true); CALL migrate_ext.cancel('spelled'); CALL migrate_ext.finalize('keyed');");
	is(sql("SELECT string_agg(message, '; ') FROM migrate_ext.events WHERE kind IN ('error', 'paused', 'failed')"), '', 'settings: no error');
	unlike(slurp_file($node->logfile, $offset), qr/migrate_ext (?:leader|helper)[^\n]*(?:ERROR|FATAL)/, 'settings: nor in the log');
	sql("ALTER DATABASE postgres RESET ALL; ALTER ROLE postgres RESET ALL; ALTER ROLE shop RESET ALL;");
	return;
}

# ---------------------------------------------------------------------------------------------
# Errors that pass

# A migration whose expression fails with one SQLSTATE after another, and then no more.
sub make_flaky
{
	my ($table, @codes) = @_;
	my $list = join ', ', map { "'$_'" } @codes;
	sql(<<~SQL);
		CREATE SEQUENCE ${table}_tries;
		CREATE FUNCTION ${table}_flaky(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS \$\$
		DECLARE
			codes text[] := ARRAY[$list];
			n bigint;
		BEGIN
			IF x = 7 THEN
				n := nextval('public.${table}_tries');
				IF n <= array_length(codes, 1) THEN
					RAISE EXCEPTION 'not now' USING ERRCODE = codes[n];
				END IF;
			END IF;
			RETURN x;
		END \$\$;
		CREATE TABLE $table (id int PRIMARY KEY, v int NOT NULL);
		INSERT INTO $table SELECT g, g FROM generate_series(1, 1000) AS g;
		CREATE TABLE ${table}_parts (id int NOT NULL, v int NOT NULL) PARTITION BY HASH (id);
		CREATE TABLE ${table}_0 PARTITION OF ${table}_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
		SELECT migrate_ext.create_migration('$table', '${table}_parts', options => '{"columns": {"v": "public.${table}_flaky(s.v)"}, "reverse_columns": {"v": "s.v"}}');
		SQL
	return;
}

# In the copy, by the leader and by a helper, and in the drain of a row that has changed since the trigger came.
sub passing_errors
{
	my @codes = qw(40001 40P01 55P03 57014 53200);
	my ($workers, $drained, $table, $name) = @_;
	make_flaky($table, @codes);
	sql("SELECT migrate_ext.configure('$table', 'workers', '$workers'); SELECT migrate_ext.install_sync('$table'); CALL migrate_ext.wait_for('$table', 'logging')");
	sql("UPDATE $table SET v = v WHERE id = 7") if $drained;
	sql("SELECT migrate_ext.start('$table')");
	wait_live($node, $table);
	is(rows_that_differ($node, $table, "${table}_parts"), '0', "$name: an error that passes does not last");
	is(sql("SELECT count(*) FROM migrate_ext.failed_rows WHERE migration = '$table'"), '0', "$name: nor is it a row's");
	cmp_ok(sql("SELECT last_value FROM ${table}_tries"), '>', scalar(@codes), "$name: as often as it came it was tried again");
	is(sql("SELECT paused, last_error IS NULL FROM migrate_ext.migrations WHERE migration = '$table'"), 'f|t', "$name: it is not told any more");
	is(sql("SELECT count(*) BETWEEN 1 AND 5 FROM migrate_ext.events WHERE migration = '$table' AND kind = 'error'"), 't', "$name: but was")
	  or diag(sql("SELECT at, message FROM migrate_ext.events WHERE migration = '$table' ORDER BY at"));
	sql("CALL migrate_ext.cancel('$table'); DROP TABLE $table, ${table}_parts;");
	return;
}

# ---------------------------------------------------------------------------------------------
# Clients that die

# Whatever a call is about, it doesn't outlive who has asked for it. No NOTICE, or its sending would tell. Where a point
# is given, the client dies while the call stands there.
sub dies_asking
{
	my ($call, $point) = @_;
	my $log      = -s $node->logfile;
	my $hold     = $point ? hold_point($node, $point) : undef;
	my $session  = begin_call($node, "SET client_min_messages = error;\nCALL migrate_ext.$call");
	my $sessions = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(query, \$\$CALL migrate_ext.$call\$\$) AND pid <> pg_backend_pid()";
	poll_query($node, $sessions . ($hold ? " AND $hold->{pid} = ANY (pg_blocking_pids(pid))" : ''), '1');
	$session->{run}->kill_kill;
	release_point($hold) if $hold;
	ok(poll_query($node, $sessions, '0'), "client gone: $call ends");
	like(slurp_file($node->logfile, $log), qr/FATAL:  connection to client lost/, 'client gone: because of that');
	return;
}

sub lost_clients
{
	sql(<<~'SQL');
		CREATE TABLE left_alone (id int PRIMARY KEY, k int NOT NULL);
		INSERT INTO left_alone SELECT g, g FROM generate_series(1, 1000) AS g;
		SELECT migrate_ext.partition_by_hash('left_alone', 'k', 2);
		SELECT migrate_ext.start('left_alone');
		SQL
	wait_live($node, 'left_alone');
	dies_asking("verify('left_alone')", 'verify_before_commit');
	is(sql("SELECT count(*) FROM migrate_ext.verifications WHERE migration = 'left_alone'"), '0', 'client gone: nothing is told of a comparison that has not ended');
	my $holder = open_session($node);
	$holder->query_safe('BEGIN; SELECT count(*) FROM left_alone');
	dies_asking($_) for "rehearse('left_alone')", "finalize('left_alone', '1 h')", "wait_for('left_alone', 'swapped', '1 h')";
	$holder->query_safe('COMMIT');
	$holder->quit;
	is(migration_state($node, 'left_alone'), 'live', 'client gone: nothing is done for it');
	is(errors("\\set QUIET\nSET client_min_messages = error; CALL migrate_ext.finalize('left_alone', '60 s'); CALL migrate_ext.complete('left_alone')"), '', 'client gone: it is in nobody\'s way');
	return;
}

# ---------------------------------------------------------------------------------------------
# What the application sees

# Both sides refuse what the other takes: partitions, n, v and the unique key of the target; m and u of the source.
sub make_pair
{
	my ($table, $state) = @_;
	sql(<<~SQL);
		CREATE FUNCTION ${table}_there(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS \$\$ BEGIN IF v = 'raise' THEN RAISE EXCEPTION 'no'; END IF; RETURN v; END \$\$;
		CREATE FUNCTION ${table}_back(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS \$\$ BEGIN IF v = 'raise' THEN RAISE EXCEPTION 'no'; END IF; RETURN v; END \$\$;
		CREATE TABLE $table (id int PRIMARY KEY, k int NOT NULL, n bigint, v text, m int, u int UNIQUE, w int);
		INSERT INTO $table SELECT g, 1 + g % 2, g, 'fine', g, g, g FROM generate_series(1, 20) AS g;
		CREATE TABLE ${table}_new (id int NOT NULL, k int NOT NULL, n int, v text NOT NULL CHECK (v <> 'bad'), m bigint, u int, w int, UNIQUE (w, k)) PARTITION BY LIST (k);
		CREATE TABLE ${table}_1 PARTITION OF ${table}_new FOR VALUES IN (1);
		CREATE TABLE ${table}_2 PARTITION OF ${table}_new FOR VALUES IN (2);
		SELECT migrate_ext.create_migration('$table', '${table}_new', options => '{"columns": {"n": "s.n::int", "v": "public.${table}_there(s.v)", "m": "s.m::bigint"},
			"reverse_columns": {"n": "s.n::bigint", "v": "public.${table}_back(s.v)", "m": "s.m::int"}}');
		SELECT migrate_ext.install_sync('$table');
		CALL migrate_ext.wait_for('$table', 'logging');
		SQL
	sql("SELECT migrate_ext.start('$table'); CALL migrate_ext.wait_for('$table', 'live');") if $state ne 'logging';
	sql("CALL migrate_ext.finalize('$table', '60 s')") if $state eq 'swapped';
	return;
}

# A change, and what the application says of it in states logging, live and swapped: an SQLSTATE, or nothing.
# "kept": a row of it is then in the log or in failed_rows. "before" and "after" are done by others.
my @SEEN = (
	{ name => 'nothing special', write => 'UPDATE T SET v = v WHERE id = 1' },
	{ name => 'no partition', write => 'UPDATE T SET k = 9 WHERE id = 2', live => 'kept', swapped => '23514' },
	{ name => 'a value that does not fit', write => 'UPDATE T SET n = 3000000000 WHERE id = 3', live => 'kept', swapped => '22003' },
	{ name => 'a CHECK', write => "UPDATE T SET v = 'bad' WHERE id = 4", live => 'kept', swapped => '23514' },
	{ name => 'NOT NULL', write => 'UPDATE T SET v = NULL WHERE id = 5', live => 'kept', swapped => '23502' },
	{ name => 'a unique key', write => 'UPDATE T SET w = 8 WHERE id = 6', live => 'kept', swapped => '23505' },
	{ name => 'an expression that fails', write => "UPDATE T SET v = 'raise' WHERE id = 7", live => 'kept', swapped => 'kept' },
	{ name => 'a value too large for the original', write => 'UPDATE T SET m = m + 3000000000 WHERE id = 8', logging => '22003', live => '22003', swapped => 'kept' },
	{ name => 'a unique key of the original', write => 'UPDATE T SET u = 10 WHERE id = 9', logging => '23505', live => '23505', swapped => 'kept' },
	{ name => 'a function that is gone', before => 'DROP FUNCTION T_there, T_back', write => "UPDATE T SET v = 'x' WHERE id = 10",
		after => 'CREATE FUNCTION T_there(v text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT v $$; CREATE FUNCTION T_back(v text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT v $$',
		live => 'kept', swapped => 'kept' },
	{ name => 'a definition that is none', before => q{UPDATE migrate_ext.migration SET options = jsonb_set(jsonb_set(options, '{columns,v}', '"nonsense("'), '{reverse_columns,v}', '"nonsense("') WHERE name = 'T'},
		write => "UPDATE T SET v = 'y' WHERE id = 11", live => 'kept', swapped => 'kept',
		after => q{UPDATE migrate_ext.migration SET options = jsonb_set(jsonb_set(options, '{columns,v}', '"public.T_there(s.v)"'), '{reverse_columns,v}', '"public.T_back(s.v)"') WHERE name = 'T'} },
	{ name => 'a table that is locked', lock => 1, write => "SET lock_timeout = 200; UPDATE T SET v = 'locked' WHERE id = 13", live => '55P03', swapped => '55P03' },
	{ name => 'a record that is gone', write => "BEGIN; DELETE FROM migrate_ext.migration WHERE name = 'T'; UPDATE T SET v = 'a' WHERE id = 14; ROLLBACK;", warns => 1 },
	{ name => 'a log that is gone', write => "BEGIN; SET LOCAL allow_system_table_mods = on; DELETE FROM pg_depend WHERE objid = 'LOG'::regclass AND deptype = 'e'; DROP TABLE LOG CASCADE; UPDATE T SET v = 'a' WHERE id = 15; ROLLBACK;" },
	{ name => 'a table that is gone', write => "BEGIN; DROP TABLE BACK CASCADE; UPDATE T SET v = 'a' WHERE id = 16; ROLLBACK;" },
	{ name => 'an extension that is gone', write => "BEGIN; DROP EXTENSION migrate_ext CASCADE; UPDATE T SET v = 'a' WHERE id = 17; INSERT INTO T (id, k, v) VALUES (100, 1, 'n'); TRUNCATE T; ROLLBACK;" },
);

sub seen_in
{
	my ($state) = @_;
	my $table = "seen_$state";
	make_pair($table, $state);
	my %name = (T => $table, BACK => $state eq 'swapped' ? "${table}_orig" : "${table}_new", LOG => sql("SELECT log FROM migrate_ext.migration WHERE name = '$table'"));
	sql("SELECT migrate_ext.pause('$table')");    # so that what is kept stays where it is
	my $fill_in = sub { return $_[0] =~ s/\b(T|BACK|LOG)(?=\b|_there|_back)/$name{$1}/gr };
	for my $seen (@SEEN)
	{
		my $expected = $seen->{$state} // '';
		my $known = "SELECT log_entries + failed FROM migrate_ext.progress WHERE migration = '$table'";
		my $before = sql($known);
		my $holder;
		sql($fill_in->($seen->{before})) if $seen->{before};
		if ($seen->{lock})
		{
			$holder = open_session($node);
			$holder->query_safe($fill_in->('BEGIN; LOCK TABLE BACK IN ACCESS EXCLUSIVE MODE'));
		}
		my $err = errors($fill_in->($seen->{write}));
		my ($got) = $err =~ /ERROR:  (\w{5}):/;
		is($got // '', $expected eq 'kept' ? '' : $expected, "$state: $seen->{name}") || diag($err);
		cmp_ok(sql($known), '>', $before, "$state: $seen->{name}: the row is known") if $expected eq 'kept';
		like($err, qr/WARNING:  \w+: migrate_ext does not carry over changes/, "$state: $seen->{name}: a warning") if $seen->{warns};
		if ($holder)
		{
			$holder->query_safe('COMMIT');
			$holder->quit;
		}
		sql($fill_in->($seen->{after})) if $seen->{after};
	}
	# and when all is mended, both tables are equal
	sql("UPDATE $table SET n = id, v = 'fine', m = id, u = id, w = id, k = 1 + id % 2");
	return if $state eq 'logging';
	sql("SELECT migrate_ext.resume('$table')");
	sql("SELECT migrate_ext.retry_failed('$table')");
	ok(poll_query($node, "SELECT log_entries + failed FROM migrate_ext.progress WHERE migration = '$table'", '0'), "$state: all is mended");
	my $order = 'SELECT id, k, n, v, m, u, w FROM';
	is(sql("SELECT count(*) FROM ($order $table EXCEPT ALL $order $name{BACK}) AS missing"), '0', "$state: both tables are equal");
	return;
}

# The package is removed from the machine, not the extension from the database: one statement takes the triggers away.
sub without_library
{
	sql('CREATE DATABASE orphan');
	sql("CREATE EXTENSION migrate_ext; CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL); SELECT migrate_ext.partition_by_hash('t', 'k', 2); SELECT migrate_ext.install_sync('t'); CALL migrate_ext.wait_for('t', 'logging');", 'orphan');
	sql("SELECT migrate_ext.pause('t'); SET allow_system_table_mods = on; UPDATE pg_proc SET probin = '\$libdir/removed' WHERE pronamespace = 'migrate_ext'::regnamespace AND probin IS NOT NULL;", 'orphan');
	like(errors('INSERT INTO t VALUES (1, 1)', 'orphan'), qr/58P01: could not access file "(\$libdir\/)?removed"/, 'library removed: writes fail, and say so');
	is(errors("\\set QUIET\nSET client_min_messages = error; DROP EXTENSION migrate_ext CASCADE; INSERT INTO t VALUES (1, 1);", 'orphan'), '', 'library removed: one statement mends it');
	is(sql('SELECT count(*) FROM t', 'orphan'), '1', 'library removed: and the write is there');
	return;
}

# The target's tablespace on a file system with two megabytes of room, which the server alone sees.
sub full_disk
{
	my $dir = PostgreSQL::Test::Utils::tempdir('small');
	my @unshare = qw(unshare --user --mount --map-current-user --keep-caps sh -c);
	my $mount = "mount -t tmpfs -o size=32m,mode=0700 tmpfs $dir && mkdir $dir/space && head -c 30m /dev/zero > $dir/ballast";
  SKIP:
	{
		skip 'no file system can be mounted here', 9 if system(@unshare, "{ $mount; } 2>/dev/null") != 0;
		$node->stop;
		system(@unshare, "$mount && exec pg_ctl -w -D " . $node->data_dir . ' -l ' . $node->logfile . ' start >/dev/null') == 0 or die 'no server';
		$node->_update_pid(1);
		sql("CREATE TABLESPACE small LOCATION '$dir/space'");
		sql(<<~'SQL');
			CREATE TABLE big (id int PRIMARY KEY, k int NOT NULL, v text);
			INSERT INTO big SELECT g, 1, repeat('x', 1000) FROM generate_series(1, 200) AS g;
			CREATE TABLE big_new (id int NOT NULL, k int NOT NULL, v text) PARTITION BY LIST (k);
			CREATE TABLE big_1 PARTITION OF big_new FOR VALUES IN (1) TABLESPACE small;
			SELECT migrate_ext.create_migration('big', 'big_new');
			SELECT migrate_ext.install_sync('big');
			CALL migrate_ext.wait_for('big', 'logging');
			SQL
		my $fill = "INSERT INTO big SELECT g, 1, repeat('x', 1000) FROM generate_series(1001, 5000) AS g";
		is(errors("BEGIN; $fill; ROLLBACK;"), '', 'full disk, logging: the application writes');
		sql("SELECT migrate_ext.start('big'); CALL migrate_ext.wait_for('big', 'live');");
		like(errors($fill), qr/ERROR:  53100: could not extend file/, 'full disk, live: the write fails, as on a full disk of its own');
		is(errors("UPDATE big SET v = 'short' WHERE id < 10"), '', 'full disk, live: where there is room, it does not');
		is(rows_that_differ($node, 'big', 'big_new'), '0', 'full disk, live: both tables are equal');
		sql("CALL migrate_ext.cancel('big')");
		is(errors($fill), '', 'full disk: one call ends it');

		# while it is copied
		sql("DROP TABLE big_new; CREATE TABLE big_2 (id int NOT NULL, k int NOT NULL, v text) PARTITION BY LIST (k); CREATE TABLE big_2_1 PARTITION OF big_2 FOR VALUES IN (1) TABLESPACE small;");
		sql("SELECT migrate_ext.create_migration('big', 'big_2', 'again'); SELECT migrate_ext.start('again');");
		ok(poll_query($node, "SELECT last_error ~ 'could not extend file' AND state = 'copying' FROM migrate_ext.migrations WHERE migration = 'again'"), 'full disk, copying: it waits, and says why');
		is(sql("SELECT failed, paused FROM migrate_ext.progress JOIN migrate_ext.migrations USING (migration) WHERE migration = 'again'"), '0|f', 'full disk, copying: no row is to blame');
		is(errors("INSERT INTO big VALUES (9999, 1, repeat('x', 1000)); DELETE FROM big WHERE id = 1001"), '', 'full disk, copying: the application writes');
		sql("COPY (SELECT) TO PROGRAM 'rm $dir/ballast'");
		wait_live($node, 'again');
		is(rows_that_differ($node, 'big', 'big_2'), '0', 'full disk, copying: with room again it goes on');
		$node->stop('immediate');
	}
	return;
}

# ---------------------------------------------------------------------------------------------

$node = new_node('main');
settings();
passing_errors(0, 0, 'by_leader', 'copied by the leader');
passing_errors(1, 0, 'by_helper', 'copied by a helper');
passing_errors(1, 1, 'drained', 'drained');
lost_clients();
seen_in($_) for qw(logging live swapped);
without_library();
full_disk();
done_testing();
