"""Retrieval: the passages of a corpus that fit a query."""
