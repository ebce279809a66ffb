"""A YAML file that people edit: every fault is one error, raised quickly."""

import os
import time
from pathlib import Path

import pytest

from mtbert.errors import MtbertError
from mtbert.yamlfile import LARGEST_FILE, read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


def fault(path: Path) -> str:
    """The error without the leading path. It must be one short line and come at once: a bomb would take minutes."""
    start = time.process_time()
    with pytest.raises(MtbertError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert time.process_time() - start < 10  # a large test process may collect garbage meanwhile
    assert "\n" not in message
    assert len(message) < 300 + len(str(path))
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}:").strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"data:\n  a: [1, 2\nrest: 1\n", "3:5: not valid YAML: "),
        (b"data:\n\tpath: x\n", "2:1: not valid YAML: "),
        (b"a: 1\nb: 2\na: 3\n", '3:1: not valid YAML: found duplicate key "a"'),
        (b"a: 1\n---\nb: 2\n", "2:1: not valid YAML: but found another document"),
        (b"a: !!python/object:os.system x\n", "1:4: a YAML tag, "),
        (b"a: !!timestamp {b: 1}\n", "1:4: a YAML tag, "),
        (b"a: ! 1\n", "1:4: a YAML tag, "),
        (b"a: \x07\n", "not valid YAML: unacceptable character #x0007"),
        (b"a: \xff\n", "not UTF-8 at byte 3; save the file as UTF-8"),
        (b"a: 2026-13-45\n", "not valid YAML: month must be in 1..12"),
        (b"[[1]]: 2\n", "not valid YAML: unhashable type: 'list'; correct it"),
        (b"a: *nowhere\n", "1:4: *nowhere is a YAML alias"),
        (
            b"a: &x 1\nb: *x\n",
            "2:4: *x is a YAML alias, which DVC loses when it writes the file; write the values out",
        ),
        (b"a: &x {b: 1}\nc:\n  <<: *x\n", "3:7: *x is a YAML alias"),
        (BOMB.encode(), "2:8: *a is a YAML alias"),
        (b"[" * 5000 + b"]" * 5000, "1:21: nested more than 20 deep; remove the extra brackets or indentation"),
        (b"\n".join(b" " * n + b"a:" for n in range(1000)), "21:21: nested more than 20 deep"),
        (b"- " * 5000, "1:41: nested more than 20 deep"),
        (b"a: " + b"9" * 5000, "1:4: a value of 5,000 characters; at most 1,000 are allowed"),
        (b"a" * 5000 + b": 1", "1:1: a value of 5,000 characters"),
        (b"a: " + b"x" * LARGEST_FILE, "larger than 1,048,576 bytes; settings need a few thousand"),
    ],
    ids=range(21),
)
def test_faulty_files(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "params.yaml").write_bytes(text)
    assert fault(tmp_path / "params.yaml").startswith(message)


def test_folders_and_pipes(tmp_path: Path) -> None:
    assert fault(tmp_path / "params.yaml") == "not found; run from the project's root"
    assert fault(tmp_path) == "not a file; put a file with the settings there"
    os.mkfifo(tmp_path / "pipe")
    assert fault(tmp_path / "pipe") == "not a file; put a file with the settings there"
    (tmp_path / "loop").symlink_to("loop")
    assert fault(tmp_path / "loop").startswith("cannot be read (")


def test_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        "%YAML 1.2\n---\n# é\na: [1e-5, on, 2.0e-4, .5, null, 'x: y']\nb: {c: {d: true}}\n", encoding="utf-8"
    )
    assert read_yaml(path) == {"a": [1e-5, "on", 2e-4, 0.5, None, "x: y"], "b": {"c": {"d": True}}}
    path.write_text("[" * 20 + "]" * 20, encoding="utf-8")
    assert read_yaml(path)
    path.write_text("9" * 1000, encoding="utf-8")
    assert read_yaml(path) == 10**1000 - 1
