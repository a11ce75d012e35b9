"""What each route does: read the request, call one method of a contract, render the answer. One file a resource.

Reading order: payments, operators (dead letters, retry, resolve, correct), webhooks (endpoints and secrets), deliveries
(the log, and the event feed), reference (/openapi.json and /docs).

Never imports the application; app.py puts the handlers into its table.
"""
