-- Who we are: the installation's id and its number of partitions.
SELECT id, partitions FROM installation
