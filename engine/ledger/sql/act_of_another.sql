-- Whether another act about the same dead letter was carried out: then a letter that is gone is not our doing.
SELECT EXISTS (SELECT FROM audit
               WHERE subject = %(subject)s AND act LIKE 'dead_letter.%%' AND id <> %(id)s
                 AND result IN ('requeued', 'dropped')) AS done
