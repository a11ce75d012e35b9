-- The four operations, each one call and one transaction: lock, check, write.
-- `refusal` is null when the effect took place. `step` says how far a call came when the database itself fails,
-- because the contract answers such a failure differently before the row is found, at the insert, and after it.
-- Refusals that are no codes of the contract: insert_failed (500 internal_error), write_failed (400 internal_error).

CREATE FUNCTION authorize_hold(
    card text, card_cvv text, amount bigint, hold_id uuid, at timestamp, hold_expires_at timestamp,
    OUT refusal text, OUT detail text
) LANGUAGE plpgsql AS $$
DECLARE
    account record;  -- Not %ROWTYPE: a missing table must fail inside the block, where it is answered.
    step    text := 'find';
BEGIN
    SELECT * INTO account FROM accounts WHERE account_number = card FOR UPDATE;
    IF NOT FOUND THEN
        refusal := 'invalid_card';
    ELSIF account.cvv <> card_cvv THEN
        refusal := 'invalid_cvv';
    ELSIF (account.expiry_year, account.expiry_month) < (extract(year FROM at), extract(month FROM at)) THEN
        refusal := 'card_expired';
    ELSIF account.available_balance_cents < amount THEN
        refusal := 'insufficient_funds';
    ELSE
        step := 'write';
        INSERT INTO transactions (id, account_id, type, amount_cents, status, expires_at, created_at)
        VALUES (hold_id, account.id, 'AUTH_HOLD', amount, 'ACTIVE', hold_expires_at, at);
        UPDATE accounts
        SET available_balance_cents = available_balance_cents - amount, updated_at = at
        WHERE id = account.id;
    END IF;
EXCEPTION WHEN OTHERS THEN
    refusal := CASE step WHEN 'find' THEN 'invalid_card' ELSE 'write_failed' END;
    detail := SQLERRM;
END
$$;

CREATE FUNCTION capture_hold(
    auth_id uuid, amount bigint, capture_id uuid, at timestamp, OUT refusal text, OUT detail text
) LANGUAGE plpgsql AS $$
DECLARE
    hold record;
    step text := 'find';
BEGIN
    SELECT * INTO hold FROM transactions WHERE id = auth_id FOR UPDATE;
    IF NOT FOUND OR hold.type <> 'AUTH_HOLD' THEN
        refusal := 'authorization_not_found';
    ELSIF hold.status <> 'ACTIVE' THEN
        refusal := 'authorization_already_used';
    ELSIF at > hold.expires_at THEN
        refusal := 'authorization_expired';
    ELSIF amount <> hold.amount_cents THEN
        refusal := 'amount_mismatch';
    ELSE
        step := 'insert';
        INSERT INTO transactions (id, account_id, type, amount_cents, currency, reference_id, status, created_at)
        VALUES (capture_id, hold.account_id, 'CAPTURE', hold.amount_cents, hold.currency, hold.id, 'COMPLETED', at);
        step := 'write';
        UPDATE transactions SET status = 'COMPLETED' WHERE id = hold.id;
        UPDATE accounts
        SET balance_cents = balance_cents - hold.amount_cents, updated_at = at
        WHERE id = hold.account_id;
    END IF;
EXCEPTION
    WHEN unique_violation THEN
        refusal := 'already_captured';
    WHEN OTHERS THEN
        refusal := CASE step WHEN 'find' THEN 'authorization_not_found'
                             WHEN 'insert' THEN 'insert_failed' ELSE 'write_failed' END;
        detail := SQLERRM;
END
$$;

-- There is no expiry check: voiding is how the funds of an expired hold come free.
CREATE FUNCTION void_hold(
    auth_id uuid, void_id uuid, at timestamp, OUT refusal text, OUT detail text
) LANGUAGE plpgsql AS $$
DECLARE
    hold record;
    step text := 'find';
BEGIN
    SELECT * INTO hold FROM transactions WHERE id = auth_id FOR UPDATE;
    IF NOT FOUND OR hold.type <> 'AUTH_HOLD' THEN
        refusal := 'authorization_not_found';
    ELSIF hold.status <> 'ACTIVE' THEN
        refusal := 'authorization_already_used';
    ELSIF EXISTS (SELECT FROM transactions WHERE reference_id = hold.id AND type = 'CAPTURE') THEN
        refusal := 'already_captured';
    ELSE
        step := 'insert';
        INSERT INTO transactions (id, account_id, type, amount_cents, currency, reference_id, status, created_at)
        VALUES (void_id, hold.account_id, 'VOID', hold.amount_cents, hold.currency, hold.id, 'COMPLETED', at);
        step := 'write';
        UPDATE transactions SET status = 'COMPLETED' WHERE id = hold.id;
        UPDATE accounts
        SET available_balance_cents = available_balance_cents + hold.amount_cents, updated_at = at
        WHERE id = hold.account_id;
    END IF;
EXCEPTION
    WHEN unique_violation THEN
        refusal := 'already_voided';
    WHEN OTHERS THEN
        refusal := CASE step WHEN 'find' THEN 'authorization_not_found'
                             WHEN 'insert' THEN 'insert_failed' ELSE 'write_failed' END;
        detail := SQLERRM;
END
$$;

-- The capture's status stays COMPLETED, so it is the unique index that refuses a second refund.
CREATE FUNCTION refund_capture(
    captured_id uuid, amount bigint, refund_id uuid, at timestamp, OUT refusal text, OUT detail text
) LANGUAGE plpgsql AS $$
DECLARE
    capture record;
    step    text := 'find';
BEGIN
    SELECT * INTO capture FROM transactions WHERE id = captured_id FOR UPDATE;
    IF NOT FOUND OR capture.type <> 'CAPTURE' OR capture.status <> 'COMPLETED' THEN
        refusal := 'capture_not_found';
    ELSIF amount <> capture.amount_cents THEN
        refusal := 'amount_mismatch';
    ELSE
        step := 'insert';
        INSERT INTO transactions (id, account_id, type, amount_cents, currency, reference_id, status, created_at)
        VALUES (refund_id, capture.account_id, 'REFUND', capture.amount_cents, capture.currency, capture.id,
                'COMPLETED', at);
        step := 'write';
        UPDATE accounts
        SET balance_cents = balance_cents + capture.amount_cents,
            available_balance_cents = available_balance_cents + capture.amount_cents,
            updated_at = at
        WHERE id = capture.account_id;
    END IF;
EXCEPTION
    WHEN unique_violation THEN
        refusal := 'already_refunded';
    WHEN OTHERS THEN
        refusal := CASE step WHEN 'find' THEN 'capture_not_found'
                             WHEN 'insert' THEN 'insert_failed' ELSE 'write_failed' END;
        detail := SQLERRM;
END
$$;
