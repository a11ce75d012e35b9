-- New events into deliveries (0014_events_in_order.sql).
SELECT handled, endpoints, asleep, idle_ms, high, low FROM fan_out_events(%(events_max)s)
