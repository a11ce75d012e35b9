-- Which of these keys are those of releases that operators asked for.
SELECT detail ->> 'bank_key' FROM audit WHERE act = 'hold.release' AND detail ->> 'bank_key' = ANY (%(keys)s)
