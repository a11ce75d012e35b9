-- Refusals that the contract words with what it found: detail says it, and it is told for these codes alone.

CREATE FUNCTION expiry_detail(month integer, year integer, at timestamp) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN month NOT BETWEEN 1 AND 12 THEN 'invalid month: must be between 1 and 12'
        WHEN year < extract(year FROM at) THEN format('card expired: year %s is in the past', year)
        WHEN year = extract(year FROM at) AND month < extract(month FROM at)
            THEN format('card expired: %s/%s', lpad(month::text, 2, '0'), year)
    END
$$;

DO $$
DECLARE
    change  record;
    body    text;
    changed text;
BEGIN
    FOR change IN SELECT * FROM (VALUES
        ('authorize_hold',
         'ELSIF (account.expiry_year, account.expiry_month) < (extract(year FROM at), extract(month FROM at)) THEN',
         'ELSIF expiry_detail(account.expiry_month, account.expiry_year, at) IS NOT NULL THEN'
         ' detail := expiry_detail(account.expiry_month, account.expiry_year, at);'),
        ('void_hold',
         'refusal := ''already_captured'';',
         'refusal := ''already_captured''; detail := ''cannot void an authorization that has been captured'';'),
        ('refund_capture',
         'refusal := ''amount_mismatch'';',
         'refusal := ''amount_mismatch'';'
         ' detail := format(''refund amount (%s) must equal capture amount (%s)'', amount, capture.amount_cents);')
    ) AS changes (name, was, becomes) LOOP
        body := pg_get_functiondef(change.name::regproc);
        changed := replace(body, change.was, change.becomes);
        ASSERT changed <> body, format('%s has changed: look at it again', change.name);
        EXECUTE changed;
    END LOOP;
END
$$;
