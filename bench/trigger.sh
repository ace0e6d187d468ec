# shellcheck shell=bash
# The sync trigger: updates of single rows a second, and of 1,000 rows at a time, without it, logging and live
#
# Sourced by script/bench. Three tables of one shape: without a migration, in state logging, and live.
# They are updated in turns: single rows by pgbench, each a transaction; 1,000 rows that stand side by
# side, by one session, which has done so a few times before.
#
# Such an update costs what its indexes cost, and those of the target have to be written as well: so
# once rows that no update has touched before (new entries in all indexes of both tables), once with a
# column that is in an index, and once the same rows again and again (mostly no entries at all).
#
# BENCH_ROWS, BENCH_CLIENTS, BENCH_SECONDS (of single rows, each turn), BENCH_ROUNDS (of them) and
# BENCH_STATEMENTS (of 1,000 rows, each kind and table) change the size.

: "${work:?}" "${root:?}"
# shellcheck source=bench/lib/commits.sh
. "$root/bench/lib/commits.sh"

ROWS=${BENCH_ROWS:-500000}
CLIENTS=${BENCH_CLIENTS:-2}
TURN=${BENCH_SECONDS:-10}
ROUNDS=${BENCH_ROUNDS:-5}
STATEMENTS=${BENCH_STATEMENTS:-60}
WARM_UP=5
DIFFS=$((ROWS / 20))
TABLES=(plain logged live)
make_tables() {
	local name
	for name in "${TABLES[@]}"; do
		make_commits "$ROWS"
		sql "ALTER TABLE commits RENAME TO $name"
	done
}

# start_migration TABLE: with a target that has one more column
start_migration() {
	sql "CREATE TABLE $1_new (LIKE plain INCLUDING DEFAULTS, project_id bigint NOT NULL) PARTITION BY RANGE (project_id);
		$(for ((i = 0; i < PARTITIONS; i++)); do
			echo "CREATE TABLE $1_p$i PARTITION OF $1_new FOR VALUES FROM ($((i * 400 / PARTITIONS))) TO ($(((i + 1) * 400 / PARTITIONS)));"
		done)
		SELECT migrate_ext.create_migration('$1', '$1_new', '$1', '{\"columns\": {\"project_id\": \"$PROJECT\"}}')" >/dev/null
}

migrate() {
	sql 'CREATE EXTENSION migrate_ext'
	start_migration logged
	start_migration live
	sql "SELECT migrate_ext.install_sync('logged'), migrate_ext.start('live')" >/dev/null
	call "CALL migrate_ext.wait_for('logged', 'logging')"
	call "CALL migrate_ext.wait_for('live', 'live')"
	call 'VACUUM ANALYZE'
	sql 'CHECKPOINT'
}

# updates_a_second TABLE
updates_a_second() {
	as_postgres tee "$work/tmp/update.sql" >/dev/null <<-END
		\set d random(0, $((DIFFS - 1)))
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
	result 'single rows, logging' "$a/s" "$b/s" "$(ratio "$b" "$a")" 'at least 0.95' 'at least 0.9'
	result 'single rows, live' "$a/s" "$c/s" "$(ratio "$c" "$a")" 'at least 0.85' 'at least 0.75'
}

# thousand WHAT WHERE SET: updates of 50 diffs with 20 commits each, anywhere or always the same
thousand() {
	local i name first=1 times a b c
	times=$(for ((i = 0; i < STATEMENTS + WARM_UP; i++)); do
		[ "$2" = same ] || first=$(((RANDOM * 32768 + RANDOM) % (DIFFS - 50)))
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
	result "$1, live" "$a ms" "$c ms" "$(ratio "$c" "$a")" 'at most 1.8' 'at most 2.2'
}

bench() {
	headline "Three tables of $ROWS rows"
	make_tables
	migrate
	headline "In turns: 1,000 rows in a statement, then single rows by $CLIENTS clients"
	thousand '1,000 rows' anywhere 'committed_date = now()'
	thousand '1,000 rows and an indexed column' anywhere 'commit_author_id = (commit_author_id + 1) % 50000'
	thousand 'the same 1,000 rows again' same 'committed_date = now()'
	single_rows
	table 'without' 'with'
}
