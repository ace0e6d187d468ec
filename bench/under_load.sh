# shellcheck shell=bash
# The backfill while clients update single rows at half of what the machine can: what both lose
#
# Sourced by script/bench. pgbench's clients update rows of the table, anywhere in it, by its key: first as
# fast as they can, then at half of that rate, with and without a migration by two workers, and the
# migration also of an idle table, with helpers that don't give way, and with one worker. What clients see counts from when their turn was due; pgbench itself
# needs its share of the machine to begin in time, so the wait to begin is told apart.
# BENCH_ROWS, BENCH_ROUNDS change the size, BENCH_NICE how far helpers give way (worker_nice).

: "${work:?}" "${root:?}"
# shellcheck source=bench/lib/commits.sh
. "$root/bench/lib/commits.sh"

ROWS=${BENCH_ROWS:-4000000}
ROUNDS=${BENCH_ROUNDS:-3}
CLIENTS=8
CAPACITY_S=10

# load_begin RATE: it has found its pace when this returns
load_begin() {
	start_job load pgbench -n -M prepared -c "$CLIENTS" -R "$1" -T 36000 -P 1 -l --log-prefix "$work/tmp/latency" \
		-f "$work/tmp/update.sql" -h "$work/tmp" postgres
	wait_until 60 'the load to begin' grep -q '^progress: 3' "$work/load.log"
}

load_end() {
	stop_jobs || true # it is gone after the first signal
	! grep -E 'ERROR|aborted' "$work/load.log" || die "the load failed"
}

# clients_saw NAME FROM UPTO: of the time between them, in seconds since 1970. The last line of a log may be cut.
clients_saw() {
	head -qn -1 "$work"/tmp/latency* | awk -v a="$2" -v b="$3" '{ t = $5 + $6 / 1e6 } t >= a && t <= b { print $3 / 1000, ($3 - $7) / 1000 }' >"$work/tmp/seen"
	rm -f "$work"/tmp/latency*
	record "$1" tps "$(awk "END { print NR / ($3 - $2) }" "$work/tmp/seen")"
	record "$1" p99 "$(sort -n "$work/tmp/seen" | awk '{ x[NR] = $1 } END { print x[int(NR * 0.99) + 1] }')"
	record "$1" p50 "$(sort -n "$work/tmp/seen" | awk '{ x[NR] = $1 } END { print x[int(NR * 0.5) + 1] }')"
	record "$1" server_p99 "$(sort -n -k 2 "$work/tmp/seen" | awk '{ x[NR] = $2 } END { print x[int(NR * 0.99) + 1] }')"
}

# processor_time: seconds of all processors that were busy since the machine started
processor_time() {
	awk -v hz="$(getconf CLK_TCK)" '/^cpu / { print ($2 + $3 + $4 + $7 + $8) / hz }' /proc/stat
}

# epoch STATE: when it came there
epoch() {
	sql "SELECT extract(epoch FROM at) FROM reached WHERE state = '$1'"
}

create_ours() {
	sql "SELECT migrate_ext.create_migration('commits', 'commits_new', 'bench', '{\"columns\": {\"project_id\": \"$PROJECT\"}}');
		$([ -z "$nice" ] || echo "SELECT migrate_ext.configure('bench', 'worker_nice', '$nice')")" >/dev/null
}

run_idle() {
	local busy
	make_target bare
	prepare
	busy=$(processor_time)
	measured ours 2
	record idle processor_time "$(awk "BEGIN { print $(processor_time) - $busy }")"
	record_ours idle
	ours_end
}

# As long as the migration would take, twice.
run_alone() {
	local from upto busy
	prepare
	load_begin "$rate"
	busy=$(processor_time)
	from=$EPOCHREALTIME
	sleep "$(awk "BEGIN { print 2 * $(of idle seconds) + 2 }")"
	upto=$EPOCHREALTIME
	record alone processors "$(awk "BEGIN { print ($(processor_time) - $busy) / ($upto - $from) }")"
	load_end
	clients_saw alone "$from" "$upto"
}

# run_both NAME WORKERS
run_both() {
	make_target bare
	prepare
	load_begin "$rate"
	measured ours "$2"
	load_end
	record_ours "$1"
	clients_saw "$1" "$(epoch created)" "$(epoch live)"
	ours_end
}

capacity() {
	as_postgres tee "$work/tmp/update.sql" >/dev/null <<-END
		\set d random(0, $ROWS / 20 - 1)
		\set o random(0, 19)
		UPDATE commits SET committer_id = committer_id + 1 WHERE merge_request_diff_id = :d AND relative_order = :o;
	END
	prepare
	as_postgres pgbench -n -M prepared -c "$CLIENTS" -T "$CAPACITY_S" -f "$work/tmp/update.sql" -h "$work/tmp" postgres 2>&1 |
		sed -n 's/^tps = \([0-9]*\).*/\1/p'
}


bench() {
	local round capacity rate nice=${BENCH_NICE:-}
	headline "$ROWS rows"
	sql 'CREATE EXTENSION migrate_ext; CREATE EXTENSION pg_prewarm'
	make_commits "$ROWS"
	make_reached
	capacity=$(capacity)
	rate=$((capacity / 2))
	for ((round = 1; round <= ROUNDS; round++)); do
		headline "Round $round, $rate updates a second"
		run_idle
		run_alone
		run_both both 2
		run_both gentle 1
		nice=0
		run_both rude 2
		nice=${BENCH_NICE:-}
	done
	note "$ROWS rows, $(sql "SELECT pg_size_pretty(pg_relation_size('commits'))"); $CLIENTS clients, $capacity updates a second at most, $rate wanted; medians of $ROUNDS." "" \
		"| | created to live, seconds | copy | indexes | drain | updates a second | median, ms | 99 % | 99 % without the wait to begin |" "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |" \
		"| migration alone | $(phases_of idle) | | | | |" \
		"| clients alone | | | | | $(clients_of alone) |" \
		"| both | $(phases_of both) | $(clients_of both) |" \
		"| both, worker_nice = 0 | $(phases_of rude) | $(clients_of rude) |" \
		"| both, one worker | $(phases_of gentle) | $(clients_of gentle) |"
	note "" "Of $(nproc) processors the clients alone, with pgbench itself, keep $(printf '%.2f' "$(of alone processors)") busy. The migration alone takes $(printf '%.1f' "$(of idle processor_time)") seconds of a processor: \
in what the clients leave, $(awk "BEGIN { printf \"%.1f\", $(of idle processor_time) / ($(nproc) - $(of alone processors)) }") s is the least it can take."
	result 'time, with the clients, idle' "$(number "$(of both seconds)") s" "$(number "$(of idle seconds)") s" "$(ratio "$(of both seconds)" "$(of idle seconds)")" 'at most 1.6'
	result 'updates a second, with, without' "$(number "$(of both tps)")" "$(number "$(of alone tps)")" "$(ratio "$(of both tps)" "$(of alone tps)")" 'at least 0.85'
	result '99 % of latency, with, without' "$(number "$(of both p99)") ms" "$(number "$(of alone p99)") ms" "$(ratio "$(of both p99)" "$(of alone p99)")" 'at most 2'
	result 'the same without the wait to begin' "$(number "$(of both server_p99)") ms" "$(number "$(of alone server_p99)") ms" "$(ratio "$(of both server_p99)" "$(of alone server_p99)")" ''
	result 'one worker: time, with the clients, two idle' "$(number "$(of gentle seconds)") s" "$(number "$(of idle seconds)") s" "$(ratio "$(of gentle seconds)" "$(of idle seconds)")" ''
	result 'one worker: updates a second, with, without' "$(number "$(of gentle tps)")" "$(number "$(of alone tps)")" "$(ratio "$(of gentle tps)" "$(of alone tps)")" ''
	table with without
}

phases_of() {
	printf '%.1f | %.1f | %.1f | %.1f' "$(of "$1" seconds)" "$(of "$1" copy)" "$(of "$1" indexes)" "$(of "$1" drain)"
}

clients_of() {
	printf '%.0f | %.1f | %.1f | %.1f' "$(of "$1" tps)" "$(of "$1" p50)" "$(of "$1" p99)" "$(of "$1" server_p99)"
}
