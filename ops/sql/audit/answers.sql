-- What the ledger knows of operations, and answers them with.
SELECT id, settled_at, response_status, response_body FROM operations WHERE id = ANY (%(ids)s)
