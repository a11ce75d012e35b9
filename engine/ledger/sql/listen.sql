-- The doorbells of dispatchers.
LISTEN penstock_outbox;
LISTEN penstock_deliveries
