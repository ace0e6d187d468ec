# shellcheck shell=bash
# the change log: identities drained a second, of many rows and of few, under an old snapshot, and at 5,000 changes a second
#
# Sourced by script/bench. Timed is the drain from a log full of changes, in state catching_up, to live, in
# one process. With an old snapshot held no drained entry can be removed: were they looked at again and
# again, four times as many would take sixteen times as long. Last, 5,000 changes a second under a snapshot
# held for all of it: does the drain keep up to the end, and what is the log's size to the number of entries?
# BENCH_ENTRIES changes the size, BENCH_SECONDS how long that lasts.

ENTRIES=${BENCH_ENTRIES:-400000}
SECONDS_OF_LOAD=${BENCH_SECONDS:-60}

# drain_ms ROWS STATEMENTS: how long it takes to drain what the statements change of so many rows
drain_ms() {
	sql "CREATE TABLE drained (id bigint PRIMARY KEY, k integer NOT NULL, a bigint, at timestamptz);
		INSERT INTO drained SELECT i, i % 97, i, now() FROM generate_series(1, $1) i;"
	sql 'VACUUM ANALYZE drained'
	sql "SELECT migrate_ext.partition_by_hash('drained', 'id', 8)" >/dev/null
	call "CALL migrate_ext.run('drained', 'catching_up')"
	sql "$2" >/dev/null
	timed_ms "CALL migrate_ext.run('drained');"
	call "CALL migrate_ext.cancel('drained')"
	sql "SELECT migrate_ext.forget('drained')" >/dev/null
	sql 'DROP TABLE drained'
}

# rate ENTRIES MS: entries a second
rate() {
	awk "BEGIN { printf \"%d\", $1 / $2 * 1000 }"
}

# drained WHAT ROWS STATEMENTS
drained() {
	local a
	a=$(rate "$ENTRIES" "$(drain_ms "$2" "$3")")
	result "$1" "$a/s" '' "$(ratio "$a" 100000)" 'at least 1'
}

# hold_snapshot [STATEMENT]: in a session of its own, after that statement; it is there when that sleeps.
hold_snapshot() {
	psql_here -c 'BEGIN ISOLATION LEVEL REPEATABLE READ' -c "${1:-SELECT txid_current()}" -c 'SELECT pg_sleep(86400)' >/dev/null 2>&1 &
	local i
	for ((i = 0; i < 600; i++)); do
		if [ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE $holder AND backend_xmin IS NOT NULL")" = 1 ]; then return; fi
		sleep 0.1
	done
	die "nobody holds a snapshot"
}

holder="query ~ '^SELECT pg_sleep' AND pid <> pg_backend_pid()"

with_old_snapshot() {
	local few many
	hold_snapshot
	few=$(rate $((ENTRIES / 4)) "$(drain_ms $((ENTRIES / 4)) 'UPDATE drained SET a = a + 1')")
	many=$(rate "$ENTRIES" "$(drain_ms "$ENTRIES" 'UPDATE drained SET a = a + 1')")
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $holder" >/dev/null
	wait
	result 'an old snapshot held, a quarter as many, and all' "$few/s" "$many/s" "$(ratio "$many" "$few")" 'at least 0.8'
}

# greatest FIRST LAST: the largest of these lines' first numbers
# shellcheck disable=SC2154 # work: script/bench
greatest() {
	sed -n "$1,$2p" "$work/samples" | sort -n | tail -n 1 | cut -d' ' -f1
}

# 100 transactions a second of 50 changes each, with the migration kept in catching_up by a lock on the table.
at_a_rate() {
	local i first second entries bytes
	sql 'CREATE TABLE drained (id bigint PRIMARY KEY, k integer NOT NULL, a bigint, at timestamptz);
		INSERT INTO drained SELECT i, i % 97, i, now() FROM generate_series(1, 200000) i;'
	sql 'VACUUM ANALYZE drained'
	sql "SELECT migrate_ext.partition_by_hash('drained', 'id', 8)" >/dev/null
	call "CALL migrate_ext.run('drained', 'catching_up')"
	hold_snapshot 'LOCK drained IN ROW EXCLUSIVE MODE'
	printf '%s\n' '\set id random(1, 199951)' 'UPDATE drained SET a = a + 1 WHERE id BETWEEN :id AND :id + 49;' >"$work/load.sql"
	chmod a+r "$work/load.sql"
	sql "SELECT migrate_ext.start('drained')" >/dev/null
	start_job load pgbench -n -c 4 -R 100 -T "$SECONDS_OF_LOAD" -h "$work/tmp" -f "$work/load.sql" postgres
	for ((i = 0; i < SECONDS_OF_LOAD; i++)); do
		sleep 1
		sql "SELECT log_entries FROM migrate_ext.progress WHERE migration = 'drained'"
	done >"$work/samples"
	wait "$(cat "$work/load.pid")"
	entries=$(sql "SELECT 50 * count FROM (SELECT $(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$work/load.log") AS count) n")
	bytes=$(sql "SELECT pg_relation_size(oid) FROM pg_class WHERE relname ~ '^log_[0-9]+\$'")
	first=$(greatest 2 $((SECONDS_OF_LOAD / 2)))
	second=$(greatest $((SECONDS_OF_LOAD / 2 + 1)) "$SECONDS_OF_LOAD")
	result "$((entries / SECONDS_OF_LOAD)) changes a second: undrained at most, first and second half" "$first" "$second" "$(ratio "$second" "$first")" 'at most 1.5'
	result 'bytes of the log an entry ever made' "$bytes" "$entries" "$(ratio "$bytes" "$entries")" 'at most 80'
	sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $holder" >/dev/null
	call "CALL migrate_ext.wait_for('drained', 'live')"
	for ((i = 0; i < 1200 && $(sql "SELECT pg_relation_size(oid) / 8192 FROM pg_class WHERE relname ~ '^log_[0-9]+\$'") > 100; i++)); do sleep 0.1; done
	result 'pages of the log, with the snapshot held and when autovacuum came after it' "$((bytes / 8192))" \
		"$(sql "SELECT pg_relation_size(oid) / 8192 FROM pg_class WHERE relname ~ '^log_[0-9]+\$'")" '' ''
}

bench() {
	headline "Draining $ENTRIES entries"
	sql 'CREATE EXTENSION migrate_ext'
	drained 'of as many rows, side by side' "$ENTRIES" 'UPDATE drained SET a = a + 1'
	drained 'of as many rows, in random order' "$ENTRIES" \
		"UPDATE drained SET a = d.a + 1 FROM (SELECT id AS i, a FROM drained ORDER BY md5(id::text)) d WHERE id = i"
	drained 'a hundred times of the same rows' $((ENTRIES / 100)) \
		"DO 'BEGIN FOR i IN 1 .. 100 LOOP UPDATE drained SET a = a + 1; END LOOP; END'"
	with_old_snapshot
	at_a_rate
	table 'entries' 'of more'
}
