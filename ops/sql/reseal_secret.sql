-- The same secret under another key; not one that was rotated meanwhile.
UPDATE webhook_secrets SET sealed = %(resealed)s
WHERE merchant = %(merchant)s AND endpoint IS NOT DISTINCT FROM %(endpoint)s AND scheme = %(scheme)s AND role = %(role)s
  AND sealed = %(sealed)s
