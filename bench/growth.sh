# shellcheck shell=bash
# What grows with the table and with the number of partitions: time a row, memory of a worker
#
# Sourced by script/bench. Two workers, from created to live, of an idle table: of 1 to 16 million rows into
# 8 range partitions; of one size into 8 to 1,024 hash partitions. Memory is a worker's own
# (RssAnon), looked at ten times a second; what it touches of shared_buffers is not.
#
# BENCH_ROWS (a list: "1000000 4000000 16000000"), BENCH_PARTITIONS ("8 64 1024", of the second size of
# the list), BENCH_ROUNDS (1) change the size.

: "${work:?}" "${root:?}"
# shellcheck source=bench/lib/commits.sh
. "$root/bench/lib/commits.sh"

read -ra SIZES <<<"${BENCH_ROWS:-1000000 4000000 16000000}"
read -ra HASHED <<<"${BENCH_PARTITIONS:-8 64 1024}"
ROUNDS=${BENCH_ROUNDS:-1}
setting 'maintenance_work_mem = 64MB' 'max_locks_per_transaction = 512'

# Writes the most that any worker had, in MB, to the file.
watch_memory() {
	local pid most=0 kb
	echo 0 >"$work/tmp/most"
	while true; do
		for pid in $(pgrep -f "^postgres: migrate_ext" || true); do
			[[ $(readlink "/proc/$pid/cwd") == "$work"/* ]] || continue
			kb=$(awk '/^RssAnon/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || continue
			if [ "${kb:-0}" -gt "$most" ]; then
				most=$kb
				echo $((most / 1024)) >"$work/tmp/most"
			fi
		done
		sleep 0.1
	done
}

# turn NAME ROWS
turn() {
	local watcher
	prepare
	watch_memory &
	watcher=$!
	measured ours 2
	kill "$watcher"
	wait "$watcher" 2>/dev/null || true
	record_ours "$1"
	record "$1" wal "$wal_mb"
	record "$1" memory "$(cat "$work/tmp/most")"
	all_there commits_new "$2"
	ours_end
	say "        $1: $seconds s, copy $(of "$1" copy) s, indexes $(of "$1" indexes) s, $(cat "$work/tmp/most") MB"
}

create_ranges() {
	sql "SELECT migrate_ext.create_migration('commits', 'commits_new', 'bench', '{\"columns\": {\"project_id\": \"$PROJECT\"}}')" >/dev/null
}

create_hashed() {
	sql "SELECT migrate_ext.partition_by_hash('commits', 'merge_request_diff_id', $hashed, 'bench')" >/dev/null
}

create_ours() {
	"create_$way"
}

# line NAME ROWS
line() {
	note "| $1 | $(number "$(of "$1" seconds)") | $(awk "BEGIN { printf \"%.2f\", $(of "$1" seconds) / $2 * 1e6 }") \
| $(number "$(of "$1" copy)") | $(number "$(of "$1" indexes)") | $(awk "BEGIN { printf \"%.0f\", $(of "$1" wal) / $2 * 1048576 }") | $(of "$1" memory) MB |"
}

# us NAME ROWS: microseconds a row
us() {
	awk "BEGIN { printf \"%.3f\\n\", $(of "$1" seconds) / $2 * 1e6 }"
}

bench() {
	local rows round base hashed_rows most least
	sql 'CREATE EXTENSION migrate_ext; CREATE EXTENSION pg_prewarm'
	make_reached
	hashed_rows=${SIZES[1]:-${SIZES[0]}}
	for rows in "${SIZES[@]}"; do
		headline "$rows rows"
		make_commits "$rows"
		for ((round = 0; round < ROUNDS; round++)); do
			way=ranges
			make_target bare
			turn "$rows rows" "$rows"
			if [ "$rows" = "$hashed_rows" ]; then
				way=hashed
				sql 'DROP TABLE commits_new'
				for hashed in "${HASHED[@]}"; do turn "$hashed hash partitions" "$rows"; done
			fi
		done
	done
	note "Medians of $ROUNDS; memory is the most that a worker had of its own." ""
	note "| | seconds | microseconds a row | copy | indexes | bytes of WAL a row | memory of a worker |" "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
	for rows in "${SIZES[@]}"; do line "$rows rows" "$rows"; done
	for hashed in "${HASHED[@]}"; do line "$hashed hash partitions" "$hashed_rows"; done
	most=$(for rows in "${SIZES[@]}"; do us "$rows rows" "$rows"; done | sort -n | tail -n 1)
	least=$(for rows in "${SIZES[@]}"; do us "$rows rows" "$rows"; done | sort -n | head -n 1)
	result "time a row: slowest, fastest of these sizes" "$most us" "$least us" "$(ratio "$most" "$least")" 'at most 1.15'
	base="${HASHED[0]} hash partitions"
	most="${HASHED[-1]} hash partitions"
	result "$most, ${HASHED[0]}" "$(number "$(of "$most" seconds)") s" "$(number "$(of "$base" seconds)") s" \
		"$(ratio "$(of "$most" seconds)" "$(of "$base" seconds)")" 'at most 1.4'
	result "memory, $base, of 128 MB" "$(of "$base" memory) MB" '' "$(ratio "$(of "$base" memory)" 128)" 'at most 1'
	result "memory, $most, of 512 MB" "$(of "$most" memory) MB" '' "$(ratio "$(of "$most" memory)" 512)" 'at most 1'
	table 'the greater' 'the smaller'
}
