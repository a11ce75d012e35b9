-- Stored answers that another key than the one that seals now has sealed.
SELECT id, sealed FROM stored_answers
WHERE sealing_key_of(sealed) <> %(sealing)s
LIMIT %(limit)s
