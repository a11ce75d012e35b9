"""A webhook receiver for developers: prints each delivery, verifies its signature, and can misbehave on purpose.

Reading order: command (penstock listen), receiver, registration, screen.

Of ops it imports assembly, stack and the root.
"""
