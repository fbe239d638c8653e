"""What runs on a cell: what a mapper is (`mapreduce.mappers.mapper`), and ready-made ones."""
