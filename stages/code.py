"""code: for each stage the files that it runs, with their checksums, so that an edit re-runs exactly what runs that code.

DVC looks at each dependency of each stage at every command. So no stage lists its files: it depends on its one list, made here.
"""

from pathlib import Path

from mtbert.files import atomic_json, replaced_folder, sha256_file
from stages.common import CODE, confine, start
from stages.imports import code_of_stages


def main() -> None:
    confine(CODE)
    stages = code_of_stages(Path())
    with replaced_folder(CODE) as folder:
        for stage, files in stages.items():
            atomic_json(folder / f"{stage}.json", {file: sha256_file(Path(file)) for file in files})
    print(f"{CODE}: {', '.join(f'{stage} runs {len(files)} files' for stage, files in stages.items())}")


if __name__ == "__main__":
    start(main)
