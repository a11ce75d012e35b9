-- Deliveries that are due, claimed for a while (0007_dispatch.sql).
SELECT * FROM claim_deliveries(%(lanes)s, %(places)s, %(since)s, %(lease_ms)s)
