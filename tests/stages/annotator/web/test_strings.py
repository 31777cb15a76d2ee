"""The page's message catalogue has what the page says, and nothing else."""

import re

from stages.annotator.decoders import WEB

STRINGS = WEB / "app" / "strings.js"


def test_every_text_is_used() -> None:
    names = set(re.findall(r'^ +"?([\w:]+)"?: ["(]', STRINGS.read_text(), re.MULTILINE))
    assert len(names) > 150
    others = [path.read_text() for path in WEB.rglob("*.js") if path != STRINGS and "vendor" not in path.parts]
    words = set(re.findall(r"[\w:]+", "\n".join(others)))
    assert names - words == set()
