from .data import Data as Data
from .data import load_data as load_data
from .data import prepare as prepare
from .engine import Method as Method
from .engine import TrainingConfig as TrainingConfig
from .errors import InputError as InputError
from .estimator import NoisyLabelClassifier as NoisyLabelClassifier
from .records import Decision as Decision
from .records import apply as apply
from .records import find_label_issues as find_label_issues
from .records import label_issues as label_issues
from .runs import Run as Run
from .runs import load as load
from .runs import train as train
from .schedules import Schedule as Schedule
from .searching import NaturalGradientSampler as NaturalGradientSampler
from .searching import SearchConfig as SearchConfig
from .searching import SearchPlan as SearchPlan
from .searching import plan_search as plan_search
from .searching import search as search

__version__: str
