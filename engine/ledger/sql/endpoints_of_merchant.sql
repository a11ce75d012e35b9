-- One page of a merchant's registered endpoints, newest first, from a position on.
SELECT e.id, e.kind, e.url, e.description, e.events, e.ordered, e.retry_schedule, e.status, e.disabled_reason, e.disabled_at,
       e.failing_since, e.created_at, e.updated_at, s.public_key, s.previous_ends_at
FROM webhook_endpoints e
CROSS JOIN LATERAL (
    SELECT max(k.public_key) FILTER (WHERE k.role = 'current') AS public_key,
           max(k.expires_at) FILTER (WHERE k.expires_at > clock_timestamp()) AS previous_ends_at
    FROM webhook_secrets k
    WHERE k.merchant = e.merchant AND k.endpoint = e.id
) AS s
WHERE e.merchant = %(merchant)s AND e.kind = 'registered' AND e.status <> 'deleted'
  AND (%(before_at)s::timestamptz IS NULL OR (e.created_at, e.id) < (%(before_at)s, %(before_id)s))
ORDER BY e.created_at DESC, e.id DESC
LIMIT %(limit)s
