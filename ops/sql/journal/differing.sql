-- Of these anchored heads, those whose row is gone or has another mac now.
SELECT a.payment, a.sequence, t.payment IS NULL AS gone
FROM unnest(%(payments)s::text[], %(sequences)s::integer[], %(macs)s::text[]) AS a (payment, sequence, mac)
LEFT JOIN transitions t ON t.payment = a.payment AND t.sequence = a.sequence
WHERE t.mac IS DISTINCT FROM a.mac
