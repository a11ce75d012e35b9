-- New events into deliveries (0007_dispatch.sql).
SELECT handled, endpoints, asleep, idle_ms, oldest::text::bigint, next::text::bigint FROM fan_out_events(%(events_max)s)
