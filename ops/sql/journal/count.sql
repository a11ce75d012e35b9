-- How much there is to read, the installation, and the time of this snapshot.
SELECT (SELECT count(*) FROM transitions t WHERE %(payment)s::text IS NULL OR t.payment = %(payment)s),
       (SELECT id FROM installation), now()
