-- report(): one HTML page about a migration, with nothing from outside.
--
-- Each text of a user's comes out by html(); the rest of the page is made here.
-- Read as superuser, for whoever may see the migration.

CREATE FUNCTION migrate_ext.html(value text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
               value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;')
$$;
REVOKE ALL ON FUNCTION migrate_ext.html(text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.html(text) IS 'internal: a text for an HTML page';

CREATE FUNCTION migrate_ext.report_time(at timestamptz)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT pg_catalog.to_char(at, 'YYYY-MM-DD HH24:MI:SS')
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_time(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_time(timestamptz) IS 'internal: a time for people, in the session''s zone';

-- 1,234,567; -; 12.3
CREATE FUNCTION migrate_ext.report_number(value double precision)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN value IS NULL THEN '–'
                WHEN value = 0 OR pg_catalog.abs(value) >= 100 THEN pg_catalog.to_char(value, 'FM999,999,999,999,999,990')
                ELSE pg_catalog.to_char(value, 'FM990.0') END
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_number(double precision) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_number(double precision) IS 'internal: a number for people';

CREATE FUNCTION migrate_ext.report_duration(value interval)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN value < INTERVAL '1 minute' THEN pg_catalog.round(pg_catalog.date_part('epoch', value)::numeric, 1) || ' s'
                WHEN value < INTERVAL '1 hour' THEN pg_catalog.floor(pg_catalog.date_part('epoch', value) / 60) || ' min ' || pg_catalog.date_part('second', value)::integer % 60 || ' s'
                ELSE pg_catalog.floor(pg_catalog.date_part('epoch', value) / 3600) || ' h ' || pg_catalog.date_part('minute', value) || ' min' END
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_duration(interval) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_duration(interval) IS 'internal: a duration for people';

-- A table, or the words where it has no rows.  Cells are HTML.
CREATE FUNCTION migrate_ext.report_table(head text[], body text, otherwise text)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN body IS NULL THEN '<p class="none">' || otherwise || '</p>'
                ELSE '<div class="scroll"><table><thead><tr>'
                     || (SELECT pg_catalog.string_agg('<th>' || h || '</th>', '') FROM pg_catalog.unnest(head) h)
                     || '</tr></thead><tbody>' || body || '</tbody></table></div>' END
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_table(text[], text, text) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_table(text[], text, text) IS 'internal: a table of a page';

CREATE FUNCTION migrate_ext.report_row(VARIADIC cells text[])
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '<tr>' || pg_catalog.string_agg('<td>' || COALESCE(c.cell, '') || '</td>', '' ORDER BY c.n) || '</tr>'
    FROM pg_catalog.unnest(cells) WITH ORDINALITY c (cell, n)
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_row(text[]) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_row(text[]) IS 'internal: a row of a table of a page';

-- A line over time, from 0 up.  points: [seconds since the first, value] each.
CREATE FUNCTION migrate_ext.report_chart(title text, unit text, points double precision[][])
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN pg_catalog.array_length(points, 1) < 2 OR points IS NULL
                THEN '<p class="none">Not enough was recorded for a figure.</p>'
                ELSE pg_catalog.format(
        '<figure><svg viewBox="0 0 640 190" role="img" aria-label="%1$s"><title>%1$s</title>'
        '<g class="grid"><path d="M50 10H630M50 80H630M50 150H630"/></g>'
        '<text x="46" y="14" class="y">%2$s</text><text x="46" y="84" class="y">%3$s</text><text x="46" y="154" class="y">0</text>'
        '<path class="area" d="M%4$sL%5$s 150L%6$s 150Z"/><path class="line" d="M%4$s"/>'
        '<text x="50" y="172">0</text><text x="630" y="172" class="end">%7$s</text></svg><figcaption>%1$s, %8$s</figcaption></figure>',
        migrate_ext.html(title), migrate_ext.report_number(top.y), migrate_ext.report_number(top.y / 2), line.path,
        line.last, line.first, migrate_ext.report_duration(pg_catalog.make_interval(secs => top.x)), migrate_ext.html(unit)) END
    FROM (SELECT GREATEST(pg_catalog.max(points[i][1]), 0.001) AS x, GREATEST(pg_catalog.max(points[i][2]), 1) AS y
          FROM pg_catalog.generate_subscripts(points, 1) i) top
    CROSS JOIN LATERAL (
        SELECT pg_catalog.string_agg(p.x || ' ' || p.y, 'L' ORDER BY p.i) AS path, pg_catalog.min(p.x) AS first, pg_catalog.max(p.x) AS last
        FROM (SELECT i, pg_catalog.round((50 + 580 * points[i][1] / top.x)::numeric, 1) AS x,
                     pg_catalog.round((150 - 140 * points[i][2] / top.y)::numeric, 1) AS y
              FROM pg_catalog.generate_subscripts(points, 1) i) p) line
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_chart(text, text, double precision[][]) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_chart(text, text, double precision[][]) IS 'internal: a line over time as SVG';

-- States one after another, each as long as it lasted.
CREATE FUNCTION migrate_ext.report_states(migration_id bigint)
RETURNS TABLE (state text, began timestamptz, ended timestamptz, current boolean)
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT s.state, s.at, COALESCE(pg_catalog.lead(s.at) OVER w, CASE WHEN s.state IN ('completed', 'cancelled') THEN s.at ELSE pg_catalog.clock_timestamp() END),
           pg_catalog.lead(s.at) OVER w IS NULL
    FROM (SELECT 'created' AS state, m.created_at AS at, 0 AS id FROM migrate_ext.migration m WHERE m.id = migration_id
          UNION ALL
          SELECT e.detail->>'to', e.at, e.id FROM migrate_ext.event e WHERE e.migration = migration_id AND e.kind = 'state') s
    WINDOW w AS (ORDER BY s.id)
    ORDER BY s.id
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_states(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_states(bigint) IS 'internal: the states a migration has been in';

-- One bar, whose parts have at least a visible width, and a list below it.
CREATE FUNCTION migrate_ext.report_timeline(migration_id bigint)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH s AS (
        SELECT s.*, pg_catalog.row_number() OVER (ORDER BY s.began) AS n,
               0.02 + 0.98 * pg_catalog.date_part('epoch', s.ended - s.began) / GREATEST(pg_catalog.date_part('epoch', pg_catalog.max(s.ended) OVER () - pg_catalog.min(s.began) OVER ()), 0.001) AS share
        FROM migrate_ext.report_states(migration_id) s
    ), placed AS (
        SELECT s.*, s.share / pg_catalog.sum(s.share) OVER () * 620 AS width,
               10 + (pg_catalog.sum(s.share) OVER (ORDER BY s.n) - s.share) / pg_catalog.sum(s.share) OVER () * 620 AS x
        FROM s
    )
    SELECT '<figure><svg viewBox="0 0 640 44" role="img" aria-label="States over time"><title>States over time</title>'
           || pg_catalog.string_agg(pg_catalog.format(
                  '<rect class="state %1$s" x="%2$s" y="8" width="%3$s" height="26"><title>%1$s, %4$s</title></rect>', p.state,
                  pg_catalog.round(p.x::numeric, 1), pg_catalog.round(GREATEST(p.width - 1, 1)::numeric, 1),
                  migrate_ext.report_duration(p.ended - p.began)), '' ORDER BY p.n)
           || '</svg><figcaption>States over time</figcaption></figure>'
           || migrate_ext.report_table(ARRAY['state', 'since', 'for'],
                  pg_catalog.string_agg(migrate_ext.report_row(
                      pg_catalog.format('<span class="key %s"></span>%1$s', p.state), migrate_ext.report_time(p.began),
                      migrate_ext.report_duration(p.ended - p.began) || CASE WHEN p.current AND p.state NOT IN ('completed', 'cancelled') THEN ', and on' ELSE '' END), '' ORDER BY p.n), '')
    FROM placed p
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_timeline(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_timeline(bigint) IS 'internal: the states of a migration as a figure and a table';

-- Rows a second of copying or filling, in up to 60 pieces of time.
CREATE FUNCTION migrate_ext.report_rates(migration_id bigint)
RETURNS double precision[][]
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    WITH b AS (
        SELECT b.rows, b.started_at + b.took_ms * INTERVAL '1 millisecond' AS ended, b.started_at
        FROM migrate_ext.batch b JOIN migrate_ext.migration m ON m.id = b.migration AND b.epoch = m.epoch
        WHERE b.migration = migration_id AND b.kind IN ('copy', 'key') AND b.state = 'done' AND b.rows IS NOT NULL
    ), span AS (
        SELECT pg_catalog.min(b.started_at) AS began,
               GREATEST(pg_catalog.date_part('epoch', pg_catalog.max(b.ended) - pg_catalog.min(b.started_at)), 0.001) AS seconds, LEAST(60, pg_catalog.count(*)) AS pieces
        FROM b
    )
    SELECT pg_catalog.array_agg(ARRAY[(i - 0.5) * span.seconds / span.pieces, COALESCE(r.rows, 0) * span.pieces / span.seconds] ORDER BY i)
    FROM span
    CROSS JOIN LATERAL pg_catalog.generate_series(1, span.pieces) i
    LEFT JOIN LATERAL (
        SELECT pg_catalog.sum(b.rows)::double precision AS rows FROM b
        WHERE LEAST(pg_catalog.floor(pg_catalog.date_part('epoch', b.ended - span.began) * span.pieces / span.seconds) + 1, span.pieces) = i) r ON true
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_rates(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_rates(bigint) IS 'internal: rows a second over time';

CREATE FUNCTION migrate_ext.report_depths(migration_id bigint)
RETURNS double precision[][]
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.array_agg(ARRAY[pg_catalog.date_part('epoch', s.at - s.began), s.log_entries] ORDER BY s.at)
    FROM (SELECT s.at, s.log_entries, pg_catalog.min(s.at) OVER () AS began FROM migrate_ext.sample s WHERE s.migration = migration_id AND s.log_entries IS NOT NULL) s
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_depths(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_depths(bigint) IS 'internal: entries of the change log over time';

-- Who held a lock, as blockers_find() says it.
CREATE FUNCTION migrate_ext.report_blockers(blockers jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT pg_catalog.string_agg((SELECT pg_catalog.string_agg(migrate_ext.html(f.key || ' ' || f.value), ', ') FROM pg_catalog.jsonb_each_text(b) f), '<br>')
    FROM pg_catalog.jsonb_array_elements(CASE WHEN pg_catalog.jsonb_typeof(blockers) = 'array' THEN blockers ELSE '[]' END) b
    WHERE pg_catalog.jsonb_typeof(b) = 'object'
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_blockers(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_blockers(jsonb) IS 'internal: sessions that held a lock, for a page';

-- The last events of some kinds.
CREATE FUNCTION migrate_ext.report_events(migration_id bigint, kinds text[], most integer)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.string_agg(migrate_ext.report_row(migrate_ext.report_time(e.at), migrate_ext.html(e.kind), migrate_ext.html(e.message)), '' ORDER BY e.id)
    FROM (SELECT * FROM migrate_ext.event e WHERE e.migration = migration_id AND (kinds IS NULL OR e.kind = ANY (kinds)) ORDER BY e.id DESC LIMIT most) e
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_events(bigint, text[], integer) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_events(bigint, text[], integer) IS 'internal: events for a page';

-- What was made on the other table before a swap, and what moved with one: names of things, or statements.
CREATE FUNCTION migrate_ext.report_carried(migration_id bigint)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.string_agg(migrate_ext.report_row(migrate_ext.report_time(e.at), migrate_ext.html(e.kind),
               migrate_ext.html(e.message) || COALESCE('<ul>' || t.items || '</ul>', '')), '' ORDER BY e.id)
    FROM (SELECT * FROM migrate_ext.event e
          WHERE e.migration = migration_id AND e.kind IN ('carried', 'moved', 'foreign_key_dropped', 'published', 'subscribed')
          ORDER BY e.id DESC LIMIT 200) e
    CROSS JOIN LATERAL (
        SELECT pg_catalog.string_agg('<li>' || migrate_ext.html(i.thing) || '</li>', '' ORDER BY i.n) AS items
        FROM pg_catalog.jsonb_array_elements_text(COALESCE(e.detail->'statements', e.detail->'moved', '[]')) WITH ORDINALITY i (thing, n)
    ) t
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_carried(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_carried(bigint) IS 'internal: what follows the table, for a page';

CREATE FUNCTION migrate_ext.report_swaps(migration_id bigint)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT migrate_ext.report_table(ARRAY['when', 'direction', 'attempts', 'waited, ms', 'held, ms', 'held up by'],
               pg_catalog.string_agg(migrate_ext.report_row(migrate_ext.report_time(s.at), migrate_ext.html(s.direction), s.attempts::text,
                   migrate_ext.report_number(s.wait_ms), migrate_ext.report_number(s.hold_ms), migrate_ext.report_blockers(s.blockers)), '' ORDER BY s.id),
               'The tables have not been swapped yet.')
    FROM migrate_ext.swap_log s WHERE s.migration = migration_id
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_swaps(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_swaps(bigint) IS 'internal: swaps for a page';

CREATE FUNCTION migrate_ext.report_verifications(migration_id bigint)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT migrate_ext.report_table(ARRAY['when', 'complete', 'rows', 'missing', 'extra', 'different', 'skipped', 'failed', 'stale key'],
               pg_catalog.string_agg(migrate_ext.report_row(migrate_ext.report_time(v.verified_at), CASE WHEN v.complete THEN 'yes' ELSE 'no' END,
                   migrate_ext.report_number(v.checked_rows), migrate_ext.report_number(v.missing), migrate_ext.report_number(v.extra), migrate_ext.report_number(v.different),
                   migrate_ext.report_number(v.skipped), migrate_ext.report_number(v.failed), migrate_ext.report_number(v.stale_key)), '' ORDER BY v.id),
               'The tables have not been compared yet.')
    FROM (SELECT * FROM migrate_ext.verification v WHERE v.migration = migration_id ORDER BY v.id DESC LIMIT 20) v
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_verifications(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_verifications(bigint) IS 'internal: results of verification for a page';

CREATE FUNCTION migrate_ext.report_failed(migration_id bigint)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT migrate_ext.report_table(ARRAY['row', 'code', 'message', 'attempts', 'last'],
               pg_catalog.string_agg(migrate_ext.report_row(migrate_ext.html(f.identity::text), migrate_ext.html(f.sqlstate), migrate_ext.html(f.message),
                   f.attempts::text, migrate_ext.report_time(f.failed_at)), '' ORDER BY f.failed_at), 'None.')
    FROM (SELECT * FROM migrate_ext.failed_row f WHERE f.migration = migration_id ORDER BY f.failed_at LIMIT 50) f
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_failed(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_failed(bigint) IS 'internal: rows that failed, for a page';

-- Names before the last swap and after it.
CREATE FUNCTION migrate_ext.report_names(migration_id bigint)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT migrate_ext.report_table(ARRAY['before', 'after'],
               pg_catalog.string_agg(migrate_ext.report_row(migrate_ext.html(c->>'before'), migrate_ext.html(c->>'after')), '' ORDER BY n),
               'Nothing has been renamed.')
    FROM (SELECT e.detail FROM migrate_ext.event e WHERE e.migration = migration_id AND e.kind = 'renamed' ORDER BY e.id DESC LIMIT 1) e
    CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(e.detail->'changes') WITH ORDINALITY x (c, n)
    WHERE c ? 'before'
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_names(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_names(bigint) IS 'internal: what the last swap renamed, for a page';

CREATE FUNCTION migrate_ext.report_style()
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT $css$
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --paper: #fff; --card: #f4f6f8; --rule: #d9e0e6; --accent: #2463b0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9aa8b5; --paper: #14191f; --card: #1e252d; --rule: #35404b; --accent: #6ea8f0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.lead { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.next { border-left: 4px solid var(--accent); background: var(--card); padding: .6rem .9rem; overflow-wrap: anywhere; } .next p { margin: .2rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; padding: 0; list-style: none; }
.tiles li { background: var(--card); border-radius: .4rem; padding: .5rem .7rem; } .tiles b { display: block; font-size: 1.2rem; overflow-wrap: anywhere; } .tiles span { color: var(--soft); font-size: .85rem; }
.bar { background: var(--rule); border-radius: .4rem; height: .7rem; overflow: hidden; } .bar div { background: var(--accent); height: 100%; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; } th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--rule); } th { color: var(--soft); font-weight: 600; }
figure { margin: .5rem 0; } figcaption, .none { color: var(--soft); font-size: .85rem; } svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; } svg .y, svg .end { text-anchor: end; }
.grid path { stroke: var(--rule); fill: none; } .line { stroke: var(--accent); stroke-width: 2; fill: none; } .area { fill: var(--accent); opacity: .15; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin-right: .5em; }
.created { fill: #8a97a4; background: #8a97a4; } .logging { fill: #c48a2c; background: #c48a2c; } .copying { fill: #3d7edb; background: #3d7edb; } .indexing { fill: #7a5fd0; background: #7a5fd0; } .catching_up { fill: #2b9aa8; background: #2b9aa8; }
.live { fill: #3f9d57; background: #3f9d57; } .swapped { fill: #1f7a3d; background: #1f7a3d; } .completed { fill: #145c2c; background: #145c2c; } .cancelled { fill: #b3484b; background: #b3484b; }
td ul { margin: 0; padding-left: 1.2em; overflow-wrap: anywhere; } details { margin: 1rem 0; } summary { cursor: pointer; color: var(--accent); }
$css$
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_style() FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_style() IS 'internal: how a page looks';

CREATE FUNCTION migrate_ext.report_page(migration_id bigint)
RETURNS text
LANGUAGE sql STABLE PARALLEL UNSAFE
AS $$
    SELECT pg_catalog.concat(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        '<title>Migration ', migrate_ext.html(p.migration), '</title><style>', migrate_ext.report_style(), '</style></head><body>',
        '<header><h1>Migration ', migrate_ext.html(p.migration), '</h1><p class="lead">of ', migrate_ext.html(m.table_name), ', owner ', migrate_ext.html(m.owner::text),
        '; as of ', migrate_ext.report_time(pg_catalog.clock_timestamp()), pg_catalog.to_char(pg_catalog.clock_timestamp(), ' TZ'), '</p></header>',

        '<ul class="tiles" id="figures">',
        '<li><b><span class="key ', p.state, '"></span>', p.state, CASE WHEN m.paused THEN ', paused' END, '</b><span>state</span></li>',
        '<li><b>', migrate_ext.report_number(p.rows_done), '</b><span>of ', migrate_ext.report_number(p.rows_total), ' rows</span></li>',
        '<li><b>', pg_catalog.pg_size_pretty(p.bytes_done), '</b><span>of ', pg_catalog.pg_size_pretty(p.bytes_total), '</span></li>',
        '<li><b>', migrate_ext.report_number(p.rows_per_second::double precision), '</b><span>rows a second</span></li>',
        '<li><b>', migrate_ext.report_number(p.log_entries), '</b><span>changes in the log</span></li>',
        '<li><b>', migrate_ext.report_number(p.failed), '</b><span>failed rows</span></li>',
        '</ul><div class="bar" role="progressbar" aria-valuenow="', p.percent, '" aria-valuemin="0" aria-valuemax="100"><div style="width:', p.percent, '%"></div></div>',

        '<h2>What to do next</h2><div class="next" id="next"><p>', COALESCE(migrate_ext.html(p.next_step), 'Nothing: it has ended.'), '</p>',
        '<p>' || migrate_ext.html('It waits for ' || p.waiting_for) || '</p>', '<p>' || migrate_ext.html('Last error: ' || m.last_error) || '</p>', '</div>',

        '<section id="states"><h2>States</h2>', migrate_ext.report_timeline(migration_id), '</section>',
        '<section id="rate"><h2>Rows a second</h2>', migrate_ext.report_chart('Rows copied', 'a second', migrate_ext.report_rates(migration_id)), '</section>',
        '<section id="log"><h2>Change log</h2>', migrate_ext.report_chart('Changes still to be carried over', 'counted up to 100,000', migrate_ext.report_depths(migration_id)), '</section>',
        '<section id="throttling"><h2>Slowed down</h2>',
        migrate_ext.report_table(ARRAY['when', 'what', 'why'], migrate_ext.report_events(migration_id, '{throttled,unthrottled,paused,resumed}', 50), 'Never.'), '</section>',
        '<section id="swaps"><h2>Swaps</h2>', migrate_ext.report_swaps(migration_id), '</section>',
        '<section id="attempts"><h2>Attempts at locks that failed</h2>',
        migrate_ext.report_table(ARRAY['when', 'what', 'why'], migrate_ext.report_events(migration_id, '{lock_attempt,blockers}', 50), 'None.'), '</section>',
        '<section id="verification"><h2>Verification</h2>', migrate_ext.report_verifications(migration_id), '</section>',
        '<section id="failed"><h2>Failed rows</h2>', migrate_ext.report_failed(migration_id), '</section>',
        '<section id="carried"><h2>What follows the table</h2>',
        migrate_ext.report_table(ARRAY['when', 'what', 'made on the other table, or moved to it'], migrate_ext.report_carried(migration_id),
                                 'Nothing yet.'),
        '<h3>Renamed by the last swap</h3>', COALESCE(migrate_ext.report_names(migration_id), '<p class="none">Nothing has been renamed.</p>'), '</section>',
        '<details id="events"><summary>All events</summary>',
        migrate_ext.report_table(ARRAY['when', 'what', 'message'], migrate_ext.report_events(migration_id, NULL, 1000), 'None.'), '</details>',
        '</body></html>')
    FROM migrate_ext.migration x
    JOIN migrate_ext.migrations m ON m.migration = x.name
    JOIN migrate_ext.progress p ON p.migration = x.name
    WHERE x.id = migration_id
$$;
REVOKE ALL ON FUNCTION migrate_ext.report_page(bigint) FROM PUBLIC;
COMMENT ON FUNCTION migrate_ext.report_page(bigint) IS 'internal: report() for who may see the migration';

CREATE FUNCTION migrate_ext.report(migration text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'migrate_ext_report';
COMMENT ON FUNCTION migrate_ext.report(text) IS
'an HTML page about a migration, with figures and without anything from outside; for who may see it in the views';
