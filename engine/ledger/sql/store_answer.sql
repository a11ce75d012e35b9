-- An answer, in the transaction of what it tells.
INSERT INTO stored_answers (id, merchant, fingerprint, status, sealed)
VALUES (%(id)s, %(merchant)s, %(fingerprint)s::json, %(status)s, %(sealed)s)
