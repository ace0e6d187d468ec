# shellcheck shell=bash
# A key in random order, and a table four times shared_buffers: the lead over the GitLab way
#
# Sourced by script/bench. The same table with its key in the order of its rows, and with an uuid as key; of
# shared_buffers the server has a quarter of the table. (The system's own cache holds what it
# can.) BENCH_ROWS, BENCH_ROUNDS change the size.

: "${work:?}" "${root:?}"
# shellcheck source=bench/lib/commits.sh
. "$root/bench/lib/commits.sh"

ROWS=${BENCH_ROWS:-2000000}
ROUNDS=${BENCH_ROUNDS:-3}

# make KIND: ordered or random
make() {
	if [ "$1" = random ]; then
		KEY=id
		KEY_FORMAT='(%L)'
		make_commits "$ROWS" 'id uuid NOT NULL DEFAULT gen_random_uuid()'
	else
		KEY='merge_request_diff_id, relative_order'
		KEY_FORMAT='(%L, %L)'
		make_commits "$ROWS"
	fi
	make_target bare
	make_fill
	sql "ALTER SYSTEM SET shared_buffers = '$(sql "SELECT pg_relation_size('commits') / 4 / 1024")kB'"
	as_postgres pg_ctl restart -w -m fast -D "$work/data" -l "$work/tmp/server.log" >"$work/pg_ctl.log"
}

# turn KIND
turn() {
	make_target indexed
	prepare
	measured gitlab_way
	record "gitlab $1" seconds "$seconds"
	all_there commits_new "$ROWS"
	make_target bare
	prepare
	measured ours 2
	record_ours "ours $1"
	all_there commits_new "$ROWS"
	ours_end
	say "        $1: $(of "gitlab $1" seconds) s, ours $(of "ours $1" seconds) s"
}

# line KIND WHAT
line() {
	local theirs ours
	theirs=$(of "gitlab $1" seconds)
	ours=$(of "ours $1" seconds)
	note "| $2 | $(number "$theirs") | $(number "$ours") | $(number "$(of "ours $1" copy)") | $(number "$(of "ours $1" indexes)") | $(ratio "$theirs" "$ours") |"
}

bench() {
	local kind round
	sql 'CREATE EXTENSION migrate_ext; CREATE EXTENSION pg_prewarm'
	make_reached
	for kind in ordered random; do
		headline "$ROWS rows, key $kind"
		make "$kind"
		[ "$kind" = random ] || note "$ROWS rows, $(sql "SELECT pg_size_pretty(pg_relation_size('commits'))"), shared_buffers $(sql 'SHOW shared_buffers'); medians of $ROUNDS." ""
		for ((round = 0; round < ROUNDS; round++)); do turn "$kind"; done
	done
	note "| key | the GitLab way | migrate_ext, two workers | copy | indexes | as fast |" "| --- | ---: | ---: | ---: | ---: | ---: |"
	line ordered 'in the order of the rows'
	line random 'uuid, in random order'
	result 'the lead, random key, ordered' "$(ratio "$(of 'gitlab random' seconds)" "$(of 'ours random' seconds)")" \
		"$(ratio "$(of 'gitlab ordered' seconds)" "$(of 'ours ordered' seconds)")" \
		"$(awk "BEGIN { printf \"%.2f\", $(of 'gitlab random' seconds) / $(of 'ours random' seconds) / ($(of 'gitlab ordered' seconds) / $(of 'ours ordered' seconds)) }")" 'at least 1'
	table random ordered
}
