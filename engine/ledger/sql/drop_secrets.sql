-- All keys of one scheme: it signs no more.
DELETE FROM webhook_secrets
WHERE merchant = %(merchant)s AND endpoint IS NOT DISTINCT FROM %(endpoint)s AND scheme = %(scheme)s
