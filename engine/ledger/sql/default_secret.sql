-- What may be told of a merchant's default secret: since when, and until when the one before signs too.
SELECT max(created_at) FILTER (WHERE role = 'current') AS created_at,
       max(expires_at) FILTER (WHERE expires_at > clock_timestamp()) AS previous_ends_at
FROM webhook_secrets WHERE merchant = %(merchant)s AND endpoint IS NULL AND scheme = 'v1'
