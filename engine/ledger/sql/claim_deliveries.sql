-- Deliveries that are due, claimed for a while (0007_dispatch.sql). An event whose time no program can read comes without it.
SELECT endpoint, payment, sequence, attempt, failures, previous_sequence, merchant, url, by_payment, ordered, retry_schedule, event_id,
       type, payload, CASE WHEN created_at BETWEEN '0001-01-02' AND '9999-12-30' THEN created_at END AS created_at, traceparent
FROM claim_deliveries(%(lanes)s, %(places)s, %(since)s, %(lease_ms)s)
