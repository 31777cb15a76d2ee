"""Errors of storage; each message says what was found, what was expected and what to do."""


class StoreError(Exception):
    """A failure of the store; base of the other errors of storage."""


class NotFound(StoreError):
    """An object, or what it stands for, that is not in the store."""


class Conflict(StoreError):
    """A key that put-if-absent found taken."""


class Corrupt(StoreError):
    """Bytes that are not what their record says."""
