"""The rules of a payment: what it is, what may happen to it, and what each answer of a bank makes of it.

Everything here is a function of its arguments. Values are frozen; time and randomness come in as parameters.

Reading order: money, payment, lifecycle (the table of states), bank_answer, decision (what to do next),
outcome_rules (what a final answer changes), retry_policy, changeset (everything that one commit writes), journal,
rendering (JSON for clients). Then command, creation, ids, system_operation, operator_action and operator_rules.

Never imports a store, the network, a clock or another package of the engine except its root.
"""
