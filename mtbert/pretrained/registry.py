"""The families of encoders that can be used, and which of them a config.json belongs to.

To add a family, add a file beside bert.py and an entry here. models/pretrained/config.json must then record the family, so that the
stages that load a model can pass on its special tokens; with one family they use BERT's.
"""

import json
import reprlib
from pathlib import Path
from typing import Any

from mtbert.errors import MtbertError
from mtbert.model.bert import BertConfig
from mtbert.pretrained.bert import BERT
from mtbert.pretrained.family import Family

FAMILIES = {family.model_type: family for family in (BERT,)}
DEFAULT = BERT  # of files without model_type: the first ones had none, and all were BERT's


def read_hf_config(path: Path) -> tuple[Family, BertConfig]:
    """The family and the sizes of a published encoder; `from_hf` compares the sizes with the weights.

    Raises:
        MtbertError: the file is no JSON object, its family is unknown, or as `Family.read_config`.
    """
    values = _json_object(path)
    model_type = values.get("model_type", DEFAULT.model_type)
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        names = " or ".join(known.name for known in FAMILIES.values())
        raise MtbertError(
            f"{path}: model_type is {reprlib.repr(model_type)}, supported: {', '.join(FAMILIES)}; choose a {names} encoder"
        )
    return family, family.read_config(values, path)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise MtbertError(f"{path}: nested too deeply; {DEFAULT.remedy}") from None
    except ValueError as error:
        # For a number of over 4,300 digits, Python's message goes on to advise raising an interpreter limit.
        raise MtbertError(f"{path}: not valid JSON: {str(error).partition(';')[0]}; {DEFAULT.remedy}") from None
    if not isinstance(values, dict):
        raise MtbertError(f"{path}: holds a {type(values).__name__}, not a JSON object; {DEFAULT.remedy}")
    return values
