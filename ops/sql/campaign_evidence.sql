-- Operations (without card and answer) and journal rows of what is named by any of these ids.
WITH named AS (
    SELECT DISTINCT payment FROM operations WHERE id = ANY (%(ids)s) OR payment = ANY (%(ids)s)
)
SELECT 'operation ' || jsonb_pretty(to_jsonb(o) - 'sealed' - 'response_body' - 'fingerprint'), o.id
FROM operations o JOIN named USING (payment)
UNION ALL
SELECT 'journal ' || to_jsonb(t)::text, t.payment FROM transitions t JOIN named USING (payment)
