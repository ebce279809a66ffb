"""encoder: translate the named pretrained weights into our names, checking every tensor, and write safetensors."""

from dataclasses import asdict

from mtbert.errors import MtbertError
from mtbert.files import replaced_folder
from mtbert.peft.published import encoder_from
from mtbert.pipeline.paths import PRETRAINED, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start
from mtbert.pretrained.store import TOKENIZER, save_masked_head, save_model
from mtbert.training.compute import resolve


def main() -> None:
    settings = planned("encoder")["settings"]
    confine(PRETRAINED)
    resolve("cpu", "fp32", 1)
    try:
        found = encoder_from(settings.pop("source"), **settings)
    except MtbertError as error:
        raise MtbertError(f"params.yaml: {error}" if str(error).startswith("encoder.") else str(error)) from None
    with replaced_folder(PRETRAINED) as folder:
        (folder / TOKENIZER).write_bytes(found.tokenizer)
        head = {} if found.masked_head is None else save_masked_head(folder, found.masked_head)
        save_model(folder, found.tensors, {"encoder": asdict(found.config), "source": found.source, **head})
    size = sum(tensor.numel() for tensor in found.tensors.values())
    print(f"{found.source['name']}: {size:,} parameters in {len(found.tensors)} tensors")


if __name__ == "__main__":
    start(main)
