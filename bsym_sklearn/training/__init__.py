"""How a model learns."""

from bsym_sklearn.training import forks  # noqa: F401  (for what it does to forks)
