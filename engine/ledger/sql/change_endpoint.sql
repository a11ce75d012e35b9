-- What the merchant wants of an endpoint, whole.
UPDATE webhook_endpoints SET
    url = %(url)s, description = %(description)s, events = %(events)s, ordered = %(ordered)s,
    retry_schedule = %(retry_schedule)s, updated_at = clock_timestamp()
WHERE id = %(id)s
