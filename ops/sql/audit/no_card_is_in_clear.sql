-- I9: what the engine itself writes holds no number that looks like a card's. (What the merchant writes is the merchant's.)
SELECT payment, operation, at, format('the evidence of row %%s holds a number like a card''s', sequence) AS detail
FROM transitions
WHERE evidence::text ~ '\m[3-6][0-9]{12,18}\M'
UNION ALL
SELECT payment, id, created_at, 'its failure holds a number like a card''s'
FROM operations
WHERE failure::text ~ '\m[3-6][0-9]{12,18}\M'
ORDER BY at DESC
LIMIT %(limit)s
