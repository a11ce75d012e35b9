-- Holds that no receipt had, and that an operator's act gave back, or is giving back.
SELECT subject FROM audit WHERE act = 'hold.release' AND coalesce(result, '') NOT LIKE 'refused%%'
