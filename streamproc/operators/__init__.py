"""What a plan's steps do to Arrow tables."""
