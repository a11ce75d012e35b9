"""The OpenAPI document: what each route takes, answers and refuses.

Reading order: schemas (the document, from all the parts), description (operations and texts), payment_schemas,
timeline_schemas, dead_letter_schemas, webhook_schemas, webhook_description.

Never imports server or handlers.
"""
