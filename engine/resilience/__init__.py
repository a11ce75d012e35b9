"""How the engine treats a bank or a store that fails: leave it alone, ask it less often, wait fairly, report it.

Reading order: circuit_breaker, retry_budget, drain_proof (when a silent bank's queue is empty), guarded_connector
(all three around a connector), fair_semaphore (slots for calls, in turns between merchants), store_outage, fitness
(whether this process may work at all).

Never imports a store. Of the engine it imports contracts, domain and the root.
"""
