-- What the bare pipeline writes (ops/bench/bare_pipeline.py): a receipt, a journal row and an event, with their keys and nothing else.
CREATE TABLE bare_receipts (
    id text PRIMARY KEY, amount bigint, currency text, order_id text, state text, version integer
) WITH (fillfactor = 70);
CREATE TABLE bare_journal (payment text, sequence integer, body text, PRIMARY KEY (payment, sequence));
CREATE TABLE bare_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payment text, sequence integer, body text
);
