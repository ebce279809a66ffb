"""prepare: validate, clean, report what was found, tokenize once (section 5.1)."""

from mtbert.data.prepare import prepare, summary
from mtbert.model.store import TOKENIZER
from mtbert.params import load_params
from stages.common import PREPARED, PRETRAINED, RAW, confine, start
from stages.provenance import data_hash, origin, write_beside


def main() -> None:
    settings = load_params().prepare
    confine(RAW, PREPARED, PRETRAINED)
    report = prepare(
        RAW,
        PREPARED,
        PRETRAINED / TOKENIZER,
        on_bad_row=settings.on_bad_row,
        leakage=settings.leakage,
        preprocess=settings.preprocess,
        max_tokens=settings.max_tokens,
    )
    parent = {"folder": str(RAW), "sha256": data_hash(RAW)}
    write_beside(PREPARED, origin("prepare", settings.model_dump(), PREPARED, parent=parent))
    print(summary(report))


if __name__ == "__main__":
    start(main)
