-- Whether a merchant is served.
SELECT status FROM merchants WHERE id = %(id)s;
