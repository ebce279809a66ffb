"""encoder: the named pretrained weights under our names, strictly, as safetensors."""

from mtbert.files import replaced_folder
from mtbert.model.pretrained import pretrained
from mtbert.model.store import TOKENIZER, read_config, save_model
from mtbert.model.weights import config_to_json
from mtbert.params import load_params
from mtbert.training.compute import resolve
from stages.common import PRETRAINED, confine, start
from stages.provenance import origin, write_beside


def main() -> None:
    settings = load_params().encoder
    confine(PRETRAINED)
    compute = resolve("cpu", "fp32", 1)
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
    about = {"weights": read_config(PRETRAINED)["sha256"], **compute.describe()}
    write_beside(PRETRAINED, origin("encoder", settings.model_dump(), **about))
    size = sum(tensor.numel() for tensor in found.tensors.values())
    print(f"{found.source['name']}: {size:,} parameters in {len(found.tensors)} tensors")


if __name__ == "__main__":
    start(main)
