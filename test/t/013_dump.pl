# What a dump makes of migrations under way: nothing of them comes along but their triggers.  A database
# restored from one can be written as if they were not there; one statement removes them, and a migration
# begins anew.  pg_upgrade takes everything along, and there resume goes on.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# "undone" is live after a swap and its undo.  An index build is missing here: pg_dump waits for it.
my @STATES = qw(created logging copying live undone swapped completed);
my $ROWS   = 1000;

sub make_migration
{
	my ($table) = @_;
	sql(<<~SQL);
		CREATE TABLE $table (id int PRIMARY KEY, k int NOT NULL, v int NOT NULL DEFAULT 0);
		INSERT INTO $table SELECT g, g % 16 FROM generate_series(1, $ROWS) AS g;
		SELECT migrate_ext.partition_by_hash('$table', 'k', 3);
		SQL
	return;
}

# One in each state, t_<state>.  Returns the point that keeps the copy from going on.
sub bring_into_states
{
	make_migration("t_$_") for @STATES;
	for my $state (qw(live undone swapped completed))
	{
		sql("SELECT migrate_ext.start('t_$state')");
		wait_live($node, "t_$state");
		sql("CALL migrate_ext.finalize('t_$state', '60 s')") if $state ne 'live';
		sql("CALL migrate_ext.undo('t_$state', '60 s')")     if $state eq 'undone';
		sql("CALL migrate_ext.complete('t_$state')")         if $state eq 'completed';
	}
	sql("SELECT migrate_ext.install_sync('t_logging')");
	wait_state($node, 't_logging', 'logging');
	my $point = hold_point($node, 'copy_before_commit');
	sql("SELECT migrate_ext.start('t_copying')");
	wait_point($point) or die 'nobody copies';
	is(join(' ', map { migration_state($node, "t_$_") } @STATES),
		join(' ', map { $_ eq 'undone' ? 'live' : $_ } @STATES), 'a migration in each state');
	write_ok("t_$_", 'postgres', 0, 'before the dump') for @STATES;
	return $point;
}

# Not one error; of warnings, that nothing is carried over, or, where a migration is at work, none.
sub write_ok
{
	my ($table, $database, $round, $name) = @_;
	my $from = 10000 * ($round + 1);
	my $err = errors(<<~SQL, $database);
		INSERT INTO $table SELECT $from + g, g % 16, -1 FROM generate_series(1, 50) AS g;
		UPDATE $table SET v = v + 1 WHERE id % 3 = 0;
		UPDATE $table SET k = (k + 5) % 16 WHERE id % 7 = $round;
		UPDATE $table SET id = id + 100000 * ($round + 1) WHERE id % 11 = $round;
		DELETE FROM $table WHERE id % 13 = $round;
		SQL
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike($err, qr/ERROR|FATAL|connection/, "$table: can be written, $name");
	return $err;
}

# The table's rows as text, to compare one database with another.
sub content
{
	my ($table, $database) = @_;
	return sql("SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM $table t", $database);
}

my $LEFT_OVER = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE '!migrate_ext%'";

# restore(database, format): of what is in "postgres" now
sub restore_ok
{
	my ($database, $format, @options) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir('dump') . "/$format";
	$node->command_ok([ 'pg_dump', "--format=$format", "--file=$file", @options, 'postgres' ], "$database: pg_dump");
	sql("CREATE DATABASE $database");
	my @command = $format eq 'plain'
	  ? ('psql', '-X', '-q', '--set=ON_ERROR_STOP=1', "--file=$file", $database)
	  : ('pg_restore', '--exit-on-error', "--dbname=$database", $file);
	$node->command_checks_all(\@command, 0, [], [qr/^$/], "$database: restored without an error or warning");
	return;
}

# ---------------------------------------------------------------------------------------------
# A dump

sub restored_is_plain
{
	my ($database) = @_;
	for my $state (@STATES)
	{
		my $table = "t_$state";
		is(content($table, $database), content($table), "$database, $state: the rows are there");
		my $err = write_ok($table, $database, 1, "in a restored database ($database)");
		my $warns = $state =~ /^(created|completed)$/ ? 0 : 1;
		my @warnings = $err =~ /WARNING:  \S+ migrate_ext does not carry over changes of table "([^"]+)"/g;
		my %seen;
		$seen{$_}++ for @warnings;
		is(join(' ', grep { $seen{$_} > 1 } keys %seen), '', "$database, $state: nobody is warned twice in a session");
		is(@warnings ? 1 : 0, $warns, "$database, $state: " . ($warns ? 'a warning says what is not done' : 'no trigger, no warning'));
		like($err, qr/The migration does not exist.*HINT:.*restored from a dump.*DROP EXTENSION migrate_ext CASCADE/s,
			"$database, $state: and what to do") if $warns;
		unlike(errors("BEGIN; TRUNCATE $table; ROLLBACK;", $database), qr/ERROR/, "$database, $state: TRUNCATE");
	}
	is(sql('SELECT count(*) FROM migrate_ext.migrations', $database), '0', "$database: no migration is there");
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE datname = '$database' AND backend_type LIKE 'migrate_ext%'"), '0',
		"$database: no worker");
	return;
}

# A number that a trigger of the dump has is given to a migration of another table.
sub numbers_do_not_matter
{
	my ($database) = @_;
	sql(<<~SQL, $database);
		CREATE TABLE other (id int PRIMARY KEY, k int NOT NULL);
		INSERT INTO other SELECT g, g FROM generate_series(1, 100) g;
		SELECT migrate_ext.partition_by_hash('other', 'k', 2);
		SELECT migrate_ext.start('other');
		CALL migrate_ext.wait_for('other', 'live', '60 s');
		SQL
	my $id = sql("SELECT id FROM migrate_ext.migration WHERE name = 'other'", $database);
	is(sql(q{SELECT count(*) > 0 FROM pg_trigger WHERE encode(tgargs, 'escape') = '} . $id . q{\000' AND tgrelid <> 'other'::regclass AND NOT tgisinternal}, $database),
		't', "$database: a trigger of the dump has the number of a new migration");
	write_ok("t_$_", $database, 2, "beside a migration of that number ($database)") for @STATES;
	is(sql('SELECT (SELECT count(*) FROM other), (SELECT count(*) FROM other_new)', $database), '100|100',
		"$database: and nothing of it comes into the new one");
	sql("CALL migrate_ext.finalize('other', '60 s'); CALL migrate_ext.complete('other', drop_original => true);", $database);
	return;
}

# Before a swap: with a new target, or with the one that came along, which is compared and put right.
sub begin_anew
{
	my ($database) = @_;
	for my $state (qw(copying live undone))
	{
		my $table = "t_$state";
		for my $adopt (1, 0)
		{
			my $how = $adopt ? 'with the target that came along' : 'from the start';
			sql("DROP TABLE ${table}_new", $database) if !$adopt;
			sql($adopt ? "SELECT migrate_ext.create_migration('$table', '${table}_new')" : "SELECT migrate_ext.partition_by_hash('$table', 'k', 3)",
				$database);
			write_ok($table, $database, 3 + 2 * $adopt, "before it begins anew $how");
			sql("SELECT migrate_ext.start('$table'); CALL migrate_ext.wait_for('$table', 'live', '60 s')", $database);
			unlike(write_ok($table, $database, 4 + 2 * $adopt, "$how"), qr/WARNING/, "$database, $state: begun anew $how, no warning any more");
			is( sql("SELECT (SELECT count(*) FROM (TABLE $table EXCEPT ALL TABLE ${table}_new) x) + (SELECT count(*) FROM (TABLE ${table}_new EXCEPT ALL TABLE $table) x)", $database),
				'0', "$database, $state: begun anew $how, both tables are equal");
			sql("CALL migrate_ext.finalize('$table', '60 s'); CALL migrate_ext.undo('$table', '60 s'); CALL migrate_ext.cancel('$table')", $database);
			is(sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = '$table'::regclass", $database), '0', "$database, $state: begun anew $how, and cancelled");
		}
	}
	return;
}

sub one_statement_removes_all
{
	my ($database) = @_;
	my $rows = content('t_swapped', $database);
	isnt(sql($LEFT_OVER, $database), '0', "$database: there are triggers of the dump");
	unlike(errors('DROP EXTENSION migrate_ext CASCADE', $database), qr/ERROR/, "$database: DROP EXTENSION ... CASCADE");
	is(sql($LEFT_OVER, $database), '0', "$database: removes all of them");
	is(content('t_swapped', $database), $rows, "$database: and no row");
	is(write_ok("t_$_", $database, 8, 'without the extension'), '', "$database, $_: without a warning") for @STATES;
	unlike(errors('DROP TABLE t_swapped_orig, t_logging_new', $database), qr/ERROR/, "$database: what else is left can be dropped");
	return;
}

# The value of a sharding key is not in the dump either: the same call as at first puts it in force again.
my $ADD_KEY = "SELECT migrate_ext.add_sharding_key('keyed', 'k', 'int', '(SELECT p.k FROM parent p WHERE p.id = s.parent)')";

sub make_keyed
{
	sql(<<~SQL);
		CREATE TABLE parent (id int PRIMARY KEY, k int NOT NULL);
		INSERT INTO parent SELECT g, g FROM generate_series(1, 10) g;
		CREATE TABLE keyed (gone int, id int PRIMARY KEY, parent int NOT NULL);
		ALTER TABLE keyed DROP COLUMN gone;
		$ADD_KEY;
		INSERT INTO keyed SELECT g, g FROM generate_series(1, 5) g;
		SQL
	return;
}

sub key_is_put_back
{
	my ($database) = @_;
	like(errors("INSERT INTO keyed VALUES (6, 6)", $database), qr/^[^\n]*WARNING:.*HINT:[^\n]*restored from a dump[^\n]*add_sharding_key/s,
		"$database: a sharding key is not filled, and a warning says what to do");
	# the number of the trigger that came along is given to a key of another table
	sql(<<~SQL, $database);
		CREATE TABLE fresh (id int PRIMARY KEY);
		SELECT migrate_ext.add_sharding_key('fresh', 'k', 'int', 's.id + 1');
		SQL
	is( sql("SELECT count(*) FROM pg_trigger a JOIN pg_trigger b USING (tgargs) WHERE a.tgrelid = 'fresh'::regclass AND b.tgrelid = 'keyed'::regclass", $database),
		'1', "$database: two tables have a trigger of the same number");
	sql('INSERT INTO keyed VALUES (8, 8); INSERT INTO fresh VALUES (1);', $database);
	is(sql('SELECT k FROM fresh', $database), '2', "$database: and each is told from the other");
	is(errors($ADD_KEY, $database), '', "$database: it is asked for again");
	is(errors("INSERT INTO keyed VALUES (7, 7)", $database), '', "$database: without a warning");
	is(sql("SELECT string_agg(id || ' ' || coalesce(k::text, '-'), ', ' ORDER BY id) FROM keyed WHERE id > 4", $database), '5 5, 6 -, 7 7, 8 -',
		"$database: it is filled again");
	is(sql("SELECT string_agg(tgname, ' ') FROM pg_trigger WHERE tgrelid = 'keyed'::regclass", $database), '!migrate_ext_fill',
		"$database: by one trigger");
	return;
}

# As after the package was removed from the machine: its file is not found any more.
sub library_is_gone
{
	restore_ok('gone', 'custom');
	sql(q{UPDATE pg_proc SET probin = '$libdir/migrate_ext_gone' WHERE probin = '$libdir/migrate_ext'}, 'gone');
	like(errors('UPDATE t_live SET v = 1', 'gone'), qr/58P01/, 'library gone: a write fails, as PostgreSQL has no code for the trigger');
	unlike(errors('DROP TRIGGER "!migrate_ext_sync" ON t_live; UPDATE t_live SET v = 1;', 'gone'), qr/ERROR/,
		'library gone: its trigger can be dropped, and the table written');
	unlike(errors('DROP EXTENSION migrate_ext CASCADE', 'gone'), qr/ERROR/, 'library gone: one statement removes all of it');
	is(sql($LEFT_OVER, 'gone'), '0', 'library gone: no trigger is left');
	is(write_ok("t_$_", 'gone', 1, 'library gone'), '', "$_: without a warning, library gone") for @STATES;
	return;
}

# A dump under way has its snapshot and its locks: the swap comes after it, and the dump has what was there when it
# began.  pg_dump is in the middle of the rows as long as nobody reads what it writes.
sub dump_goes_on
{
	my ($call, $database, $round) = @_;
	my $content = content('dumped');
	my $file = PostgreSQL::Test::Utils::tempdir('dump') . '/half';
	open my $dump, '-|', 'pg_dump', '--section=pre-data', '--section=data', '--table=dumped*', $node->connstr('postgres') or die "pg_dump: $!\n";
	my $half = '';
	while ($half !~ /^COPY /m)
	{
		defined(my $line = <$dump>) or die "pg_dump ended:\n$half\n";
		$half .= $line;
	}
	my $pid = sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'pg_dump'");
	write_ok('dumped', 'postgres', $round, "while it is dumped, $call");
	my $named = qr/MX002.*\b$pid\b/s;
	like((errors_in_time(sub { errors("CALL migrate_ext.$call('dumped', '$_[0] s')") }, $named))[0], $named, "$call waits for a dump, and names it");
	my $swap = begin_call($node, "CALL migrate_ext.$call('dumped', '120 s')");
	append_to_file($file, $half . do { local $/; <$dump> });
	ok(close($dump), "$call: the dump comes to its end");
	is(end_call($swap), '', "$call: and then the swap");
	sql("CREATE DATABASE $database");
	$node->command_ok([ 'psql', '-X', '-q', '--set=ON_ERROR_STOP=1', "--file=$file", $database ], "$call: it can be restored");
	is(content('dumped', $database), $content, "$call: and has what was there when it began");
	return;
}

sub swaps_wait_for_dumps
{
	make_migration('dumped');
	sql("ALTER TABLE dumped ADD pad text; ALTER TABLE dumped ALTER pad SET STORAGE EXTERNAL; UPDATE dumped SET pad = repeat('x', 4000);
		SELECT migrate_ext.replace_sync('dumped'); SELECT migrate_ext.start('dumped');");
	wait_live($node, 'dumped');
	sql("CALL migrate_ext.verify('dumped')");
	dump_goes_on('finalize', 'dumped_before_finalize', 1);
	dump_goes_on('undo',     'dumped_before_undo',     2);
	is(rows_that_differ($node, 'dumped', 'dumped_new'), '0', 'dumped: both tables are equal');
	return;
}

sub dump_node
{
	$node = new_node('dump');
	make_keyed();
	my $point = bring_into_states();
	restore_ok('custom', 'custom');
	restore_ok('plain', 'plain');
	restored_is_plain($_) for qw(custom plain);
	key_is_put_back($_) for qw(custom plain);
	numbers_do_not_matter('custom');
	begin_anew('custom');
	one_statement_removes_all($_) for qw(custom plain);
	library_is_gone();
	release_point($point);
	wait_live($node, 't_copying');
	is(rows_that_differ($node, "t_$_", "t_${_}_new"), '0', "$_: who was dumped goes on") for qw(copying live);
	swaps_wait_for_dumps();
	$node->stop;
	return;
}

# ---------------------------------------------------------------------------------------------
# pg_upgrade, from this version to itself

# Its next step finds another trigger: the migration pauses and says what to do.
sub pauses_ok
{
	my ($table) = @_;
	ok(poll_query($node, "SELECT paused AND pause_reason ~ 'trigger' FROM migrate_ext.migrations WHERE migration = '$table'"),
		"upgraded, $table: paused, as its trigger is another one");
	is(sql("SELECT next_step FROM migrate_ext.progress WHERE migration = '$table'"), "SELECT migrate_ext.resume('$table')",
		"upgraded, $table: progress says what to do");
	sql("SELECT migrate_ext.resume('$table')");
	is(write_ok($table, 'postgres', 3, 'resumed'), '', "upgraded, $table: writes go on");
	return;
}

sub upgrade_node
{
	my $old = $node = new_node('before');
	my $point = bring_into_states();
	drop_point($point);
	sql("SELECT migrate_ext.pause('t_copying', 'before the upgrade')");
	my %content = map { $_ => content("t_$_") } @STATES;
	my $states = join ' ', map { migration_state($node, "t_$_") } @STATES;
	$old->stop;

	my $new = PostgreSQL::Test::Cluster->new('after');
	$new->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
	$new->append_conf('postgresql.conf', slurp_file("$FindBin::RealBin/../postgresql.conf"));
	my $bin = $new->config_data('--bindir');
	chdir PostgreSQL::Test::Utils::tempdir('upgrade');
	$new->command_ok([ 'pg_upgrade', '--no-sync', '--old-datadir' => $old->data_dir, '--new-datadir' => $new->data_dir,
		'--old-bindir' => $bin, '--new-bindir' => $bin, '--socketdir' => $new->host, '--old-port' => $old->port, '--new-port' => $new->port ],
		'pg_upgrade');
	$new->start;
	$node = $new;
	is(join(' ', map { migration_state($node, "t_$_") } @STATES), $states, 'upgraded: the migrations are there');
	is(content("t_$_"), $content{$_}, "upgraded, $_: the rows are there") for @STATES;
	is(write_ok("t_$_", 'postgres', 2, 'upgraded'), '', "upgraded, $_: no warning") for @STATES;
	is(rows_that_differ($node, 't_live', 't_live_new'), '0', 'upgraded: live is live from the first statement on');
	is(rows_that_differ($node, 't_swapped', 't_swapped_orig'), '0', 'upgraded: swapped, too');

	sql("SELECT migrate_ext.resume('t_copying')");
	sql("SELECT migrate_ext.start('t_logging')");
	pauses_ok("t_$_") for qw(copying logging);
	wait_live($node, 't_copying', 't_logging');
	is(rows_that_differ($node, $_, "${_}_new"), '0', "upgraded, $_: live, and both tables are equal") for qw(t_copying t_logging);
	for my $state (qw(live undone swapped))
	{
		my ($call, $other) = $state eq 'swapped' ? ('undo', '_new') : ('finalize', '_orig');
		like(errors("CALL migrate_ext.$call('t_$state', '60 s')"), qr/MX004.*trigger/s, "upgraded, t_$state: $call is refused");
		pauses_ok("t_$state");
		unlike(errors("CALL migrate_ext.$call('t_$state', '60 s')"), qr/ERROR/, "upgraded, t_$state: $call does then");
		is(rows_that_differ($node, "t_$state", "t_$state$other"), '0', "upgraded, t_$state: both tables are equal");
	}
	sql("CALL migrate_ext.finalize('t_copying', '60 s')");
	is(rows_that_differ($node, 't_copying', 't_copying_orig'), '0', 'upgraded: to the end');
	$node->stop;
	return;
}

dump_node();
upgrade_node();
done_testing;
