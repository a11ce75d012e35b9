-- This process ends in good order: no rotation waits for it.
DELETE FROM key_holders WHERE kind = %(kind)s AND name = %(name)s
