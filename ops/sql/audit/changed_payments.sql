-- Payments with events after one, newest first; each row of the journal has its event, so these are all that changed.
SELECT id, payment FROM outbox WHERE id > %(after)s ORDER BY id DESC LIMIT %(limit)s
