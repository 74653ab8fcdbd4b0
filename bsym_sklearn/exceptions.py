"""Errors and warnings that a user may catch."""


class BrainDataError(ValueError):
    """Data that a user handed in cannot be used as they are."""


class CheckpointError(RuntimeError):
    """A weights file or a saved estimator is missing, damaged or of another shape."""


class BrainSymphonyWarning(UserWarning):
    """Legal input or settings that are probably a mistake."""
