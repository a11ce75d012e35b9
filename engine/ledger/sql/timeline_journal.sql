-- The newest journal rows of a payment, for its timeline.
SELECT sequence, from_state, to_state, event, operation, at, evidence
FROM transitions WHERE payment = %(payment)s
ORDER BY sequence DESC LIMIT %(limit)s
