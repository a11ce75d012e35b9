-- The same answer under another key.
UPDATE stored_answers SET sealed = %(resealed)s WHERE id = %(id)s AND sealed = %(sealed)s
