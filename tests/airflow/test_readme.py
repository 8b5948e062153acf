"""The README shows the examples as they are."""

import re

import pytest
from conftest import EXAMPLES

README = EXAMPLES.parents[1] / "README.md"


def shown(path):
    """The part of an example between its markers."""
    marked = rf"^ *# --8<-- {path.stem}\n(.*?)^ *# --8<-- end\n"
    [part] = re.findall(marked, path.read_text(), re.MULTILINE | re.DOTALL)
    lines = part.splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line)
    return "\n".join(line[indent:] for line in lines)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_stands_in_the_readme(path):
    blocks = re.findall(r"^```python\n(.*?)\n```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shown(path) in blocks
