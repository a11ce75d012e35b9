-- An endpoint that is about to be disabled, locked, so that its notice gets the next number.
SELECT merchant, url, notices FROM webhook_endpoints WHERE id = %(id)s AND status = 'enabled' FOR UPDATE
