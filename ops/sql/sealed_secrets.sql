-- Webhook secrets that another key than the one that seals now has sealed.
SELECT merchant, endpoint, scheme, role, sealed FROM webhook_secrets
WHERE sealing_key_of(sealed) <> %(sealing)s
LIMIT %(limit)s
