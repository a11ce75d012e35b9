-- Sessions that have kept events from being read or carried on for longer than the grace, the longest first, and how many committed
-- events wait behind each, counted up to a bound (0014_events_in_order.sql).
SELECT h.pid, h.application, h.account, h.state, h.since, extract(epoch FROM clock_timestamp() - h.since)::double precision AS held_s,
       e.events
FROM event_holders h
CROSS JOIN LATERAL (SELECT count(*) AS events FROM (SELECT FROM outbox o WHERE o.id > h.mark LIMIT 100000) AS n) AS e
WHERE (h.since IS NULL OR h.since < clock_timestamp() - make_interval(secs => %(grace_s)s)) AND e.events > 0
ORDER BY h.since NULLS LAST
LIMIT 20
