"""How a request reaches a handler and how an answer leaves: connections, keys, limits, problems, metrics, health.

Reading order: protocol (one connection, on uvicorn), endpoint (the boundary around every handler), request and
response, authentication, admission, problems, health, metrics.

Never imports parsing, handlers or openapi.
"""
