"""The inputs of the selected profile: whether its data and its encoder can be reached from here."""

import importlib
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtbert.corpus.source import BY_HAND, GIT_BLOBS, URL
from mtbert.doctor.check import Check, failed, needs_torch
from mtbert.errors import MtbertError
from mtbert.params import Params
from mtbert.tasks.paper import known_tasks

TIMEOUT_SECONDS = 5
FETCHED, LOADED = Path("data/raw/source.json"), Path("models/pretrained/model.safetensors")


def data(root: Path, params: Params) -> Check:
    """The data of the profile: generated, complete in their folder, or at the address that they are downloaded from."""
    source = params.data.source
    folder = root / os.path.expanduser(params.data.path)  # noqa: PTH111 - unlike Path.expanduser, it does not raise
    needed = [
        task for task in known_tasks(params.model_dump()["tasks"]).values() if source == "folder" or task.course is None
    ]
    files = [folder / task.file(split) for task in needed for split in ("train", "dev")]
    if missing := [file for file in files if not file.is_file()]:
        what = f"{params.data.path} lacks {', '.join(file.name for file in missing)}"
        if any(file.with_name(f"{file.name}.dvc").exists() for file in missing):
            return Check("problem", f"{what}, which DVC tracks", "run `dvc checkout` or `dvc pull`")
        return Check("problem", what, "copy them there, or name their folder as data.path")
    request = urllib.request.Request(URL + min(GIT_BLOBS), method="HEAD")
    if source == "download" and (fault := _fault(lambda: urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS))):
        return _offline(root / FETCHED, f"the course's files cannot be downloaded ({fault})", BY_HAND)
    where = {"sample": "are generated", "folder": f"are in {params.data.path}", "download": "can be downloaded"}
    return Check("ok", f"the data of profile {params.profile} {where[source]}")


@needs_torch("encoder")
def encoder(root: Path, params: Params) -> Check:
    """The encoder of the profile: installed, in its folder, in the hub's local cache, or at the hub."""
    from mtbert.peft.published import ADAPTER_CONFIG
    from mtbert.pretrained import source as pretrained

    settings = params.encoder
    if settings.source != "hub":
        try:
            folder = root / pretrained.expanded(settings.path) if settings.source == "local" else None
            if folder is None or not (folder / ADAPTER_CONFIG).is_file():
                folder = pretrained.folder_of(settings.source, settings.path)
        except MtbertError as error:
            return failed(str(error))
        return Check("ok", f"the encoder of profile {params.profile} is in {folder}")
    hub = importlib.import_module("huggingface_hub")
    files = (pretrained.CONFIG, pretrained.TOKENIZER, pretrained.WEIGHTS)
    cached = [hub.try_to_load_from_cache(settings.name, file, revision=settings.revision) for file in files]
    if all(isinstance(path, str) for path in cached):
        return Check("ok", f"{settings.name} is in the hub's local cache")
    url = hub.hf_hub_url(settings.name, pretrained.CONFIG, revision=settings.revision)
    if fault := _fault(lambda: hub.get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)):
        remedy = "connect once to download it, or set encoder.source: local and encoder.path to a copy"
        return _offline(root / LOADED, f"{settings.name} cannot be downloaded ({fault})", remedy)
    return Check("ok", f"{settings.name} can be downloaded")


def _fault(ask: Callable[[], Any]) -> str:
    """Why an address does not answer, in one line; empty if it does."""
    try:
        ask()
    except Exception as error:  # of urllib, httpx or the hub's client
        return (str(getattr(error, "reason", None) or error) or type(error).__name__).splitlines()[0]
    return ""


def _offline(made: Path, what: str, remedy: str) -> Check:
    """A source that cannot be reached stops the pipeline only where it has not been fetched yet."""
    return Check("note" if made.exists() else "problem", what, remedy)
