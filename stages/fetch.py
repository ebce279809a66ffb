"""fetch: the raw CSV files, from the source that params name."""

from pathlib import Path

from mtbert.data.source import copy_course, download_course, has_course_files, write_sample
from mtbert.errors import MtbertError
from mtbert.params import load_params
from stages.common import RAW, confine, start
from stages.provenance import origin, write_beside


def main() -> None:
    settings = load_params().data
    confine(RAW)
    if settings.source == "sample":
        write_sample(RAW, settings.sample.seed, settings.sample.sizes.model_dump(), settings.sample.label_noise)
    elif not Path(settings.path).is_dir():
        raise MtbertError(
            f"params.yaml: data.path: {settings.path} is not a folder; correct it (data/course means download)"
        )
    elif has_course_files(Path(settings.path)):
        copy_course(Path(settings.path), RAW)
    else:
        download_course(RAW)
    write_beside(RAW, origin("fetch", settings.model_dump(), RAW))
    print(f"{RAW}: {settings.source}")


if __name__ == "__main__":
    start(main)
