-- An endpoint of the bench; its secret is made when it is first used.
INSERT INTO webhook_endpoints (id, merchant, url, ordered) VALUES (%(id)s, %(merchant)s, %(url)s, %(ordered)s)
