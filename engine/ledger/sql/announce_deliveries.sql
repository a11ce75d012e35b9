-- Deliveries became due, or their endpoint changed: dispatchers look at once when this commits (delivery.DUE_CHANNEL).
NOTIFY penstock_deliveries
