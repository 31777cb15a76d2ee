"""Puts on a local disk whose reply is lost: the act is done, and the caller is told that it failed.

An NFS client that did not hear the server's answer sends its request again, and is told what the second one met: `link`
that the name is taken, `rename` that its source is gone. A soft mount gives up instead, with EIO. The Delta library
reports either as a failure of its commit.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from deltalake.exceptions import CommitFailedError

from storage.tables import delta

SENT_AGAIN, GAVE_UP = "sent again", "gave up"
WORDS = (SENT_AGAIN, GAVE_UP)


@dataclass(frozen=True, kw_only=True)
class LostReply:
    """A put that is done and whose caller is told that it failed. `said`: one of WORDS. `at`: from 0 on."""

    at: int
    said: str


NONE_LOST = LostReply(at=-1, said=SENT_AGAIN)
"""Only counts the puts."""


class Puts:
    """Counts a process's puts, and loses the reply to the one it was told."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = root
        self.lost = NONE_LOST
        self.done: list[str] = []
        """Names of the puts so far: keys of objects, folders of tables."""

    def install(self, lost: LostReply) -> None:
        self.lost = lost
        for name, errors in (("link", _of_link), ("replace", _of_rename)):
            setattr(os, name, self._after(getattr(os, name), self._key, errors))
        delta.write_deltalake = self._after(delta.write_deltalake, self._table, _of_table)  # type: ignore[attr-defined]

    def _after(
        self, call: Callable[..., Any], name_of: Callable[..., str], errors: Callable[[str], Exception]
    ) -> Callable[..., Any]:
        def put(*args: Any, **kwargs: Any) -> Any:
            answer = call(*args, **kwargs)
            self.done.append(name_of(*args))
            if len(self.done) - 1 == self.lost.at:
                raise errors(self.lost.said)
            return answer

        return put

    def _key(self, _source: os.PathLike[str], target: os.PathLike[str]) -> str:
        return os.path.relpath(target, self.root)

    def _table(self, table: Any, *_: Any) -> str:
        return os.path.relpath(unquote(urlsplit(table.table_uri).path), self.root)


def kind_of_put(name: str) -> str:
    """What is put, in the words of the commit protocol."""
    top = name.partition("/")[0]
    if top.startswith("tables"):
        new = "" if top == "tables" else " of new tables"
        return f"checkpoint{new}" if "_delta_log" in name else f"version{new}"
    if top == "folds":
        return "done fold" if name.endswith(".done.json") else "probe" if "probe-" in name else "fold"
    kinds = {"plans": "plan", "commits": "commit record", "snapshots": "snapshot", "models": "model", "data": "object"}
    return kinds.get(top, top)


def _of_link(said: str) -> Exception:
    return FileExistsError(errno.EEXIST, "File exists") if said == SENT_AGAIN else _input_output_error()


def _of_rename(said: str) -> Exception:
    return FileNotFoundError(errno.ENOENT, "No such file") if said == SENT_AGAIN else _input_output_error()


def _of_table(said: str) -> Exception:
    return CommitFailedError("the version is there already") if said == SENT_AGAIN else _input_output_error()


def _input_output_error() -> OSError:
    return OSError(errno.EIO, "Input/output error")
