# shellcheck shell=bash
# The table in the shape of merge_request_diff_commits, its target, and those who fill it: what several
# benchmarks share. Sourced by them.
#
# Each contestant begins alike (prepare). measured leaves in $seconds and $wal_mb what it took: as its client
# sees it, and by the difference of pg_current_wal_insert_lsn(). Ours is taken from what it records.

: "${work:?}"

# A server of which nothing but the work itself takes time.
setting 'shared_buffers = 4GB' 'maintenance_work_mem = 256MB' 'max_wal_size = 16GB' 'min_wal_size = 4GB' \
	'checkpoint_timeout = 1h' 'autovacuum = off' 'jit = off'

PARTITIONS=8
KEY='merge_request_diff_id, relative_order'
KEY_FORMAT='(%L, %L)'

# The one more column. Rows that stand side by side go to all partitions: 20 by 20.
COLUMNS='s.*'
PROJECT='s.merge_request_diff_id * 7919 % 400'
JOIN=

seconds=
wal_mb=

# ---------------------------------------------------------------------------------------------
# Source and target

# make_commits ROWS [COLUMN]: twenty commits of a diff, in the order of their key, as an application
# writes them; with one more column, as CREATE TABLE has it
make_commits() {
	sql "SET client_min_messages = warning;
		DROP TABLE IF EXISTS commits CASCADE;
		CREATE TABLE commits (
			merge_request_diff_id bigint NOT NULL,
			relative_order        integer NOT NULL,
			authored_date         timestamptz,
			committed_date        timestamptz,
			sha                   bytea NOT NULL,
			message               text,
			trailers              jsonb NOT NULL DEFAULT '{}',
			commit_author_id      bigint,
			committer_id          bigint
			${2:+, $2});
		INSERT INTO commits
		SELECT i / 20, i % 20, timestamptz '2024-01-01' + i * interval '1 s', timestamptz '2024-01-01' + i * interval '1.1 s',
			sha256(int8send(i)), rpad('Fix #' || i, 25 + (i * 7919 % 86)::integer, ' and say why'),
			CASE WHEN i % 5 = 0 THEN '{\"Changelog\": \"fixed\"}'::jsonb ELSE '{}' END, i * 31 % 50000, i * 37 % 50000
		FROM generate_series(0::bigint, $1 - 1) i;
		ALTER TABLE commits ADD PRIMARY KEY ($KEY);
		CREATE INDEX ON commits (sha);
		CREATE INDEX ON commits (commit_author_id);"
}

# make_target indexed|bare: partitions by ranges of project_id
make_target() {
	sql "SET client_min_messages = warning;
		DROP TABLE IF EXISTS commits_new, commits_floor;
		CREATE TABLE commits_new (LIKE commits INCLUDING DEFAULTS);
		ALTER TABLE commits_new ADD COLUMN IF NOT EXISTS project_id bigint, ALTER project_id SET NOT NULL;
		ALTER TABLE commits_new RENAME TO commits_like;
		CREATE TABLE commits_new (LIKE commits_like INCLUDING DEFAULTS) PARTITION BY RANGE (project_id);
		DROP TABLE commits_like;
		$(for ((i = 0; i < PARTITIONS; i++)); do
			echo "CREATE TABLE commits_p$i PARTITION OF commits_new FOR VALUES FROM ($((i * 400 / PARTITIONS))) TO ($(((i + 1) * 400 / PARTITIONS)));"
		done)"
	[ "$1" = bare ] || index_target
}

index_target() {
	sql "ALTER TABLE commits_new ADD PRIMARY KEY ($KEY, project_id);
		CREATE INDEX ON commits_new (sha);
		CREATE INDEX ON commits_new (commit_author_id)"
}

# Everybody begins so: a source vacuumed and read into memory, nothing left to be written to disk.
prepare() {
	call 'VACUUM (FREEZE, ANALYZE) commits'
	sql "SELECT pg_prewarm(oid) FROM pg_class WHERE oid = 'commits'::regclass
		UNION ALL SELECT pg_prewarm(indexrelid) FROM pg_index WHERE indrelid = 'commits'::regclass" >/dev/null
	sql 'CHECKPOINT'
	sync
}

# ---------------------------------------------------------------------------------------------
# What is measured

lsn() {
	sql 'SELECT pg_current_wal_insert_lsn()'
}

# measured COMMAND...: sets $seconds and $wal_mb
measured() {
	local before began
	before=$(lsn)
	began=$EPOCHREALTIME
	"$@"
	seconds=$(awk "BEGIN { printf \"%.3f\", $EPOCHREALTIME - $began }")
	# shellcheck disable=SC2034 # used by who sources this
	wal_mb=$(sql "SELECT round(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$before') / 1048576, 1)")
}

# all_there TABLE ROWS
all_there() {
	[ "$(sql "SELECT count(*) FROM $1")" = "$2" ] || die "$1 does not have $2 rows"
}

# ---------------------------------------------------------------------------------------------
# The others

# rows_to_be [WHERE]: as the target has them
rows_to_be() {
	printf '%s' "SELECT $COLUMNS, $PROJECT FROM commits s$JOIN ${1:-}"
}

# The batches of GitLab's background migrations, without their pauses and bookkeeping: of the next 10,000
# keys 2,500 a statement and transaction.
make_fill() {
	psql_here <<-SQL
		CREATE OR REPLACE FUNCTION next_key(after text, upto text, rows integer) RETURNS text LANGUAGE plpgsql AS \$\$
		DECLARE found text;
		BEGIN
			EXECUTE concat('SELECT format(''$KEY_FORMAT'', $KEY) FROM (SELECT $KEY FROM commits WHERE true', ' AND ($KEY) > ' || after,
				' AND ($KEY) <= ' || upto, ' ORDER BY $KEY LIMIT ', rows, ') k ORDER BY ${KEY//,/ DESC,} DESC LIMIT 1') INTO found;
			RETURN found;
		END \$\$;

		CREATE OR REPLACE PROCEDURE fill(locking text) LANGUAGE plpgsql AS \$\$
		DECLARE
			done_upto text;
			batch_end text;
			until text;
		BEGIN
			LOOP
				batch_end := next_key(done_upto, NULL, 10000);
				EXIT WHEN batch_end IS NULL;
				LOOP
					until := next_key(done_upto, batch_end, 2500);
					EXIT WHEN until IS NULL;
					EXECUTE concat('INSERT INTO commits_new $(rows_to_be) WHERE ($KEY) <= ' || until,
						' AND ($KEY) > ' || done_upto, ' ', locking, ' ON CONFLICT DO NOTHING');
					COMMIT;
					done_upto := until;
				END LOOP;
			END LOOP;
		END \$\$;
	SQL
}

# fill LOCKING: by the index on the key, always. The planner takes a comparison of rows with two bounds for a
# quarter of the table in its middle, and would read all of it for each batch.
fill() {
	psql_here -c 'SET enable_seqscan = off' -c 'SET enable_bitmapscan = off' -c "CALL fill('$1')"
}

gitlab_way() {
	fill 'FOR UPDATE OF s'
}

pgslice_way() {
	fill ''
}

one_insert() {
	sql "INSERT INTO commits_new $(rows_to_be)"
}

# One process, no WAL: what a worker's copy can be at best.
unlogged_table() {
	sql "SET max_parallel_workers_per_gather = 0; CREATE UNLOGGED TABLE commits_floor AS $(rows_to_be)"
}

# both STATEMENTS STATEMENTS: in two sessions
both() {
	sql "$1" &
	sql "$2"
	wait $!
}

offline_load() {
	local middle
	middle=$(sql "SELECT pg_relation_size('commits') / 8192 / 2")
	both "INSERT INTO commits_new $(rows_to_be "WHERE s.ctid < '($middle,0)'")" \
		"INSERT INTO commits_new $(rows_to_be "WHERE s.ctid >= '($middle,0)'")"
}

# leaf_indexes FIRST: of every other leaf
leaf_indexes() {
	local i
	for ((i = $1; i < PARTITIONS; i += 2)); do
		echo "ALTER TABLE commits_p$i ADD PRIMARY KEY ($KEY, project_id);
			CREATE INDEX ON commits_p$i (sha);
			CREATE INDEX ON commits_p$i (commit_author_id);"
	done
}

# Two sessions here, too, each its half of the leaves; the parent's indexes take what is there.
offline_indexes() {
	both "$(leaf_indexes 0)" "$(leaf_indexes 1)"
	index_target
}

# ---------------------------------------------------------------------------------------------
# Ours

# How a migration of this name begins; a benchmark may have its own.
create_ours() {
	sql "SELECT migrate_ext.create_migration('commits', 'commits_new', 'bench', '{\"columns\": {\"project_id\": \"$PROJECT\"}}')" >/dev/null
}

# ours WORKERS: to live
ours() {
	create_ours
	sql "SELECT migrate_ext.configure('bench', 'workers', '$1');
		SELECT migrate_ext.start('bench')" >/dev/null
	call "CALL migrate_ext.wait_for('bench', 'live')"
}

# When it came where: the states, 'copy begun', 'copied' and 'analyzed'.
make_reached() {
	sql "CREATE OR REPLACE VIEW reached AS
		SELECT 'created' AS state, created_at AS at FROM migrate_ext.migrations WHERE migration = 'bench'
		UNION ALL SELECT 'copy begun', min(started_at) FROM migrate_ext.batches WHERE migration = 'bench' AND first_block IS NOT NULL
		UNION ALL SELECT 'copied', max(started_at + took_ms * interval '1 ms')
			FROM migrate_ext.batches WHERE migration = 'bench' AND first_block IS NOT NULL
		UNION ALL SELECT CASE kind WHEN 'state' THEN detail->>'to' ELSE kind END, at FROM migrate_ext.events
			WHERE migration = 'bench' AND kind IN ('state', 'analyzed')"
}

# between STATE STATE: seconds; nothing if it hasn't come there
between() {
	sql "SELECT round(extract(epoch FROM (SELECT at FROM reached WHERE state = '$2') - (SELECT at FROM reached WHERE state = '$1')), 3)"
}

# record_ours NAME: where the seconds went; sets $seconds to those from created to live
record_ours() {
	record "$1" begin "$(between created 'copy begun')"
	record "$1" copy "$(between 'copy begun' copied)"
	record "$1" indexes "$(between indexing catching_up)"
	record "$1" drain "$(between catching_up live)"
	seconds=$(between created live)
	record "$1" seconds "$seconds"
}

is_analyzed() {
	[ -n "$(between live analyzed)" ]
}

# record_after NAME: what comes when it is live: statistics, a first verification
record_after() {
	wait_until 600 'the statistics' is_analyzed
	record "$1" analyze "$(between live analyzed)"
	record "$1" verify "$(awk "BEGIN { print $(timed_ms "CALL migrate_ext.verify('bench');") / 1000 }")"
}

ours_end() {
	call "CALL migrate_ext.cancel('bench')"
	sql "SELECT migrate_ext.forget('bench')" >/dev/null
}

# number N: with one digit
number() {
	awk "BEGIN { printf \"%.1f\", $1 }"
}
