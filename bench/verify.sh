# shellcheck shell=bash
# verification: rows a second of one process and of a leader with 2 helpers, narrow and wide; what is read again
#
# Sourced by script/bench. Rows a second are those of a process, over the ranges that it read: both
# sides of each, in one snapshot. What is read again is after one row in a thousand ranges' worth of
# table has changed. The drain is timed from a log full of changed rows, in state catching_up, to live.
#
# BENCH_ROWS, BENCH_ROUNDS change the size.

ROWS=${BENCH_ROWS:-2000000}
ROUNDS=${BENCH_ROUNDS:-3}

make_narrow() {
	sql "CREATE TABLE narrow (id bigint PRIMARY KEY, k integer NOT NULL, a bigint, at timestamptz);
		INSERT INTO narrow SELECT i, i % 97, i * 3, timestamptz '2024-01-01' + i * interval '1 s' FROM generate_series(1, $ROWS) i;"
}

make_wide() {
	sql "CREATE TABLE wide (diff bigint, ord integer, authored timestamptz, committed timestamptz, sha bytea NOT NULL,
			message text, trailers jsonb, author bigint, committer bigint, PRIMARY KEY (diff, ord));
		INSERT INTO wide SELECT i / 20, i % 20, timestamptz '2024-01-01' + i * interval '1 s', timestamptz '2024-01-02' + i * interval '1 s',
			decode(md5(i::text) || md5(i::text), 'hex'), repeat('message ', 3 + i % 11), '{}', i % 1000, i % 999
			FROM generate_series(1, $ROWS) i;"
}

# migrate TABLE KEY: up to live, in this session, so that no leader and no helpers are there
migrate() {
	sql "VACUUM ANALYZE $1"
	sql "SELECT migrate_ext.partition_by_hash('$1', '$2', 8)" >/dev/null
	call "CALL migrate_ext.run('$1')"
	sql "VACUUM ANALYZE ${1}_new"
}

# verify TABLE: rows a second of a process
verify() {
	call "CALL migrate_ext.verify('$1')"
	sql "SELECT round(sum(checked_rows) / sum(took_ms) * 1000) FROM migrate_ext.verified_ranges WHERE migration = '$1'
		HAVING sum(checked_rows) = $ROWS AND sum(missing + extra + different) = 0"
}

# wall TABLE: rows a second of all, as who calls sees it
wall() {
	awk "BEGIN { printf \"%d\", $ROWS / $(timed_ms "CALL migrate_ext.verify('$1');") * 1000 }"
}

# measured FUNCTION TABLE: the median
measured() {
	local rates=() round
	for ((round = 0; round < ROUNDS; round++)); do
		rates+=("$("$1" "$2")")
	done
	median "${rates[@]}"
}

# of_a_process TABLE GOAL
of_a_process() {
	local rate
	rate=$(measured verify "$1")
	result "$1 rows, of a million a second" "$rate rows/s" '' "$(ratio "$rate" 1000000)" "$2"
}

# shared TABLE: with the leader and its helpers, whom resume brings
shared() {
	local one all
	one=$(measured wall "$1")
	sql "SELECT migrate_ext.resume('$1')" >/dev/null
	all=$(measured wall "$1")
	result "$1 rows, as the caller sees it" "$one rows/s" "$all rows/s" "$(ratio "$all" "$one")" ''
}

# again TABLE KEY: verification in the background, after a few rows side by side have changed
again() {
	sql "UPDATE $1 SET $2 = $2 + 1 WHERE ctid = ANY (ARRAY(SELECT ctid FROM $1 LIMIT 100))"
	sql "SELECT migrate_ext.configure('$1', 'verify_interval_s', '1')" >/dev/null
	call "DO 'BEGIN FOR i IN 1 .. 6000 LOOP
		IF EXISTS (SELECT FROM migrate_ext.events WHERE migration = ''$1'' AND message ~ ''read again'') THEN RETURN; END IF;
		PERFORM pg_sleep(0.1); COMMIT; END LOOP; RAISE ''nothing is read again''; END'"
	sql "SELECT migrate_ext.configure('$1', 'verify_interval_s', '0')" >/dev/null
	say "        $1 rows, 100 of them changed: $(sql "SELECT substring(message FROM ';.*') FROM migrate_ext.events
		WHERE migration = '$1' AND kind = 'verified' ORDER BY at DESC LIMIT 1")"
}

bench() {
	headline "Tables of $ROWS rows; medians of $ROUNDS"
	sql 'CREATE EXTENSION migrate_ext'
	make_narrow
	migrate narrow id
	make_wide
	migrate wide diff
	of_a_process narrow 'at least 1'
	of_a_process wide ''
	shared narrow
	shared wide
	again narrow a
	again wide author
	table 'one process' 'shared'
}
