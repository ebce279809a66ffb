"""fetch: write the raw CSV files from the source that the profile names."""

from pathlib import Path

from mtbert.corpus.source import copy_course, download_course, write_sample
from stages.common import RAW, confine, start
from stages.planned import planned


def main() -> None:
    settings = planned("fetch")["settings"]
    confine(RAW)
    if settings["source"] == "sample":
        sample = settings["sample"]
        write_sample(RAW, sample["seed"], sample["sizes"], sample["label_noise"])
    elif settings["source"] == "folder":
        copy_course(Path(settings["path"]), RAW)
    else:
        download_course(RAW)
    print(f"{RAW}: {settings['source']}")


if __name__ == "__main__":
    start(main)
