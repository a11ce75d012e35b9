-- This process holds these keys: who we are, and with which key to seal.
SELECT * FROM hold_keys(%(kind)s, %(name)s, %(held)s, %(checks)s, %(fingerprint)s, %(lost)s, %(ttl_s)s)
