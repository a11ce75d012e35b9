-- Merchants with events that became readable since the last look, and how far this look reaches (0014_events_in_order.sql).
SELECT reached, merchants FROM events_news(%(since)s::bigint)
