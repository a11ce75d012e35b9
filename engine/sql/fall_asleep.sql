-- From now on, whoever writes events rings. Not worth waiting for the disk: as long as this transaction is open, nothing newer is read.
UPDATE fan_out SET asleep = true FROM (SELECT set_config('synchronous_commit', 'off', true)) AS lax WHERE NOT asleep
