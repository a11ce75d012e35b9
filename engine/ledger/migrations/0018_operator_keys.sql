-- Operators of the gateway belong to no merchant: a key of scope operator may be without one. And when a key was last used.
ALTER TABLE api_keys
    ALTER COLUMN merchant_id DROP NOT NULL,
    ADD COLUMN used_at timestamptz,                -- to the minute, as the edges tell; null: never
    -- A key that makes payments makes them for somebody.
    ADD CONSTRAINT merchants_key_has_its_merchant CHECK (scope = 'operator' OR merchant_id IS NOT NULL);
