from mtbert.errors import MtbertError as MtbertError
from mtbert.inference.load import load as load
from mtbert.inference.model import Label as Label
from mtbert.inference.model import LongInputWarning as LongInputWarning
from mtbert.inference.model import Score as Score
from mtbert.inference.model import TaskInfo as TaskInfo
from mtbert.inference.model import TrainedModel as TrainedModel
