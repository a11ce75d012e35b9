-- Until when a partition's parked operations wait for their bank and not for their owner: it takes no calls, or fewer than are due. What is
-- due meanwhile stays as it is, unread and unwritten, however long that lasts; without this row it would look forgotten.
CREATE TABLE retries_held (
    partition  integer PRIMARY KEY,
    until      timestamptz NOT NULL
);
