SELECT coalesce(sum(attempts - 1), 0) FROM operations WHERE attempts > 1
