"""Mergeable summaries without a random generator: equal inputs give equal bytes, in any batching."""
