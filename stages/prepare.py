"""prepare: validate, clean and tokenize the raw files, and report faulty, repeated and leaked rows (section 5.1)."""

import sys

from mtbert.corpus.prepare import prepare, summary
from mtbert.pipeline.paths import PREPARED, PRETRAINED, RAW, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start
from mtbert.pretrained.store import TOKENIZER
from mtbert.tasks.paper import known_tasks


def main() -> None:
    confine(RAW, PREPARED, PRETRAINED)
    settings = planned("prepare")["settings"]
    known = known_tasks(settings.pop("tasks"))
    report = prepare(RAW, PREPARED, PRETRAINED / TOKENIZER, **settings, known=known)
    print(summary(report))
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)


if __name__ == "__main__":
    start(main)
