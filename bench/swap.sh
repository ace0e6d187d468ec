# shellcheck shell=bash
# the swap: how long it holds its locks, and how long clients who update the table wait
#
# Sourced by script/bench. Rounds of finalize and undo under pgbench's updates of single rows, with
# 64 and with 1,024 partitions, of a plain table and of one with everything on it (100 columns, 30
# indexes, 20 policies, 10 views, triggers, foreign keys, ...).
#
# What is held is what the view swaps says. The longest wait is that of a client who updates a row
# while finalize or undo runs, verification and all, as pgbench logs it.
#
# BENCH_ROUNDS (each is a finalize and an undo), BENCH_ROWS, BENCH_RATE (updates a second) and
# BENCH_CASES ("plain_64 plain_1024 all_64 all_1000") change the size.

ROUNDS=${BENCH_ROUNDS:-50}
ROWS=${BENCH_ROWS:-20000}
RATE=${BENCH_RATE:-6000}
CASES=${BENCH_CASES:-plain_64 plain_1024 all_64 all_1000}
CLIENTS=4
: "${work:?}"

declare -A WHAT=([plain]='plain table' [all]='table with everything')
declare -A GOAL=([plain_64]='30, 50' [plain_1024]=', 150' [all_64]='100' [all_1000]='100')

swaps=()

make_plain() {
	sql "CREATE TABLE busy (id integer, k integer, c1 integer DEFAULT 1, body text DEFAULT 'some text', PRIMARY KEY (id, k));
		INSERT INTO busy (id, k) SELECT i, i FROM generate_series(1, $ROWS) i"
}

make_all() {
	everything | psql_here -v rows="$ROWS" >/dev/null
}

# psql's variable rows says how many rows.
everything() {
	cat <<-'END'
		CREATE ROLE reader;
		CREATE ROLE writer;
		CREATE TABLE places (id integer PRIMARY KEY, name text);
		INSERT INTO places SELECT i, 'place ' || i FROM generate_series(1, 100) i;
		CREATE TABLE log (what text, id integer);

		-- 100 columns
		SELECT 'CREATE TABLE busy (id integer, k integer, number serial, at timestamptz DEFAULT now(), body text DEFAULT ''some text'',
			tags text[] DEFAULT ''{}'', place integer DEFAULT 1 REFERENCES places ON DELETE CASCADE, second_place integer REFERENCES places DEFERRABLE,
			parent integer, doubled integer GENERATED ALWAYS AS (place * 2) STORED, '
			|| string_agg(format('c%s integer DEFAULT %1$s', i), ', ' ORDER BY i)
			|| ', PRIMARY KEY (id, k), UNIQUE (k, number) DEFERRABLE, CHECK (c2 > 0), CHECK (c3 > 0 AND body <> ''no''), FOREIGN KEY (parent, k) REFERENCES busy)
			WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)'
		FROM generate_series(1, 90) i \gexec
		INSERT INTO busy (id, k) SELECT i, i FROM generate_series(1, :rows) i;

		-- 30 indexes, two of them above
		CREATE INDEX by_expression ON busy (lower(body) text_pattern_ops DESC, k);
		CREATE INDEX partial ON busy (at) INCLUDE (place) WHERE c5 > 5;
		CREATE INDEX by_tag ON busy USING gin (tags);
		CREATE INDEX by_time ON busy USING brin (at);
		CREATE UNIQUE INDEX unique_partial ON busy (k, id) WHERE c6 > 0;
		SELECT format('CREATE INDEX by_c%s ON busy (c%1$s)', i) FROM generate_series(10, 32) i \gexec
		COMMENT ON INDEX partial IS 'of an index';

		-- 20 policies, 10 views, one of them materialized
		ALTER TABLE busy ENABLE ROW LEVEL SECURITY;
		SELECT format('CREATE POLICY p%s ON busy TO reader, writer USING (c%1$s > 0)', i) FROM generate_series(2, 19) i \gexec
		CREATE POLICY by_place ON busy TO PUBLIC USING (k IN (SELECT p.id FROM places p WHERE p.name = CURRENT_USER));
		CREATE POLICY restricts ON busy AS RESTRICTIVE FOR INSERT TO PUBLIC WITH CHECK (body IS DISTINCT FROM 'forbidden');
		SELECT format('CREATE VIEW v%s AS SELECT id, k, c%1$s FROM busy WHERE c%1$s > 0', i) FROM generate_series(1, 7) i \gexec
		CREATE VIEW barred WITH (security_barrier, check_option = local) AS SELECT id, k, body FROM busy WHERE c9 > 0;
		CREATE VIEW chain AS SELECT b.k, count(*) FROM barred b LEFT JOIN busy USING (id) GROUP BY b.k;
		CREATE MATERIALIZED VIEW kept AS SELECT k % 10 AS tenth, count(*) FROM busy GROUP BY 1;
		COMMENT ON VIEW barred IS 'of a view';

		-- Triggers, rules, functions
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (TG_NAME, OLD.id); RETURN NULL; END $$;
		CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.c90 := OLD.c90 + 1; RETURN NEW; END $$;
		CREATE TRIGGER noted AFTER DELETE ON busy FOR EACH ROW EXECUTE FUNCTION note('argument');
		CREATE TRIGGER touched BEFORE UPDATE OF body ON busy FOR EACH ROW EXECUTE FUNCTION touch();
		CREATE TRIGGER changed AFTER UPDATE ON busy FOR EACH ROW WHEN (OLD.body IS DISTINCT FROM NEW.body) EXECUTE FUNCTION note();
		CREATE CONSTRAINT TRIGGER late AFTER DELETE ON busy DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
		CREATE TRIGGER truncated BEFORE TRUNCATE ON busy FOR EACH STATEMENT EXECUTE FUNCTION note();
		CREATE RULE ruled AS ON DELETE TO busy WHERE OLD.body = 'ruled' DO ALSO INSERT INTO log VALUES ('rule', OLD.id);
		CREATE FUNCTION rows_of(whose integer) RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM busy WHERE k = whose);
		CREATE FUNCTION add_row(id integer) RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO busy (id, k) VALUES (add_row.id, add_row.id); END;

		-- What belongs to columns, and the rest
		ALTER TABLE busy ALTER body SET STORAGE EXTERNAL, ALTER c1 SET STATISTICS 200, ALTER c2 SET (n_distinct = -0.25);
		CREATE STATISTICS of_columns (dependencies, mcv) ON k, place FROM busy;
		CREATE STATISTICS of_expressions ON (k * 2), (lower(body)), c3 FROM busy;
		COMMENT ON TABLE busy IS 'of a table';
		SELECT format('COMMENT ON COLUMN busy.c%s IS %L', i, 'of column ' || i) FROM generate_series(1, 90) i \gexec
		GRANT SELECT ON busy TO reader WITH GRANT OPTION;
		GRANT SELECT (id, k, body), INSERT (id, k), UPDATE (c1, c2) ON busy TO writer;
		GRANT SELECT ON v1, barred TO reader;
		SET client_min_messages = error; -- wal_level
		CREATE PUBLICATION published FOR TABLE busy (id, k, body) WHERE (k < 50) WITH (publish_via_partition_root);
	END
}

# make KIND PARTITIONS: a live migration of the table busy
make() {
	"make_$1"
	# PostgreSQL plans a join with all partitions to validate the key of one of them
	[ "$2" -lt 1000 ] || sql "SET client_min_messages = warning; ALTER TABLE busy DROP CONSTRAINT IF EXISTS busy_parent_k_fkey"
	call 'VACUUM ANALYZE busy'
	sql "SELECT migrate_ext.partition_by_hash('busy', 'k', $2); SELECT migrate_ext.start('busy')" >/dev/null
	call "CALL migrate_ext.wait_for('busy', 'live')"
}

# One round is for what is made at the first swap only.
rounds() {
	local i direction
	sql 'CREATE UNLOGGED TABLE turn (number integer, began timestamptz, ended timestamptz)'
	for ((i = 0; i <= ROUNDS; i++)); do
		for direction in finalize undo; do
			sql "INSERT INTO turn VALUES ($i, clock_timestamp())"
			call "CALL migrate_ext.$direction('busy')"
			sql "UPDATE turn SET ended = clock_timestamp() WHERE ended IS NULL"
		done
	done
}

load_begin() {
	as_postgres tee "$work/tmp/update.sql" >/dev/null <<-END
		\set id random(1, $ROWS)
		UPDATE busy SET c1 = c1 + 1 WHERE id = :id AND k = :id;
	END
	start_job load pgbench -n -c "$CLIENTS" -R "$RATE" -T 36000 -l --log-prefix "$work/tmp/latency" \
		-f "$work/tmp/update.sql" -h "$work/tmp" postgres
}

load_end() {
	stop_jobs || true # it is gone after the first signal
	! grep -E 'ERROR|aborted' "$work/load.log" || die "the load failed"
}

# percentiles QUERY: median and 95th percentile of its one column
percentiles() {
	sql "SELECT string_agg(round(p::numeric, 1)::text, ' | ' ORDER BY n)
		FROM (SELECT percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY x) AS of FROM ($1) v (x)) q,
			unnest(q.of) WITH ORDINALITY u (p, n)"
}

# The wait of a client from when its turn was due is another thing: only what it waited for the server.
# The last line is cut short when the load is ended, and its numbers with it.
waits() {
	sql 'CREATE UNLOGGED TABLE latency (us bigint, at timestamptz)'
	head -qn -1 "$work"/tmp/latency* |
		awk '$3 - $7 > 2000 { printf "%d\t%s.%06d\n", $3 - $7, strftime("%Y-%m-%d %H:%M:%S", $5, 1), $6 }' |
		psql_here -c "SET TimeZone = 'UTC'" -c 'COPY latency FROM STDIN'
	sql 'CREATE INDEX ON latency (at)'
	percentiles 'SELECT COALESCE((SELECT max(us) FROM latency WHERE at BETWEEN began AND ended), 0) / 1000.0 FROM turn WHERE number > 0'
}

# measure KIND PARTITIONS
measure() {
	local held updates
	headline "${WHAT[$1]}, $2 partitions"
	make "$1" "$2"
	load_begin
	rounds
	load_end
	held=$(percentiles "SELECT hold_ms FROM (SELECT hold_ms, row_number() OVER (ORDER BY at) AS n FROM migrate_ext.swaps) s WHERE n > 2")
	updates=$(sql "SELECT round($(cat "$work"/tmp/latency* | wc -l) / extract(epoch FROM max(ended) - min(began))) FROM turn")
	swaps+=("| ${WHAT[$1]}, $2 partitions | $((2 * ROUNDS)) | $updates | $held | $(waits) | ${GOAL[$1_$2]:-} |")
	say "${swaps[-1]}"
}

# A server for each case: what the last one left in the catalogs would be part of the next. The locks
# are for 31 indexes of each of 1,000 partitions.
another_server() {
	stop_servers || true
	rm -rf "$work/data" "$work"/tmp/latency*
	start_server
	sql 'ALTER SYSTEM SET max_locks_per_transaction = 512'
	as_postgres pg_ctl restart -w -D "$work/data" -l "$work/tmp/server.log" >"$work/pg_ctl.log"
	sql 'CREATE EXTENSION migrate_ext'
}

bench() {
	local one
	for one in $CASES; do
		another_server
		measure "${one%_*}" "${one#*_}"
	done
	note "" "| milliseconds | swaps | updates/s | held, median | 95 % | longest wait, median | 95 % | goal: held |" \
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |" "${swaps[@]}"
}
