# shellcheck shell=bash
# What the scripts share. Sourced, never run.
#
# The protocol: work_begin makes a folder and sets the traps; everything a script makes or starts is
# below that folder, so work_end, run at every exit, finds all of it there: servers by their
# postmaster.pid, our own jobs by their *.pid, files by being files.

PG_MAJOR=15

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
base=                                   # the folder of this run
work=                                   # where it works: that, or one in it for another major
systems=/var/cache/migrate_ext          # where those are that script/bootstrap --pg has made
system=                                 # not empty: the root of a Debian that has PostgreSQL $PG_MAJOR
keep=                                   # not empty: leave it there

say() {
	printf '%s\n' "$*"
}

die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

work_begin() {
	base=$(mktemp -d "${TMPDIR:-/tmp}/migrate_ext.XXXXXX")
	work=$base
	trap work_end EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	mkdir "$work/tmp" "$work/src"
	chown -R postgres: "$work"
}

# work_on MAJOR: from here on with another PostgreSQL, in a folder of its own. Fails where that isn't to be had;
# $work/system.log tells why.
work_on() {
	local pid
	PG_MAJOR=$1
	work=$base/pg$1
	mkdir -p "$work/tmp" "$work/src"
	chown -R postgres: "$work"
	system=$systems/postgresql-$1
	if [ ! -d "$system" ]; then
		system=$base/system$1
		setsid "$root/script/bootstrap" --pg "$1" "$system" </dev/null >"$work/system.log" 2>&1 &
		pid=$!
		echo "$pid" >"$work/system.pid"
		wait "$pid" || pid=""
		rm "$work/system.pid"
		[ -n "$pid" ] || return 1
	fi
	mkdir -p "$system/$work"
}

work_end() {
	local status=$?
	trap - EXIT
	trap '' HUP INT TERM
	set +e
	stop_jobs
	stop_servers
	if [ -n "$keep" ]; then
		say "Kept: $base"
	else
		rmdir "$systems"/*/"$base"/* "$systems"/*/"$base" 2>/dev/null
		rm -rf --one-file-system "$base"
	fi
	exit "$status"
}

# Subshells of ours first, or they would start the next job. Each job is a session, and so a process
# group, of its own: its number is all it takes.
stop_jobs() {
	local file pid
	for pid in $(jobs -p); do kill -TERM "$pid" 2>/dev/null; done
	for file in "$work"/*.pid; do
		[ -e "$file" ] || continue
		pid=$(cat "$file")
		kill -TERM -- "-$pid" 2>/dev/null
		wait_gone "$pid"
		rm -f "$file"
	done
}

# A postmaster runs in its data folder, which tells ours from a stranger that got an old number.
stop_servers() {
	local file pid
	while IFS= read -r -d '' file; do
		pid=$(head -n 1 "$file")
		[[ $(readlink "/proc/$pid/cwd") == "$work"/* ]] || continue
		kill -QUIT "$pid" 2>/dev/null
		wait_gone "$pid" || kill -KILL "$pid" 2>/dev/null
	done < <(find "$work" -name postmaster.pid -type f -print0 2>/dev/null)
}

wait_gone() {
	local deadline=$((SECONDS + 20))
	while kill -0 "$1" 2>/dev/null; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.05
	done
}

# exec_in_system COMMAND...: with $system as its root, where there is one, and $work where it is. What is mounted for
# that nobody else sees, and it goes with the last process. No chroot: in one there are no user namespaces.
exec_in_system() {
	[ -n "$system" ] || exec "$@"
	# shellcheck disable=SC2016
	exec unshare --mount --propagation private sh -euc '
		system=$1 work=$2
		shift 2
		mount --bind "$system" "$system"
		mount -t proc proc "$system/proc"
		mount -t tmpfs -o mode=1777 tmpfs "$system/dev/shm"
		mount --bind "$work" "$system$work"
		cd "$system"
		pivot_root . mnt
		cd /
		umount -l /mnt
		exec "$@"' sh "$system" "$work" "$@"
}

# PostgreSQL refuses to run as root. A clean environment keeps the caller's PG* settings and locale out.
# For a command to be exec'ed: call it in a subshell.
exec_as_postgres() {
	exec_in_system setpriv --reuid=postgres --regid=postgres --init-groups --reset-env \
		env HOME="$work" TMPDIR="$work/tmp" LC_ALL=C.UTF-8 TZ=UTC \
		PATH="$work/pg/lib/postgresql/$PG_MAJOR/bin:/usr/bin:/bin" "$@"
}

as_postgres() {
	(exec_as_postgres "$@")
}

# start_job NAME COMMAND...: runs it as postgres in the background, its output in $work/NAME.log.
# Nothing but exec between here and the command, so that $! is the number of its session.
start_job() {
	local name=$1
	shift
	exec_as_postgres setsid "$@" </dev/null >"$work/$name.log" 2>&1 &
	echo $! >"$work/$name.pid"
}

# What git knows or would, as it stands on disk: neither build products nor files already deleted.
copy_tree() {
	local list="$work/tmp/files"
	if git -c safe.directory="$root" -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
		git -c safe.directory="$root" -C "$root" ls-files -coz --exclude-standard >"$list"
	else
		(cd "$root" && find . \( -type f -o -type l \) -print0) >"$list"
	fi
	(
		cd "$root" || exit
		while IFS= read -r -d '' file; do
			if [ -e "$file" ]; then printf '%s\0' "$file"; fi
		done <"$list" | tar --null --no-recursion -T - -cf -
	) | tar -xf - --no-same-owner -C "$work/src"
	rm "$list"
	chown -R postgres: "$work/src"
}

# PostgreSQL's programs look for their other files relative to where they themselves stand. So a copy
# of the programs among links to the rest is an installation of its own: ours to install into, without
# a trace in the system's, and without two runs at a time overwriting each other's library.
private_postgres() {
	# shellcheck disable=SC2016
	as_postgres sh -euc '
		pg=$1/pg
		major=$2
		mkdir -p "$pg/lib/postgresql" "$pg/share/postgresql" "$pg/include"
		cp -as "/usr/lib/postgresql/$major" "$pg/lib/postgresql/"
		rm -rf "$pg/lib/postgresql/$major/bin"
		cp -a "/usr/lib/postgresql/$major/bin" "$pg/lib/postgresql/$major/"
		cp -as "/usr/share/postgresql/$major" "$pg/share/postgresql/"
		ln -s /usr/include/postgresql "$pg/include/postgresql"
		# An older build that somebody installed must not be what is tested.
		find "$pg/lib" "$pg/share" -name "migrate_ext*" -delete' sh "$work" "$PG_MAJOR"
}

# build MAKE_ARGUMENTS...: shows what the compiler says only where it fails
build() {
	private_postgres
	if ! as_postgres make -C "$work/src" --no-print-directory -s -j "$(nproc)" "$@" install \
		>"$work/build.log" 2>&1; then
		cat "$work/build.log"
		die "the build failed"
	fi
}

# What stands in for modules that Debian does not package.
build_modules() {
	local module
	for module in "$work"/src/test/modules/*/; do
		as_postgres make -C "$module" --no-print-directory -s install >>"$work/build.log" 2>&1 && continue
		cat "$work/build.log"
		die "the build of $module failed"
	done
}

# What every suite stands on.
build_for_tests() {
	copy_tree
	say "Building with debug points and assertions"
	build DEBUG_POINTS=1
	build_modules
}

# timed_out STATUS: was it timeout that ended it, by SIGKILL in the end?
timed_out() {
	[ "$1" -eq 124 ] || [ "$1" -eq 137 ]
}

# The settings of a plain installation, but for room to work in. No shared_preload_libraries: the
# extension needs none. fsync stays on, so that times are what a real server's would be.
# server_settings are more of them, lines of postgresql.conf.
server_settings=()

start_server() {
	as_postgres initdb -D "$work/data" -A peer --no-sync -E UTF8 >"$work/initdb.log"
	as_postgres tee -a "$work/data/postgresql.conf" >"$work/tmp/settings" <<-END
		listen_addresses = ''
		unix_socket_directories = '$work/tmp'
		shared_buffers = 512MB
		max_wal_size = 4GB
		checkpoint_timeout = 15min
		log_min_messages = warning
		$(printf '%s\n' "${server_settings[@]}")
	END
	as_postgres pg_ctl start -w -D "$work/data" -l "$work/tmp/server.log" >"$work/pg_ctl.log"
}

# psql_here ARGUMENTS...: psql on that server
psql_here() {
	as_postgres psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$work/tmp" -d postgres "$@"
}

# sql STATEMENTS: there
sql() {
	psql_here -c "$1"
}

# test_file SUITE NAME: where a test stands, in the tree
test_file() {
	case $1 in
		regress) echo "sql/$2.sql" ;;
		isolation) echo "test/isolation/specs/$2.spec" ;;
		tap) echo "test/t/$2.pl" ;;
		tools) echo "test/tools/$2.pl" ;;
	esac
}

# results_of SUITE LOG TAP_RESULTS: a line a test: pass, fail or skip, its name, and of a skip the reason.
# The drivers print "test x ... ok" up to 15, TAP from 16 on.
results_of() {
	if [[ $1 == tap* || $1 == tools ]]; then
		cat "$3" 2>/dev/null || true
		return
	fi
	sed -nE \
		-e 's/^(test| {4,})  *([^ ]+) +\.\.\. ok .*/pass \2/p' \
		-e 's/^(test| {4,})  *([^ ]+) +\.\.\. FAILED.*/fail \2/p' \
		-e 's/^(test| {4,})  *([^ ]+) +\.\.\. failed \(ignored\).*/skip \2: fails, and is ignored/p' \
		-e 's/^ok [0-9]+ +[-+] ([^ ]+) +[0-9]+ ms$/pass \1/p' \
		-e 's/^not ok [0-9]+ +[-+] ([^ ]+) +[0-9]+ ms.*/fail \1/p' \
		"$2"
}

headline() {
	printf '\n%s\n' "[$(printf '%3d' "$SECONDS") s] $*"
}
