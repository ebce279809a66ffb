"""prepare: validate, clean and tokenize the raw files, and report faulty, repeated and leaked rows (section 5.1)."""

import sys

from mtbert.corpus.prepare import prepare, summary
from mtbert.pretrained.store import TOKENIZER
from stages.common import PREPARED, PRETRAINED, RAW, confine, start
from stages.planned import planned


def main() -> None:
    confine(RAW, PREPARED, PRETRAINED)
    report = prepare(RAW, PREPARED, PRETRAINED / TOKENIZER, **planned("prepare")["settings"])
    print(summary(report))
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)


if __name__ == "__main__":
    start(main)
