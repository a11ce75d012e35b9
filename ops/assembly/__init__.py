"""The composition roots: one file a process builds its object graph, starts it and stops it in order.

Reading order: settings (every variable, checked together), stores (connections), process (what all processes share),
edge, worker, dispatcher, auditor, serving (HTTP inside a process), health, logs, clocks.

Of ops it imports audit and the root.
"""
