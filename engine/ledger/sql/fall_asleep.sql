-- From now on, whoever writes events rings. Not worth waiting for the disk: should this be lost, it is done again.
UPDATE fan_out SET asleep = true FROM (SELECT set_config('synchronous_commit', 'off', true)) AS lax WHERE NOT asleep
