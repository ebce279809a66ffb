"""`mtbert export`: a trained model as a folder of another library, whole or not at all."""

from pathlib import Path

from mtbert.errors import MtbertError
from mtbert.export.registry import Export, writer
from mtbert.files import replaced_folder
from mtbert.inference.load import load
from mtbert.pretrained.store import read_config


def main(model: str, destination: Path, to: str, task: str | None = None) -> None:
    """Export a model, and print what was written.

    Args:
        model: a run's name, for models/RUN, or a model's folder.
        destination: the folder to write.
        to: a key of `FORMATS`.
        task: the one to export; by default all of them, or what they share.

    Raises:
        MtbertError: the model, the task or the format is unknown, the destination is in use, or the format cannot hold this model.
    """
    write = writer(to)
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise MtbertError(f"{destination}: exists already; name another folder, or remove it first")
    trained = load(model, device="cpu", precision="fp32")
    if task is not None:
        trained.task(task)
    adapter = trained.settings.adapter
    if adapter is not None and not adapter.merges and not adapter.merges_for_a_task:
        what = f"its adapter, {adapter.title}, cannot be merged into the encoder, and no format holds it"
        raise MtbertError(f"{trained.folder}: {what}; use it with mtbert.load or `mtbert predict`")
    export = Export(trained, read_config(trained.folder), task)
    with replaced_folder(destination.resolve()) as folder:
        written = write(export, folder)
    for line in written:
        print(f"{destination}: {line}")
