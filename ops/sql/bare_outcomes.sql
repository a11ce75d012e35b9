-- Their outcomes, each with its journal row and its event.
WITH done AS (
    SELECT * FROM unnest(%(ids)s::text[], %(bodies)s::text[]) AS outcome (id, body)
), changed AS (
    UPDATE bare_receipts r SET state = 'authorized', version = 2 FROM done WHERE r.id = done.id
), journaled AS (
    INSERT INTO bare_journal (payment, sequence, body) SELECT id, 1, body FROM done
)
INSERT INTO bare_outbox (payment, sequence, body) SELECT id, 1, body FROM done
