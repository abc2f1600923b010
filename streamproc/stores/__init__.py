"""Object stores: local disk, and S3 and its like through obstore."""
