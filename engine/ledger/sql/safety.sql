-- What durability rests on: fsync is the server's, synchronous_commit this session's.
SELECT current_setting('fsync'), CASE current_setting('synchronous_commit') WHEN 'off' THEN 'off' ELSE 'on' END
