-- I9: texts of merchants and operators with digits that may be a card's: 13 to 19 in a row or in groups, under an issuer's
-- prefix, with a right check digit. One such number in ten passes by chance, so this names fields and never the digits.
WITH texts AS (
    SELECT id AS payment, operation_id AS operation, created_at AS at, field, text
    FROM payments
    CROSS JOIN LATERAL (VALUES ('order_id', order_id), ('customer_id', customer_id), ('description', description),
                               ('statement_descriptor', statement_descriptor), ('metadata', metadata::text), ('webhook_url', webhook_url)) AS of_payment (field, text)
    WHERE %(payments)s::text[] IS NULL OR id = ANY (%(payments)s)
    UNION ALL
    SELECT payment, id, created_at, field, text
    FROM operations
    CROSS JOIN LATERAL (VALUES ('its idempotency key', key), ('its request id', request_id)) AS of_operation (field, text)
    WHERE %(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)
    UNION ALL
    SELECT payment, operation, at, field, text
    FROM audit
    CROSS JOIN LATERAL (VALUES (format('the reason of act %%s', id), reason),
                               (format('the detail of act %%s', id), detail::text)) AS of_act (field, text)
    WHERE %(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)
    UNION ALL
    SELECT NULL, NULL, created_at, field, text
    FROM webhook_endpoints
    CROSS JOIN LATERAL (VALUES (format('the URL of %%s', id), url),
                               (format('the description of %%s', id), description)) AS of_endpoint (field, text)
    WHERE %(payments)s::text[] IS NULL
), numbers AS (
    -- Letters may stand before and behind (card4111...), not between: such digits are part of a random id.
    SELECT payment, operation, at, field, translate(found[1], ' -', '') AS digits
    FROM texts
    CROSS JOIN LATERAL regexp_matches(text, '(?<![0-9A-Za-z])[A-Za-z]*([0-9]{13,19}|[0-9]{4}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{1,7}|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5})[A-Za-z]*(?![0-9A-Za-z])', 'g') AS found
    WHERE text ~ '[0-9]{13}|[0-9]{4}[ -][0-9]{4}'
)
SELECT payment, operation, max(at) AS at, format('%%s holds digits that pass for a card number', field) AS detail
FROM numbers
WHERE digits ~ '^(4([0-9]{12}|[0-9]{15}|[0-9]{18})|5[1-5][0-9]{14}|2(22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}|3[47][0-9]{13}|3(0[0-5]|[689][0-9])[0-9]{11,16}|35(2[89]|[3-8][0-9])[0-9]{12,15}|6(011|4[4-9][0-9]|5[0-9]{2})[0-9]{12,15}|62[0-9]{14,17}|(50|5[6-9]|6[0-9])[0-9]{11,17}|220[0-4][0-9]{12,15})$'
  AND (SELECT sum(CASE WHEN (length(digits) - place) %% 2 = 0 THEN digit ELSE digit * 2 - 9 * (digit / 5) END) %% 10
       FROM generate_series(1, length(digits)) AS place
       CROSS JOIN LATERAL (SELECT substr(digits, place, 1)::integer AS digit) AS of_place) = 0
GROUP BY payment, operation, field
ORDER BY at DESC
LIMIT %(limit)s
