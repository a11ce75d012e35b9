-- How many are through.
SELECT count(*) FROM bare_outbox
