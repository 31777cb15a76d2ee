"""What storage raises; each message says what was found, what was expected and what to do."""


class StoreError(Exception):
    """The store could not do what was asked; the message says what to do. Base of the errors below."""


class NotFound(StoreError):
    """There is no object of that key."""


class Conflict(StoreError):
    """Put-if-absent found the key taken."""


class Corrupt(StoreError):
    """Bytes are not what their record says."""
