-- Every row of the journal with what its receipt knows of it, payment by payment. A time that no datetime can hold is NULL.
SELECT t.payment, t.sequence, t.from_state, t.to_state, t.event, t.operation,
       CASE WHEN t.at BETWEEN '0001-01-02' AND '9999-12-30' THEN t.at END AS at,
       t.evidence::text AS evidence, t.mac, p.sequence AS rows_known, p.journal_head AS head
FROM transitions t
LEFT JOIN payments p ON p.id = t.payment
WHERE %(payment)s::text IS NULL OR t.payment = %(payment)s
ORDER BY t.payment, t.sequence
