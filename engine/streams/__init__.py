"""Everything that touches Redis: accepting, the command streams, completing, dead letters, replies to waiting edges.

Reading order: keys (the map of all keys), scripts and lua/ (the atomic steps), encoding (bytes to records and back),
acceptance_store (the edge's side), command_stream (the worker's side), completion, dead_letter and
dead_letter_queue, reply_channel, installation (whose Redis this is).

Never imports the ledger, a worker, an edge or a connector. Of the engine it imports resilience, domain and the root.
"""
