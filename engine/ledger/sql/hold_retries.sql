-- The parked operations of these partitions wait for their bank, by the ledger's clock.
INSERT INTO retries_held (partition, until)
SELECT p.id, statement_timestamp() + %(held)s::interval FROM unnest(%(partitions)s::integer[]) AS p (id)
ON CONFLICT (partition) DO UPDATE SET until = excluded.until
