"""The HTTP API: one ASGI application that validates requests, calls the engine and renders its answers.

Reading order: app (the table of routes, and what each is made of), server/ (connections, authentication, admission,
the boundary around a handler), parsing/ (from bytes to validated values), handlers/ (one file a resource), openapi/
(the description of all of it), pages/ (HTML).

The edge is stateless: any process may answer any call.

Never imports bank or ops, and of the engine only its contracts, domain and root.
"""
