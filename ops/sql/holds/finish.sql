-- How a release ended. It ends once.
UPDATE audit SET result = %(result)s, done_at = now() WHERE id = %(id)s AND result IS NULL
