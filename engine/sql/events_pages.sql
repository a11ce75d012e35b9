-- Pages of the event feed for several readers at once, in the order (xid, id), from below pg_snapshot_xmin only: above it a slower
-- transaction may still commit something before what is shown. A reader with a filter has at most `scan` events looked at, of which
-- those it does not want come without payload; `scanned` tells whether there may be more. A reader with nothing new has one row,
-- of nulls. xmin is where whoever has seen all of it goes on.
SELECT a.reader::integer, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin, e.xid::text::bigint AS xid, e.id,
       e.event_id, e.payload, e.scanned
FROM unnest(%(merchants)s::text[], %(xids)s::bigint[], %(ids)s::bigint[], %(types)s::text[], %(limits)s::integer[])
     WITH ORDINALITY AS a (merchant, xid, id, types, most, reader)
LEFT JOIN LATERAL (
    SELECT s.xid, s.id, s.event_id, CASE WHEN s.wanted THEN s.payload END AS payload, s.scanned
    FROM (
        SELECT o.*, w.wanted, count(*) FILTER (WHERE w.wanted) OVER (ORDER BY o.xid, o.id) AS place,
               count(*) OVER () AS scanned
        FROM (
            SELECT o.xid, o.id, o.event_id, o.type, o.payload FROM outbox o
            WHERE o.merchant = a.merchant AND (o.xid, o.id) > (a.xid::text::xid8, a.id)
              AND o.xid < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY o.xid, o.id
            LIMIT CASE WHEN a.types IS NULL THEN a.most + 1 ELSE %(scan)s END
        ) AS o
        CROSS JOIN LATERAL (SELECT a.types IS NULL OR o.type = ANY(string_to_array(a.types, ',')) AS wanted) AS w
    ) AS s
    WHERE s.place <= a.most
) AS e ON true
ORDER BY a.reader, e.xid, e.id
