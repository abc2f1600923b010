"""Sessions, security and wire formats shared by a source, a sink and a lease table."""
