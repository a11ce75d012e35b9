-- Events that are no deliveries yet, deliveries that are unfinished (both counted up to a bound that says enough), the age of the
-- oldest of these in seconds, and how many endpoints are disabled, by reason.
SELECT (SELECT count(*) FROM (SELECT FROM fan_out f JOIN outbox o ON o.id > f.id LIMIT 100000) AS n) AS events,
       w.deliveries, w.oldest_s,
       (SELECT coalesce(json_object_agg(g.disabled_reason, g.number), '{}')
        FROM (SELECT disabled_reason, count(*) AS number FROM webhook_endpoints
              WHERE status = 'disabled' GROUP BY disabled_reason) AS g) AS disabled
FROM (SELECT count(*) AS deliveries,
             coalesce(extract(epoch FROM clock_timestamp() - min(d.created_at)), 0)::double precision AS oldest_s
      FROM (SELECT created_at FROM deliveries WHERE finished_at IS NULL LIMIT 100000) AS d) AS w
