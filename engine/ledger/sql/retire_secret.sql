-- The current secret becomes the previous one, for as long as the overlap lasts.
UPDATE webhook_secrets SET role = 'previous', expires_at = clock_timestamp() + %(overlap_s)s * interval '1 s'
WHERE merchant = %(merchant)s AND endpoint IS NOT DISTINCT FROM %(endpoint)s AND scheme = %(scheme)s AND role = 'current'
