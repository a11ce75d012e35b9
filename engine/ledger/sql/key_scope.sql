-- What a key is for: its secret's prefix says it too.
SELECT scope FROM api_keys WHERE id = %(id)s;
