-- Unsettled work that no person is needed for.
SELECT count(*) FROM operations AS waiting
WHERE settled_at IS NULL
  AND NOT EXISTS (SELECT FROM operations AS doubt
                  WHERE doubt.payment = waiting.payment AND doubt.settled_at IS NULL AND doubt.status = 'review')
