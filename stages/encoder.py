"""encoder: the named pretrained weights under our names, strictly, as safetensors."""

from mtbert.files import replaced_folder
from mtbert.model.pretrained import pretrained
from mtbert.model.store import TOKENIZER, save_model
from mtbert.model.weights import config_to_json
from mtbert.params import load_params
from stages.common import PRETRAINED, start


def main() -> None:
    settings = load_params().encoder
    found = pretrained(
        settings.source,
        name=settings.name,
        revision=settings.revision,
        path=settings.path,
        sha256=settings.sha256,
        random=settings.random.model_dump(),
    )
    with replaced_folder(PRETRAINED) as folder:
        (folder / TOKENIZER).write_bytes(found.tokenizer)
        save_model(folder, found.tensors, {"encoder": config_to_json(found.config), "source": found.source})
    size = sum(tensor.numel() for tensor in found.tensors.values())
    print(f"{found.source['name']}: {size:,} parameters in {len(found.tensors)} tensors")


if __name__ == "__main__":
    start(main)
