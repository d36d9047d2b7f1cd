"""The README's Python blocks run as they stand, on a trained folder."""

import re
from pathlib import Path

from test_hub_interface import trained  # noqa: F401  a fixture


def test_python_blocks_run(trained, tmp_path, monkeypatch):  # noqa: F811
    text = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/quickstart-model").symlink_to(trained)
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in blocks:
        exec(block, scope)
    assert scope["features"].shape[:2] == (1, len(scope["ids"]))
    assert scope["content_lambda"].shape == (2, 16, 64) and scope["y"].shape == (2, 100, 768)
