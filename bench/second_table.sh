# shellcheck shell=bash
# A key derived by a join and a foreign key out, against those who do the same
#
# Sourced by script/bench. The table of backfill.sh with a foreign key to its parents, whose project each of
# its rows is to have: by a join of 20 rows to one, in the order of the key. The foreign key on the
# target is made afterwards by all, and timed of ours. BENCH_ROWS, BENCH_ROUNDS change the size.

: "${work:?}" "${root:?}"
# shellcheck source=bench/lib/commits.sh
. "$root/bench/lib/commits.sh"

ROWS=${BENCH_ROWS:-2000000}
ROUNDS=${BENCH_ROUNDS:-3}

COLUMNS='s.merge_request_diff_id, s.relative_order, s.authored_date, s.committed_date, s.sha, s.message, s.trailers, s.commit_author_id, s.committer_id'
PROJECT='d.project_id'
JOIN=' JOIN diffs d ON d.id = s.merge_request_diff_id'

make_parents() {
	sql "CREATE TABLE diffs (id bigint PRIMARY KEY, project_id bigint NOT NULL, state text);
		INSERT INTO diffs SELECT i, i * 7919 % 400, 'collected' FROM generate_series(0::bigint, $ROWS / 20) i;
		ALTER TABLE commits ADD FOREIGN KEY (merge_request_diff_id) REFERENCES diffs;
		SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'bigint',
			'(SELECT d.project_id FROM diffs d WHERE d.id = s.merge_request_diff_id)', fill => false)" >/dev/null
	call 'VACUUM (FREEZE, ANALYZE) diffs'
}

create_ours() {
	sql "SELECT migrate_ext.create_migration('commits', 'commits_new', 'bench')" >/dev/null
}

run_gitlab() {
	measured gitlab_way
}

run_insert() {
	measured one_insert
}

run_offline() {
	measured offline_load
	local load=$seconds load_mb=$wal_mb
	measured offline_indexes
	seconds=$(awk "BEGIN { print $load + $seconds }")
	wal_mb=$(awk "BEGIN { print $load_mb + $wal_mb }")
}

run_ours() {
	measured ours 2
	record_ours ours
	record_after ours
	record ours fk "$(sql "SELECT COALESCE(round(extract(epoch FROM max(at) - (SELECT at FROM reached WHERE state = 'live')), 3), 0)
		FROM migrate_ext.events WHERE migration = 'bench' AND kind = 'carried'")"
}

# turn NAME
turn() {
	case $1 in
		gitlab | insert) make_target indexed ;;
		*) make_target bare ;;
	esac
	prepare
	"run_$1"
	all_there commits_new "$ROWS"
	if [ "$1" = ours ]; then
		ours_end
	else
		record "$1" seconds "$seconds"
	fi
	record "$1" wal "$wal_mb"
	say "        $1: $seconds s"
}

# line NAME WHAT
line() {
	note "| $2 | $(number "$(of "$1" seconds)") | $(awk "BEGIN { printf \"%.2f GB\", $(of "$1" wal) / 1024 }") |"
}

bench() {
	local round name
	headline "$ROWS rows and $((ROWS / 20)) parents"
	sql 'CREATE EXTENSION migrate_ext; CREATE EXTENSION pg_prewarm'
	make_commits "$ROWS"
	make_parents
	make_target bare
	make_fill
	make_reached
	for ((round = 1; round <= ROUNDS; round++)); do
		headline "Round $round"
		for name in gitlab insert offline ours; do turn "$name"; done
	done
	note "$ROWS rows of $((ROWS / 20)) parents, $(sql "SELECT pg_size_pretty(pg_relation_size('commits'))"); medians of $ROUNDS." "" \
		"| | seconds | WAL |" "| --- | ---: | ---: |"
	line gitlab 'the GitLab way'
	line insert "one \`INSERT ... SELECT\` into the indexed target"
	line offline 'offline: two sessions load a half each, then build indexes'
	line ours 'migrate_ext, two workers'
	note "" "Of ours: copy $(number "$(of ours copy)") s, indexes $(number "$(of ours indexes)") s; after that foreign key $(of ours fk) s, \
ANALYZE and the foreign key $(number "$(of ours analyze)") s, first verification $(number "$(of ours verify)") s."
	for name in gitlab insert offline; do
		result "two workers, $name" "$(number "$(of ours seconds)") s" "$(number "$(of "$name" seconds)") s" "$(ratio "$(of ours seconds)" "$(of "$name" seconds)")" ''
	done
	table ours 'the other'
}
