"""Benchmarks: what observing costs, measured side by side with what others offer for the same purpose."""
