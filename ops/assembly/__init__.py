"""The composition root: settings in, running processes out. One module for each kind of process, its object graph about
a screen, so that none loads what only another one needs.

Shutdown order is indentation: the server stops taking requests first, the stores close last.
"""
