-- Pages of the event feed for several readers at once (0014_events_in_order.sql).
SELECT reader, passed_id, passed_event, passed_at, id, event_id, created_at, payload, scanned
FROM events_pages(%(merchants)s::text[], %(ids)s::bigint[], %(types)s::text[], %(limits)s::integer[], %(scan)s::integer)
