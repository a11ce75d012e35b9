-- I8: payments whose journal rows are not numbered from 1 to the receipt's sequence, and rows of no payment.
SELECT coalesce(receipt.id, journal.payment) AS payment, NULL AS operation, coalesce(receipt.created_at, journal.at) AS at,
       CASE WHEN receipt.id IS NULL THEN format('%%s journal rows of a payment that is not there', journal.number)
            ELSE format('the receipt is at sequence %%s; the journal has %%s rows, from %%s to %%s', receipt.sequence,
                        coalesce(journal.number, 0), coalesce(journal.first, 0), coalesce(journal.last, 0))
       END AS detail
FROM (SELECT id, sequence, created_at FROM payments
      WHERE %(payments)s::text[] IS NULL OR id = ANY (%(payments)s)) AS receipt
FULL JOIN (SELECT payment, count(*) AS number, min(sequence) AS first, max(sequence) AS last, max(at) AS at FROM transitions
           WHERE %(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)
           GROUP BY payment) AS journal ON journal.payment = receipt.id
WHERE (receipt.sequence, receipt.sequence, 1) IS DISTINCT FROM (journal.number, journal.last, journal.first)
ORDER BY at DESC
LIMIT %(limit)s
