"""The reference service: a clinical question-answering service with real caches, engine and breaker."""

import os

# Before anything here imports numpy: its BLAS would start a thread a core for products that take
# microseconds, and their spinning doubles the CPU time of a query.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
