"""The contracts of the engine with the HTTP edge and with connectors: values, Protocols and the rules for their form.

Reading order: gateway (create, operate, read payments), webhooks (endpoints, deliveries, events), url_policy and
signature (the form of webhook URLs and secrets), connector (what a bank's connector implements).

The edge and the connectors import this package, the domain and the root of the engine, and nothing else of it.

Never imports a package of the engine except domain and the root.
"""
