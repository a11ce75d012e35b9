-- The secret before the current one signs no more: two at most.
DELETE FROM webhook_secrets
WHERE merchant = %(merchant)s AND endpoint IS NOT DISTINCT FROM %(endpoint)s AND scheme = %(scheme)s AND role = 'previous'
