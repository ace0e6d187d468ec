# shellcheck shell=bash
# The whole backfill against those who do the same, in one run, in turns
#
# Sourced by script/bench. Everybody fills the same 8 range partitions, which have the same indexes in the
# end, from the same table, idle, vacuumed and in memory, on the same server after a checkpoint.
# BENCH_ROWS, BENCH_ROUNDS change the size, BENCH_CONTESTANTS who takes part.

: "${work:?}" "${root:?}"
# shellcheck source=bench/lib/commits.sh
. "$root/bench/lib/commits.sh"

ROWS=${BENCH_ROWS:-4000000}
ROUNDS=${BENCH_ROUNDS:-3}
CONTESTANTS=${BENCH_CONTESTANTS:-gitlab pgslice insert offline unlogged ours_1 ours_2}

declare -A WHAT=(
	[gitlab]="the GitLab way: batches of \`INSERT ... SELECT ... FOR UPDATE ON CONFLICT DO NOTHING\`"
	[pgslice]="the pgslice way: the same without \`FOR UPDATE\`"
	[insert]="one \`INSERT ... SELECT\` into the indexed target"
	[offline]="offline: two sessions load a half each, then build indexes"
	[unlogged]="\`CREATE UNLOGGED TABLE AS\`: no WAL, no index, one process"
	[ours_1]='migrate_ext, one worker'
	[ours_2]='migrate_ext, two workers'
)
# As the picture has them.
declare -A LABEL=([gitlab]='GitLab way' [pgslice]='pgslice way' [insert]='one INSERT ... SELECT' [offline]='offline, two sessions'
	[unlogged]='CREATE UNLOGGED TABLE AS' [ours_1]="${WHAT[ours_1]}" [ours_2]="${WHAT[ours_2]}")

# ---------------------------------------------------------------------------------------------
# Turns

run_gitlab() {
	measured gitlab_way
}

run_pgslice() {
	measured pgslice_way
}

run_insert() {
	measured one_insert
}

run_unlogged() {
	measured unlogged_table
}

run_offline() {
	measured offline_load
	record offline copy "$seconds"
	local load=$seconds load_mb=$wal_mb
	measured offline_indexes
	record offline indexes "$seconds"
	seconds=$(awk "BEGIN { print $load + $seconds }")
	wal_mb=$(awk "BEGIN { print $load_mb + $wal_mb }")
	record offline seconds "$seconds"
}

run_ours_1() {
	measured ours 1
	record_ours ours_1
	record_after ours_1
}

run_ours_2() {
	measured ours 2
	record_ours ours_2
	record_after ours_2
}

# turn NAME
turn() {
	case $1 in
		gitlab | pgslice | insert) make_target indexed ;;
		*) make_target bare ;;
	esac
	prepare
	"run_$1"
	record "$1" wal "$wal_mb"
	case $1 in
		unlogged) all_there commits_floor "$ROWS" ;;
		*) all_there commits_new "$ROWS" ;;
	esac
	case $1 in
		ours_*) ours_end ;;
		offline) ;;
		*) record "$1" seconds "$seconds" ;;
	esac
	say "        ${LABEL[$1]}: $seconds s, $wal_mb MB of WAL"
}

# ---------------------------------------------------------------------------------------------
# The report

# has NAME: does it take part?
has() {
	[[ " $CONTESTANTS " = *" $1 "* ]]
}

contestants() {
	local name
	note "| contestant | seconds | least to greatest | rows a second | WAL |" "| --- | ---: | ---: | ---: | ---: |"
	for name in $CONTESTANTS; do
		note "| ${WHAT[$name]} | $(number "$(of "$name" seconds)") | $(range_of "$name" seconds) | $(
			awk "BEGIN { printf \"%d000\", $ROWS / $(of "$name" seconds) / 1000 }" | thousands
		) | $(awk "BEGIN { printf \"%.2f GB\", $(of "$name" wal) / 1024 }") |"
	done
	note "" "pg_rewrite is not packaged for Debian and not run here: on a machine like this one it once took 57 s and 1.9 GB of WAL for 4,000,000 such rows."
}

# 1234567 is 1,234,567
thousands() {
	sed -E ':a; s/([0-9])([0-9]{3})($|,)/\1,\2\3/; ta'
}

# Where the seconds go.
phases() {
	local name what
	note "" "| seconds | until the first batch | copy | indexes | drain | in all: live | then ANALYZE | and verification |" \
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
	for name in $CONTESTANTS; do
		case $name in
			offline) note "| ${LABEL[$name]} | | $(number "$(of offline copy)") | $(number "$(of offline indexes)") | | $(number "$(of offline seconds)") | | |" ;;
			ours_*)
				note "| ${LABEL[$name]} |$(for what in begin copy indexes drain seconds analyze verify; do
					printf ' %.2f |' "$(of "$name" "$what")"
				done)"
				;;
		esac
	done
}

# goal WHAT ONE OTHER GOAL [FLOOR]: ONE and OTHER are WHO:MEASURE
goal() {
	has "${2%:*}" && has "${3%:*}" || return 0
	local one other unit=s
	one=$(of "${2%:*}" "${2#*:}")
	other=$(of "${3%:*}" "${3#*:}")
	case $2 in *:wal) unit=MB ;; esac
	result "$1" "$(number "$one") $unit" "$(number "$other") $unit" "$(ratio "$one" "$other")" "$4" "${5:-}"
}

goals() {
	goal 'two workers, the GitLab way' ours_2:seconds gitlab:seconds 'at most 0.167' 'at most 0.25'
	goal 'two workers, the pgslice way' ours_2:seconds pgslice:seconds 'at most 0.2'
	goal 'two workers, one INSERT' ours_2:seconds insert:seconds 'at most 0.25'
	goal 'two workers, offline' ours_2:seconds offline:seconds 'at most 0.8' 'at most 1.0'
	goal 'WAL, two workers, the GitLab way' ours_2:wal gitlab:wal 'at most 0.37' 'at most 0.45'
	goal 'copy by one worker, CREATE UNLOGGED TABLE AS' ours_1:copy unlogged:seconds 'at most 1.2'
	goal 'copy by two workers, by one' ours_2:copy ours_1:copy 'at most 0.6'
	table ours 'the other'
}

picture() {
	local name
	for name in $CONTESTANTS; do
		printf '%s\t%s\t%.2f GB of WAL\n' "${LABEL[$name]}" "$(of "$name" seconds)" "$(awk "BEGIN { print $(of "$name" wal) / 1024 }")"
	done | sed 's/0.00 GB of WAL/no WAL/' | awk -v title="Seconds to bring $(echo "$ROWS" | thousands) rows into 8 partitions with their indexes" -f "$root/bench/lib/bars.awk" >"$work/picture.svg"
}

bench() {
	local round name
	headline "A table of $ROWS rows"
	sql 'CREATE EXTENSION migrate_ext; CREATE EXTENSION pg_prewarm'
	make_commits "$ROWS"
	make_target bare
	make_fill
	make_reached
	note "$(echo "$ROWS" | thousands) rows, $(sql "SELECT pg_size_pretty(pg_relation_size('commits')) || ' and ' || pg_size_pretty(pg_indexes_size('commits'))") of indexes, \
into 8 range partitions with one more column and the same three indexes; medians of $ROUNDS, in turns. Of migrate_ext the time is from created to live." ""
	for ((round = 1; round <= ROUNDS; round++)); do
		headline "Round $round"
		for name in $CONTESTANTS; do turn "$name"; done
	done
	say ""
	contestants
	phases
	goals
	picture
}
