"""The load test: the four scenarios over real HTTP, and the ground truth that they record."""
