# Each lock stronger than SHARE UPDATE EXCLUSIVE that a migration takes on its table, or on one that is linked to it,
# is in the README's list and in the one here, and comes of an attempt whose waits are bounded.  What each transaction
# has locked at its end, it tells the server's log itself (debug_locks()), so nothing is missed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MigrateTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ---------------------------------------------------------------------------------------------
# The list: relation, lock, and between which states of the migration, or in which call in a transaction of the
# caller's.  A rehearsal is told as created-live, enforce_key() as created-none: nobody has looked at a state there.
# An index counts as its table; the extension's own tables don't.

my $SWAPS = 'live-swapped swapped-live created-live swap unswap';
my %ALLOWED = (
	# installed, started over, going live, drained and mended, made on the original when it is the other table
	'source ShareRowExclusiveLock' => "created-logging copying-logging catching_up-logging catching_up-live live-live swapped-swapped $SWAPS replace_sync",
	# a trigger made by hand dropped, CHECKs made on the original, both ends, enforce_key
	'source AccessExclusiveLock' => "live-live swapped-swapped swapped-completed live-cancelled created-none $SWAPS",
	# no application is there yet, but for a target that was given to us
	'target AccessExclusiveLock'      => "copying-logging catching_up-logging indexing-catching_up live-live swapped-completed live-cancelled $SWAPS partition_by_hash",
	'target ShareLock'                => 'indexing-catching_up',
	# the triggers for the way back; then what is made while live
	'target ShareRowExclusiveLock'    => "catching_up-catching_up live-live $SWAPS",
	'partition AccessExclusiveLock'   => 'copying-logging catching_up-logging indexing-indexing indexing-catching_up swapped-completed live-cancelled partition_by_hash',
	'partition ShareLock'             => 'copying-logging catching_up-logging indexing-indexing',
	'partition ShareRowExclusiveLock' => 'catching_up-catching_up live-live',
	# foreign keys: made, exchanged, dropped with the original
	'places ShareRowExclusiveLock' => "live-live $SWAPS",
	'places AccessExclusiveLock'   => 'swapped-completed',
	# and those of others
	'child ShareRowExclusiveLock' => "live-live $SWAPS",
	'child AccessExclusiveLock'   => 'swapped-completed',
	# stored queries
	'seen AccessExclusiveLock'    => $SWAPS,
	'ruled ShareRowExclusiveLock' => $SWAPS,
	# the column, the trigger that fills it
	'keyed AccessExclusiveLock'   => 'add_sharding_key',
	'keyed ShareRowExclusiveLock' => 'add_sharding_key');

# ---------------------------------------------------------------------------------------------
# A life with everything linked

sub make_tables
{
	sql(<<~'SQL');
		CREATE TABLE places (id int PRIMARY KEY);
		INSERT INTO places SELECT generate_series(0, 15);
		CREATE TABLE t (id serial PRIMARY KEY, k int NOT NULL REFERENCES places, v int NOT NULL DEFAULT 0 CHECK (v >= 0),
			up int, UNIQUE (id, k), FOREIGN KEY (up, k) REFERENCES t (id, k));
		INSERT INTO t (k) SELECT g % 16 FROM generate_series(1, 500) AS g;
		CREATE INDEX ON t (v);
		CREATE STATISTICS t_both ON k, v FROM t;
		CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE TRIGGER before_it BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION nothing();
		CREATE TABLE child (id int, k int, FOREIGN KEY (id, k) REFERENCES t (id, k));
		CREATE VIEW seen AS SELECT * FROM t;
		CREATE MATERIALIZED VIEW kept AS SELECT k, count(*) FROM t GROUP BY k;
		CREATE TABLE ruled (id int);
		CREATE RULE through AS ON INSERT TO ruled DO ALSO UPDATE t SET v = v + 1 WHERE id = NEW.id;
		CREATE TABLE guarded (id int);
		CREATE POLICY by_t ON guarded USING (id IN (SELECT id FROM t));
		CREATE POLICY of_t ON t USING (true);
		CREATE PUBLICATION told FOR TABLE t WITH (publish_via_partition_root);
		COMMENT ON TABLE t IS 'a table';
		CREATE VIEW roles AS
			SELECT c.oid, CASE WHEN i.indrelid IS NOT NULL THEN 'index of ' ELSE '' END || CASE
				WHEN r.relnamespace = 'migrate_ext'::regnamespace THEN 'ours'
				WHEN r.relkind = 'S' THEN 'sequence'
				WHEN r.relkind = 't' THEN 'toast'
				WHEN EXISTS (SELECT FROM migrate_ext.migration m WHERE m.source = r.oid) THEN 'source'
				WHEN EXISTS (SELECT FROM migrate_ext.migration m WHERE m.target = r.oid) THEN 'target'
				WHEN r.relispartition THEN 'partition'
				ELSE r.relname END AS role
			FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid, pg_class r
			WHERE r.oid = coalesce(i.indrelid, c.oid) AND c.oid >= 16384;
		CREATE ROLE reader;
		GRANT SELECT ON t TO reader;
		SQL
	return;
}

# What each relation is to the migrations, by OID; some are gone when the log is read.
my %role;

sub remember_relations
{
	my $roles = $_[0] // sql("SELECT 'role', oid, role FROM roles");
	$role{$1} = $2 while $roles =~ /^role\|(\d+)\|(.*)$/mg;
	return;
}

# What a call locks in the caller's transaction, which rolls back.
my %in_calls;

sub locked_by
{
	my ($call, $before) = @_;
	my $locks = sql(($before // '') . <<~"SQL");
		BEGIN;
		SELECT FROM (SELECT migrate_ext.$call) x;
		SELECT 'lock', relation, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384
			AND mode ~ '^(Share(RowExclusive)?|(Access)?Exclusive)Lock\$';
		SELECT 'role', oid, role FROM roles;
		ROLLBACK;
		SQL
	remember_relations($locks);
	my ($name) = $call =~ /^(\w+)/;
	$in_calls{"$role{$1} $2 $name"}++ while $locks =~ /^lock\|(\d+)\|(\w+)$/mg;
	return;
}

sub live_a_life
{
	locked_by("partition_by_hash('t', 'k', 3)");
	sql("SELECT migrate_ext.partition_by_hash('t', 'k', 3); SELECT migrate_ext.start('t');");
	wait_live($node, 't');
	sql("UPDATE t_new SET v = v + 1 WHERE id < 10; SELECT migrate_ext.repair('t');");
	ok(poll_query($node, "SELECT log_entries FROM migrate_ext.progress WHERE migration = 't'", '0'), 'drained while live');
	sql("CALL migrate_ext.rehearse('t')");
	sql("CALL migrate_ext.finalize('t', '60 s')");
	sql("ALTER TABLE t ADD CHECK (v < 1000000); CREATE TRIGGER after_it AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION nothing();");
	remember_relations();
	sql("CALL migrate_ext.verify('t'); CALL migrate_ext.undo('t', '60 s'); CALL migrate_ext.verify('t');");
	locked_by("swap('t')");
	sql("CALL migrate_ext.finalize('t', '60 s'); CALL migrate_ext.verify('t');");
	locked_by("unswap('t')");
	sql("CALL migrate_ext.complete('t', drop_original => true)");
	return;
}

# A table of a hundred rows, whose changes are logged.
sub make_logging
{
	my ($table) = @_;
	sql(<<~SQL);
		CREATE TABLE $table (id int PRIMARY KEY, k int NOT NULL);
		INSERT INTO $table SELECT g, g FROM generate_series(1, 100) g;
		SELECT migrate_ext.partition_by_hash('$table', 'k', 2);
		SELECT migrate_ext.install_sync('$table');
		CALL migrate_ext.wait_for('$table', 'logging', '60 s');
		SQL
	return;
}

# Somebody writes until the triggers for the way back are there, and the table is emptied before it is live.
sub starts_over_late
{
	make_logging('late');
	my $writer = $node->background_psql('postgres');
	$writer->query_safe('BEGIN; UPDATE late SET k = k WHERE id = 1');
	sql("SELECT migrate_ext.start('late')");
	ok(poll_query($node, "SELECT count(*) > 0 FROM migrate_ext.events WHERE migration = 'late' AND kind = 'reverse'"), 'the way back is paved');
	my $point = hold_point($node, 'step_catching_up');
	wait_point($point);
	$writer->query_safe('COMMIT');
	$writer->quit;
	is(migration_state($node, 'late'), 'catching_up', 'and it is not live');
	remember_relations();
	sql('TRUNCATE late; INSERT INTO late SELECT g, g FROM generate_series(1, 100) g');
	release_point($point);
	wait_live($node, 'late');
	remember_relations();
	sql("CALL migrate_ext.cancel('late')");
	return;
}

# A target that is given, in place of a hand-written trigger; a table that is rewritten, tampered with, cancelled.
sub live_others
{
	sql(<<~'SQL');
		CREATE TABLE given (id int PRIMARY KEY, v int);
		INSERT INTO given SELECT g, g FROM generate_series(1, 100) g;
		CREATE TABLE given_to (id int PRIMARY KEY, v int) PARTITION BY HASH (id);
		CREATE TABLE given_p PARTITION OF given_to FOR VALUES WITH (MODULUS 1, REMAINDER 0);
		INSERT INTO given_to SELECT * FROM given WHERE id < 50;
		CREATE INDEX ON given (v);
		CREATE FUNCTION by_hand() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO given_to VALUES (NEW.*); RETURN NULL; END';
		CREATE TRIGGER by_hand AFTER INSERT ON given FOR EACH ROW EXECUTE FUNCTION by_hand();
		SQL
	locked_by("create_migration('given', 'given_to')");
	sql("SELECT migrate_ext.create_migration('given', 'given_to')");
	locked_by("replace_sync('given', '{by_hand}')");
	sql("SELECT migrate_ext.replace_sync('given', '{by_hand}'); SELECT migrate_ext.start('given');");
	wait_live($node, 'given');
	ok(poll_query($node, "SELECT count(*) FROM pg_trigger WHERE tgname = 'by_hand'", '0'), 'a trigger made by hand is dropped');
	remember_relations();
	sql("CALL migrate_ext.finalize('given', '60 s'); CALL migrate_ext.complete('given');");

	make_logging('again');
	sql("VACUUM FULL again; SELECT migrate_ext.start('again');");
	wait_live($node, 'again');
	sql('BEGIN; ALTER TABLE again DISABLE TRIGGER "!migrate_ext_sync"; ALTER TABLE again ENABLE ALWAYS TRIGGER "!migrate_ext_sync"; COMMIT;');
	ok(poll_query($node, "SELECT paused FROM migrate_ext.migrations WHERE migration = 'again'"), 'tampering is noticed');
	sql("SELECT migrate_ext.resume('again')");
	ok(poll_query($node, "SELECT count(*) FROM migrate_ext.events WHERE migration = 'again' AND kind = 'mended'", '1'), 'and mended');
	calls_are_bounded();
	remember_relations();
	sql("CALL migrate_ext.cancel('again')");
	return;
}

sub live_by_key
{
	sql('CREATE TABLE keyed (id int PRIMARY KEY); INSERT INTO keyed SELECT generate_series(1, 100);');
	locked_by("add_sharding_key('keyed', 'k', 'int', 's.id')");
	sql("SELECT migrate_ext.add_sharding_key('keyed', 'k', 'int', 's.id')");
	locked_by("backfill_key('keyed', 'k')");
	sql("SELECT migrate_ext.backfill_key('keyed', 'k'); SELECT migrate_ext.start('keyed');");
	wait_live($node, 'keyed');
	sql("CALL migrate_ext.finalize('keyed', '60 s'); CALL migrate_ext.enforce_key('keyed', 'k');");
	return;
}

# Who is in the way of a call in the caller's transaction makes it fail, soon.
sub calls_are_bounded
{
	my $holder = open_session($node);
	sql('CREATE TABLE busy (id int PRIMARY KEY)');
	$holder->query_safe('BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE');
	like(errors("SELECT migrate_ext.add_sharding_key('busy', 'k', 'int')"), qr/ERROR:  55P03/, 'add_sharding_key does not wait for ever');
	$holder->query_safe('ROLLBACK; BEGIN; LOCK TABLE again IN ROW EXCLUSIVE MODE');
	like(errors("SELECT migrate_ext.replace_sync('again')"), qr/ERROR:  55P03/, 'replace_sync neither');
	$holder->query_safe('ROLLBACK');
	$holder->quit;
	return;
}

# What the log tells: relation, mode and state; and those of them that came without a bound once.
sub locks_in_log
{
	my (%seen, %unbounded);
	my $log = slurp_file($node->logfile);
	while ($log =~ /locks at ([\w-]+), lock_timeout (\d+):((?: \d+ \w+)+)/g)
	{
		my ($state, $timeout, $list) = ($1, $2, $3);
		while ($list =~ / (\d+) (\w+)/g)
		{
			my $lock = ($role{$1} // "unknown $1") . " $2 $state";
			$seen{$lock} = 1;
			$unbounded{$lock} = 1 if $timeout == 0;
		}
	}
	return (\%seen, \%unbounded);
}

sub audit
{
	my ($seen, $unbounded) = locks_in_log();
	my %allowed = map { my $lock = $_; map { ("$lock $_" => 1) } split ' ', $ALLOWED{$lock} } keys %ALLOWED;
	my %taken = map { (s/^index of //r => 1) } grep { !/^(index of )?ours / } keys %$seen, keys %in_calls;
	is(join("\n", sort grep { !$allowed{$_} } keys %taken),   '', 'no lock is taken that is not in the list');
	is(join("\n", sort grep { !$taken{$_} } keys %allowed),   '', 'nor is one in the list that is not taken');
	is(join("\n", sort keys %$unbounded), '', 'each is waited for no longer than lock_timeout_ms');
	return;
}

$node = new_node('audited', conf => "log_min_messages = debug1\n");
make_tables();
live_a_life();
live_others();
starts_over_late();
live_by_key();
remember_relations();
audit();
$node->stop('immediate');
done_testing;
