"""Errors of storage; each message states what was found, what was expected and what to do."""


class InvalidInput(ValueError):
    """Refusal of input that was checked and found wrong. Any other ValueError is a mistake of the program."""


class StoreError(Exception):
    """Failure of the store; base class of the other errors."""


class NotFound(StoreError):
    """Failure to find an object in the store, or the plan, shard, snapshot or model that the object holds."""


class Erased(NotFound):
    """Failure to read an image, or masks of an image, that was erased for good."""


class Conflict(StoreError):
    """Failure to create an object because its key is taken."""


class Corrupt(StoreError):
    """Failure of a check: stored bytes are not what their record states."""
