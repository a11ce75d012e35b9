-- Whether a delivery to another endpoint than the dead one is unfinished, or an event no delivery yet.
SELECT (EXISTS (SELECT FROM deliveries WHERE finished_at IS NULL AND endpoint <> %(dead)s)
        OR EXISTS (SELECT FROM fan_out f JOIN outbox o ON o.id > f.id))::integer
