SELECT id FROM partitions WHERE owner LIKE %(owner)s || '-%%' ORDER BY id
