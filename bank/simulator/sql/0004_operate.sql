-- Many operations in one round trip, each still a transaction of its own: the commit between two of them releases the
-- row locks, so a batch never holds more than one operation's locks and two batches cannot deadlock.
-- An entry of `asked` is [operation, parameters...]; an entry of `answered` is [refusal, detail], in the same order.

CREATE PROCEDURE operate(asked json, INOUT answered json DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    one     json;
    refusal text;
    detail  text;
    answers json[] := '{}';
BEGIN
    FOREACH one IN ARRAY ARRAY(SELECT json_array_elements(asked)) LOOP
        CASE one ->> 0
            WHEN 'authorize' THEN
                SELECT * INTO refusal, detail FROM authorize_hold(
                    one ->> 1, one ->> 2, (one ->> 3)::bigint, (one ->> 4)::uuid,
                    (one ->> 5)::timestamp, (one ->> 6)::timestamp);
            WHEN 'capture' THEN
                SELECT * INTO refusal, detail FROM capture_hold(
                    (one ->> 1)::uuid, (one ->> 2)::bigint, (one ->> 3)::uuid, (one ->> 4)::timestamp);
            WHEN 'void' THEN
                SELECT * INTO refusal, detail FROM void_hold(
                    (one ->> 1)::uuid, (one ->> 2)::uuid, (one ->> 3)::timestamp);
            WHEN 'refund' THEN
                SELECT * INTO refusal, detail FROM refund_capture(
                    (one ->> 1)::uuid, (one ->> 2)::bigint, (one ->> 3)::uuid, (one ->> 4)::timestamp);
        END CASE;
        answers := answers || json_build_array(refusal, detail);
        COMMIT;
    END LOOP;
    answered := array_to_json(answers);
END
$$;
