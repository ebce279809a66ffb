"""fetch: write the raw CSV files from the source that the profile names."""

from pathlib import Path

from mtbert.corpus.source import copy_course, declared_files, download_course, write_sample
from mtbert.pipeline.paths import RAW, confine
from mtbert.pipeline.plans import planned
from mtbert.pipeline.start import start
from mtbert.tasks.paper import known_tasks


def main() -> None:
    settings = planned("fetch")["settings"]
    confine(RAW)
    declared = declared_files(Path(settings.get("path", ".")), known_tasks(settings["tasks"]).values())
    if settings["source"] == "sample":
        sample = settings["sample"]
        write_sample(RAW, sample["seed"], sample["sizes"], sample["label_noise"], declared)
    elif settings["source"] == "folder":
        copy_course(Path(settings["path"]), RAW, declared)
    else:
        download_course(RAW, declared)
    print(f"{RAW}: {settings['source']}")


if __name__ == "__main__":
    start(main)
