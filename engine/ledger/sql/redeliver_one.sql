-- One delivery becomes due again; one that is under way already is left to it.
UPDATE deliveries SET state = 'pending', due_at = clock_timestamp(), failures = 0, finished_at = NULL, dead_reason = NULL
WHERE payment = %(payment)s AND endpoint = %(endpoint)s AND sequence = %(sequence)s AND state <> 'sending'
