-- Whether an operator's word ended an operation.
SELECT EXISTS (SELECT FROM audit WHERE payment = %(payment)s AND operation = %(operation)s AND act = 'resolve'
                                   AND result LIKE 'carried out%%')
