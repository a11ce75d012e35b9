-- For a look at some payments: plans that stay as cheap as they are, when statistics are old or tables have grown. Without the
-- last two, a table whose statistics are of its first minute was read once a look and kept, to be searched for each payment.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('statement_timeout', '5s', true),
       set_config('enable_memoize', 'off', true), set_config('enable_material', 'off', true)
