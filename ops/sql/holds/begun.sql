-- The release of this hold that was written down before.
SELECT id, result FROM audit WHERE act = 'hold.release' AND subject = %(hold)s AND coalesce(result, '') NOT LIKE 'refused%%'
