-- The extension's own tables.  Nobody but the extension's functions touches
-- them (catalog.c and batch.c, as the extension's owner); people look at the
-- views.

-- A schema that was there before is used.  In one that somebody else may create
-- things in, a function of his could be what a superuser calls.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace n
               CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
               WHERE n.nspname = 'migrate_ext' AND a.privilege_type = 'CREATE'
                 AND NOT COALESCE((SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee), false)) THEN
        RAISE EXCEPTION 'schema "migrate_ext" is not safe: roles that are not superuser may create objects in it'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Drop it: CREATE EXTENSION makes its own.';
    END IF;
END
$$;

CREATE TABLE migrate_ext.migration (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    kind         text NOT NULL CHECK (kind IN ('partition', 'key')),
    schema_name  text NOT NULL,
    table_name   text NOT NULL,
    source       regclass NOT NULL,
    target       regclass,
    log          regclass,
    state        text NOT NULL,
    goal         text NOT NULL,
    paused       boolean NOT NULL DEFAULT false,
    pause_reason text,
    last_error   text,
    options      jsonb NOT NULL DEFAULT '{}',
    settings     jsonb NOT NULL DEFAULT '{}',
    request      jsonb,
    definition   jsonb NOT NULL DEFAULT '{}',
    made_target  boolean NOT NULL DEFAULT true,
    epoch        integer NOT NULL DEFAULT 0,
    horizon      xid8,
    end_block    bigint,
    relfilenode  oid,
    trigger_oid  oid,
    trigger_xmin xid,
    source_shape text,
    target_shape text,
    stable_xid   xid8,
    tainted      boolean NOT NULL DEFAULT false,
    needs_mending boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    live_at      timestamptz,
    swapped_at   timestamptz,
    completed_at timestamptz,
    analyzed_at  timestamptz,
    verified_at  timestamptz
);
COMMENT ON TABLE migrate_ext.migration IS 'one row a migration; changed by catalog.c only';

-- What workers change at every batch stands apart from the migration's row, so
-- that pause() and the like never wait for a batch.
CREATE TABLE migrate_ext.work (
    migration  bigint PRIMARY KEY REFERENCES migrate_ext.migration ON DELETE CASCADE,
    next_block bigint NOT NULL DEFAULT 0,
    next_batch bigint NOT NULL DEFAULT 1
);
COMMENT ON TABLE migrate_ext.work IS 'what of the source has been given away to batches';

CREATE TABLE migrate_ext.drain (
    migration  bigint PRIMARY KEY REFERENCES migrate_ext.migration ON DELETE CASCADE,
    done       pg_snapshot,
    pass       pg_snapshot,
    pass_xid   xid8,
    pass_n     bigint
);
COMMENT ON TABLE migrate_ext.drain IS 'how far the change log is drained: all that "done" sees, and of "pass" up to (pass_xid, pass_n)';

CREATE TABLE migrate_ext.batch (
    migration   bigint NOT NULL REFERENCES migrate_ext.migration ON DELETE CASCADE,
    batch       bigint NOT NULL,
    kind        text NOT NULL,
    epoch       integer NOT NULL,
    relation    regclass NOT NULL,
    first_block bigint,
    last_block  bigint,
    detail      text,
    rows        bigint,
    logged      bigint,
    skipped     bigint,
    state       text NOT NULL CHECK (state IN ('pending', 'running', 'done')),
    lease       bigint,
    pid         integer,
    attempts    integer NOT NULL DEFAULT 0,
    started_at  timestamptz,
    took_ms     double precision,
    PRIMARY KEY (migration, batch)
);
CREATE INDEX batch_open ON migrate_ext.batch (migration, kind, state, batch) WHERE state <> 'done';
COMMENT ON TABLE migrate_ext.batch IS 'pieces of work: block ranges to copy, indexes to build';

CREATE TABLE migrate_ext.truncation (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration bigint NOT NULL
);
CREATE INDEX truncation_migration ON migrate_ext.truncation (migration);
COMMENT ON TABLE migrate_ext.truncation IS 'a TRUNCATE of a source before it was live; insert only, so that TRUNCATE never waits for a worker';

CREATE TABLE migrate_ext.failed_row (
    migration bigint NOT NULL REFERENCES migrate_ext.migration ON DELETE CASCADE,
    identity  jsonb NOT NULL,
    reverse   boolean NOT NULL,
    sqlstate  text NOT NULL,
    message   text NOT NULL,
    attempts  integer NOT NULL DEFAULT 1,
    failed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (migration, identity)
);
COMMENT ON TABLE migrate_ext.failed_row IS 'rows that could not be carried over: to the target, or reverse, back to the original';

CREATE TABLE migrate_ext.verification (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration   bigint NOT NULL REFERENCES migrate_ext.migration ON DELETE CASCADE,
    verified_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    complete    boolean NOT NULL,
    checked_rows bigint NOT NULL,
    missing     bigint NOT NULL,
    extra       bigint NOT NULL,
    different   bigint NOT NULL,
    skipped     bigint NOT NULL,
    failed      bigint NOT NULL,
    stale_key   bigint NOT NULL,
    mark        bigint
);
COMMENT ON COLUMN migrate_ext.verification.mark IS 'of a clean one: guard_mark() of the partitions, as they were compared';
COMMENT ON TABLE migrate_ext.verification IS 'results of comparing both tables';

-- One row a migration: what comes next of a comparison, and who asked for it.
CREATE TABLE migrate_ext.verify_pass (
    migration  bigint PRIMARY KEY REFERENCES migrate_ext.migration ON DELETE CASCADE,
    stage      text NOT NULL CHECK (stage IN ('preparing', 'reading', 'done')),
    requester  bigint NOT NULL,
    background boolean NOT NULL,
    state      text NOT NULL,
    basis      bigint NOT NULL,
    definition bigint NOT NULL,
    place      text,
    cut        boolean NOT NULL,
    lsn        pg_lsn NOT NULL,
    next_xid   xid8 NOT NULL,
    began_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at   timestamptz
);
COMMENT ON TABLE migrate_ext.verify_pass IS 'a comparison of both tables, the one under way or the last one: ranges are cut up to "place"; its results count while "basis" is the same, those of a range while "definition" is; transactions from next_xid on began after lsn';

CREATE TABLE migrate_ext.verified_range (
    migration bigint NOT NULL REFERENCES migrate_ext.migration ON DELETE CASCADE,
    range     bigint NOT NULL,
    low       text,
    high      text,
    read      boolean NOT NULL DEFAULT false,
    attempts  integer NOT NULL DEFAULT 0,
    tried_at  timestamptz,
    rows      bigint NOT NULL DEFAULT 0,
    missing   bigint NOT NULL DEFAULT 0,
    extra     bigint NOT NULL DEFAULT 0,
    different bigint NOT NULL DEFAULT 0,
    skipped   bigint NOT NULL DEFAULT 0,
    stale_key bigint NOT NULL DEFAULT 0,
    read_at   timestamptz,
    took_ms   double precision,
    as_of     pg_lsn,
    places    bigint[],
    PRIMARY KEY (migration, range)
);
CREATE INDEX verified_range_open ON migrate_ext.verified_range (migration, range) WHERE NOT read;
COMMENT ON TABLE migrate_ext.verified_range IS 'results of comparing both tables, a range (low, high] of the identity each, in its order; "as_of": equal, and unchanged as long as no block of "places" (file, first, last) and none with a key of the range is newer';

CREATE TABLE migrate_ext.swap_log (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration bigint NOT NULL REFERENCES migrate_ext.migration ON DELETE CASCADE,
    at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    direction text NOT NULL CHECK (direction IN ('finalize', 'undo', 'rehearsal')),
    attempts  integer NOT NULL,
    wait_ms   double precision,
    hold_ms   double precision,
    blockers  jsonb NOT NULL DEFAULT '[]'
);
COMMENT ON TABLE migrate_ext.swap_log IS 'swaps done, how long they waited and held their locks';

-- No foreign key: the last event of a forgotten migration may outlive it in a
-- NOTIFY, and an event is written where nothing may wait.
CREATE TABLE migrate_ext.event (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration bigint NOT NULL,
    at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    kind      text NOT NULL,
    message   text NOT NULL,
    detail    jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX event_migration ON migrate_ext.event (migration, id);
COMMENT ON TABLE migrate_ext.event IS 'what happened, in order';

CREATE TABLE migrate_ext.sharding_key (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation   oid NOT NULL,
    attnum     smallint NOT NULL,
    value      text,
    fill       boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (relation, attnum)
);
COMMENT ON TABLE migrate_ext.sharding_key IS 'columns made or taken over by add_sharding_key, with the expression that derives their values';

CREATE SEQUENCE migrate_ext.lease;
COMMENT ON SEQUENCE migrate_ext.lease IS 'numbers of leases: a process that works on batches has one';

CREATE TABLE migrate_ext.comparison (
    migration bigint PRIMARY KEY REFERENCES migrate_ext.migration ON DELETE CASCADE,
    adopted   boolean NOT NULL,
    after     text,
    compared  bigint NOT NULL DEFAULT 0,
    differed  bigint NOT NULL DEFAULT 0,
    finished  boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE migrate_ext.comparison IS 'a comparison that puts right what differs: how far it is; adopted: it takes the place of the copy, the target having had rows before';

CREATE TABLE migrate_ext.replaced_trigger (
    migration bigint NOT NULL REFERENCES migrate_ext.migration ON DELETE CASCADE,
    name      text NOT NULL,
    dropped   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (migration, name)
);
COMMENT ON TABLE migrate_ext.replaced_trigger IS 'hand-written triggers of the source that replace_sync disabled, to be dropped when nobody has to wait for it';

CREATE TABLE migrate_ext.sample (
    migration   bigint NOT NULL REFERENCES migrate_ext.migration ON DELETE CASCADE,
    at          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    log_entries bigint,
    PRIMARY KEY (migration, at)
);
COMMENT ON TABLE migrate_ext.sample IS 'how deep the change log was, for report(): looked at by the leader now and then';

CREATE TABLE migrate_ext.throttle (
    migration bigint PRIMARY KEY REFERENCES migrate_ext.migration ON DELETE CASCADE,
    rows_due  double precision NOT NULL DEFAULT 0,
    bytes_due double precision NOT NULL DEFAULT 0,
    at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    reason    text,
    seen_at   timestamptz,
    told      text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE migrate_ext.throttle IS 'pacing: work done beyond what the rate limits had allowed at that time, and why processes slow down; told: the kinds of reason that an event has told of since it began';
