-- One endpoint of a merchant, with its public key and the end of its secret's overlap, if there is one.
SELECT e.id, e.kind, e.url, e.description, e.events, e.ordered, e.retry_schedule, e.status, e.disabled_reason, e.disabled_at,
       e.failing_since, e.created_at, e.updated_at, s.public_key, s.previous_ends_at
FROM webhook_endpoints e
CROSS JOIN LATERAL (
    SELECT max(k.public_key) FILTER (WHERE k.role = 'current') AS public_key,
           max(k.expires_at) FILTER (WHERE k.expires_at > clock_timestamp()) AS previous_ends_at
    FROM webhook_secrets k
    WHERE k.merchant = e.merchant AND k.endpoint = e.id
) AS s
WHERE e.id = %(id)s AND e.merchant = %(merchant)s AND e.status <> 'deleted'
