# shellcheck shell=bash
# a derived sharding key: the copy with and without it, INSERTs with and without the fill trigger
#
# Sourced by script/bench. The table is of the shape of merge_request_diff_commits: a composite key
# that begins with the parent's, children of a parent side by side (or, the hard case, in random
# order). Copied it is into the same number of partitions: by a column that is there, and by a key
# derived from its parent, or from its parent's parent.
#
# The time of a copy is from the first batch's beginning to the last one's end, as the view batches
# has them. BENCH_ROWS, BENCH_PARENTS, BENCH_ROUNDS change the size.

ROWS=${BENCH_ROWS:-2400000}
PARENTS=${BENCH_PARENTS:-100000}
ROUNDS=${BENCH_ROUNDS:-3}
PARTITIONS=16
INSERTED=300000

COLUMNS_OF_CHILD='merge_request_diff_id bigint NOT NULL, relative_order integer NOT NULL,
	authored_date timestamptz, sha bytea NOT NULL, author text, message text'
ONE_STEP='(SELECT d.project_id FROM merge_request_diffs d WHERE d.id = s.merge_request_diff_id)'
TWO_STEPS='(SELECT m.target_project_id FROM merge_request_diffs d
	JOIN merge_requests m ON m.id = d.merge_request_id WHERE d.id = s.merge_request_diff_id)'

make_parents() {
	sql "CREATE EXTENSION migrate_ext;
		CREATE TABLE merge_requests (id bigint PRIMARY KEY, target_project_id bigint NOT NULL, title text);
		CREATE TABLE merge_request_diffs (id bigint PRIMARY KEY, merge_request_id bigint NOT NULL,
			project_id bigint NOT NULL, state text);
		INSERT INTO merge_requests
			SELECT i, i * 7919 % 997, 'merge request ' || i FROM generate_series(0, $PARENTS / 2 - 1) i;
		INSERT INTO merge_request_diffs
			SELECT i, m.id, m.target_project_id, 'collected'
			FROM generate_series(1, $PARENTS) i JOIN merge_requests m ON m.id = i * 31 % ($PARENTS / 2);"
	sql 'VACUUM ANALYZE'
}

rows_of_children() {
	printf '%s' "SELECT d, o, timestamptz '2024-01-01' + d * interval '1 minute', decode(md5(d || '.' || o), 'hex'),
		'author ' || d % 1000, 'Commit ' || o || ' of diff ' || d"
}

# make_children ORDER VALUE: by the key, or anyhow
make_children() {
	call 'DROP TABLE IF EXISTS commits'
	sql "CREATE TABLE commits ($COLUMNS_OF_CHILD);
		INSERT INTO commits $(rows_of_children)
			FROM generate_series(1, $PARENTS) d, generate_series(1, $ROWS / $PARENTS) o ORDER BY $1;
		ALTER TABLE commits ADD PRIMARY KEY (merge_request_diff_id, relative_order);"
	sql "SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'bigint', \$\$$2\$\$)" >/dev/null
	sql 'VACUUM ANALYZE commits'
}

# copy_s KEY WORKERS: the seconds of a copy; WORKERS is "one", or the default
copy_s() {
	sql "CHECKPOINT"
	sql "SELECT migrate_ext.partition_by_hash('commits', '$1', $PARTITIONS, 'bench')" >/dev/null
	if [ "$2" = one ]; then
		call "CALL migrate_ext.run('bench', 'indexing')"
	else
		sql "SELECT migrate_ext.start('bench')" >/dev/null
		call "CALL migrate_ext.wait_for('bench', 'indexing')"
	fi
	sql "SELECT extract(epoch FROM max(started_at + took_ms * interval '1 ms') - min(started_at))
		FROM migrate_ext.batches WHERE migration = 'bench' AND first_block IS NOT NULL HAVING sum(rows) = $ROWS"
	call "CALL migrate_ext.cancel('bench')"
	sql "SELECT migrate_ext.forget('bench')" >/dev/null
}

# copies WHAT WORKERS
copies() {
	local plain=() derived=() round a b
	for ((round = 0; round < ROUNDS; round++)); do
		plain+=("$(copy_s merge_request_diff_id "$2")")
		derived+=("$(copy_s project_id "$2")")
	done
	a=$(median "${plain[@]}") b=$(median "${derived[@]}")
	result "copy, $1" "$(rate "$a")" "$(rate "$b")" "$(ratio "$a" "$b")" 'at least 0.5'
}

rate() {
	awk "BEGIN { printf \"%d rows/s\", $ROWS / $1 }"
}

make_inserted() {
	call 'DROP TABLE IF EXISTS commits'
	sql "CREATE TABLE without ($COLUMNS_OF_CHILD, project_id bigint, PRIMARY KEY (merge_request_diff_id, relative_order));
		CREATE TABLE filled ($COLUMNS_OF_CHILD, PRIMARY KEY (merge_request_diff_id, relative_order));"
	sql "SELECT migrate_ext.add_sharding_key('filled', 'project_id', 'bigint', \$\$$TWO_STEPS\$\$)" >/dev/null
}

# insert_ms TABLE KEY: so many rows into an empty table
insert_ms() {
	sql "TRUNCATE $1"
	sql 'CHECKPOINT'
	timed_ms "INSERT INTO $1 $(rows_of_children), $2 FROM generate_series(1, $INSERTED / 20) d, generate_series(1, 20) o;"
}

# inserts WHAT KEY GOAL
inserts() {
	local without=() filled=() round a b
	for ((round = 0; round < ROUNDS; round++)); do
		without+=("$(insert_ms without d)")
		filled+=("$(insert_ms filled "$2")")
	done
	a=$(median "${without[@]}") b=$(median "${filled[@]}")
	result "$INSERTED rows inserted, $1" "$(printf '%.0f ms' "$a")" "$(printf '%.0f ms' "$b")" \
		"$(ratio "$b" "$a")" "$3"
}

bench() {
	headline "A table of $ROWS rows, of $PARENTS parents; medians of $ROUNDS, in turns"
	make_parents
	headline "Children side by side, as an application writes them"
	make_children d,o "$ONE_STEP"
	copies 'key of the parent, one process' one
	make_children d,o "$TWO_STEPS"
	copies "key of the parent's parent, one process" one
	copies "key of the parent's parent, leader and 2 helpers" default
	headline "Children in random order"
	make_children 'md5(d::text || o)' "$ONE_STEP"
	copies 'key of the parent, random order, one process' one
	make_children 'md5(d::text || o)' "$TWO_STEPS"
	copies "key of the parent's parent, random order, one process" one
	copies "key of the parent's parent, random order, leader and 2 helpers" default
	headline "The trigger that fills the key"
	make_inserted
	inserts 'the application gives the key' d 'at most 1.3'
	inserts 'the trigger fills it' 'NULL::bigint' ''
	table without with
}
