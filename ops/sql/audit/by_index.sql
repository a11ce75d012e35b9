-- For a look at some payments: plans that stay as cheap as they are, when statistics are old or tables have grown.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('statement_timeout', '5s', true)
