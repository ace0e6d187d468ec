# shellcheck shell=bash
# the sync trigger: updates of single rows a second, and of 1,000 rows at a time; without it, logging, live
#
# Sourced by script/bench. Three tables of the shape of merge_request_diff_commits: one without a
# migration, one in state logging, one live with 8 range partitions. They are updated in turns: single
# rows by pgbench, each a transaction; 1,000 rows that stand side by side, by one session, which has
# done so a few times before.
#
# Such an update costs what its indexes cost, and those of the target have to be written as well: so
# once rows that no update has touched before (new entries in all indexes of both tables), once with a
# column that is in an index, and once the same rows again and again (mostly no entries at all).
#
# BENCH_ROWS, BENCH_CLIENTS, BENCH_SECONDS (of single rows, each turn), BENCH_ROUNDS (of them) and
# BENCH_STATEMENTS (of 1,000 rows, each kind and table) change the size.

ROWS=${BENCH_ROWS:-500000}
CLIENTS=${BENCH_CLIENTS:-2}
TURN=${BENCH_SECONDS:-10}
ROUNDS=${BENCH_ROUNDS:-5}
STATEMENTS=${BENCH_STATEMENTS:-60}
WARM_UP=5
DIFFS=$((ROWS / 20))
TABLES=(plain logged live)
: "${work:?}"

make_tables() {
	local name
	sql "CREATE EXTENSION migrate_ext;
		CREATE TABLE plain (merge_request_diff_id bigint NOT NULL, relative_order integer NOT NULL,
			authored_date timestamptz, committed_date timestamptz, sha bytea NOT NULL, message text,
			trailers jsonb NOT NULL DEFAULT '{}', commit_author_id bigint, committer_id bigint, project_id bigint);
		CREATE TABLE logged (LIKE plain INCLUDING ALL);
		CREATE TABLE live (LIKE plain INCLUDING ALL);
		INSERT INTO plain
			SELECT d, o, now(), now(), sha256((d || '.' || o)::bytea), repeat('m', 25 + (d * 7 + o * 13) % 86), '{}',
				d % 1000, (d + o) % 1000, d * 7919 % 800
			FROM generate_series(1, $DIFFS) d, generate_series(0, 19) o;
		INSERT INTO logged TABLE plain;
		INSERT INTO live TABLE plain"
	for name in "${TABLES[@]}"; do
		sql "ALTER TABLE $name ADD PRIMARY KEY (merge_request_diff_id, relative_order);
			CREATE INDEX ON $name (sha);
			CREATE INDEX ON $name (commit_author_id)"
	done
}

migrate() {
	local name
	for name in logged live; do
		sql "SELECT migrate_ext.partition_by_range('$name', 'project_id', 100, 0, 800, 0)" >/dev/null
	done
	sql "SELECT migrate_ext.install_sync('logged'), migrate_ext.start('live')" >/dev/null
	call "CALL migrate_ext.wait_for('logged', 'logging')"
	call "CALL migrate_ext.wait_for('live', 'live')"
	call 'VACUUM ANALYZE'
	sql 'CHECKPOINT'
}

# updates_a_second TABLE
updates_a_second() {
	as_postgres tee "$work/tmp/update.sql" >/dev/null <<-END
		\set d random(1, $DIFFS)
		\set o random(0, 19)
		UPDATE $1 SET message = 'changed ' || :d || repeat('x', :o), committed_date = now()
		WHERE merge_request_diff_id = :d AND relative_order = :o;
	END
	as_postgres pgbench -n -M prepared -c "$CLIENTS" -j "$CLIENTS" -T "$TURN" -f "$work/tmp/update.sql" \
		-h "$work/tmp" postgres | sed -n 's/^tps = \([0-9]*\).*/\1/p'
}

single_rows() {
	local round name plain=() logged=() live=()
	for ((round = 0; round < ROUNDS; round++)); do
		for name in "${TABLES[@]}"; do
			local -n rates=$name
			rates+=("$(updates_a_second "$name")")
		done
	done
	local a b c
	a=$(median "${plain[@]}") b=$(median "${logged[@]}") c=$(median "${live[@]}")
	result 'single rows, logging' "$a/s" "$b/s" "$(ratio "$b" "$a")" 'at least 0.95'
	result 'single rows, live' "$a/s" "$c/s" "$(ratio "$c" "$a")" 'at least 0.85'
}

# thousand WHAT WHERE SET: updates of 50 diffs with 20 commits each, anywhere or always the same
thousand() {
	local i name first=1 times a b c
	times=$(for ((i = 0; i < STATEMENTS + WARM_UP; i++)); do
		[ "$2" = same ] || first=$(((RANDOM * 32768 + RANDOM) % (DIFFS - 50) + 1))
		for name in "${TABLES[@]}"; do
			printf 'UPDATE %s SET message = repeat(chr(97 + %d), 25 + %d), %s WHERE merge_request_diff_id BETWEEN %d AND %d;\n' \
				"$name" $((i % 26)) $((i % 80)) "$3" "$first" $((first + 49))
		done
	done | psql_here -c '\timing on' -f - | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n +$((3 * WARM_UP + 1)))
	# shellcheck disable=SC2046
	{
		a=$(median $(awk 'NR % 3 == 1' <<<"$times"))
		b=$(median $(awk 'NR % 3 == 2' <<<"$times"))
		c=$(median $(awk 'NR % 3 == 0' <<<"$times"))
	}
	result "$1, logging" "$a ms" "$b ms" "$(ratio "$b" "$a")" 'at most 1.1'
	result "$1, live" "$a ms" "$c ms" "$(ratio "$c" "$a")" 'at most 1.8'
}

bench() {
	headline "Three tables of $ROWS rows"
	as_postgres tee -a "$work/data/postgresql.conf" >/dev/null <<-END
		shared_buffers = 1GB
		autovacuum = off
	END
	as_postgres pg_ctl restart -w -D "$work/data" -l "$work/tmp/server.log" >"$work/pg_ctl.log"
	make_tables
	migrate
	headline "In turns: 1,000 rows in a statement, then single rows by $CLIENTS clients"
	thousand '1,000 rows' anywhere 'committed_date = now()'
	thousand '1,000 rows and an indexed column' anywhere 'commit_author_id = (commit_author_id + 1) % 1000'
	thousand 'the same 1,000 rows again' same 'committed_date = now()'
	single_rows
	table 'without' 'with'
}
