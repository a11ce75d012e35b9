"""The demo: the story of a shop from order to refund, with real faults, on a stack of its own.

Reading order: command (penstock demo), steps, shop (the client), reporter.

Of ops it imports audit, stack and the root.
"""
