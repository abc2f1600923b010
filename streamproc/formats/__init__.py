"""Payload formats, both ways: bytes and Arrow."""
