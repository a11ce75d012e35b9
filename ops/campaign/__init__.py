"""A campaign: a stack of its own, a shop that never gives up a key, faults by a seed, and a count at the bank's tables.

`penstock chaos` (ops/chaos.py) is the command. Read schedule, rig, strike, purchase, crowd, verdict, in this order.
"""
