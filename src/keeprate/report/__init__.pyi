from .cautions import find_cautions as find_cautions
from .facts import has_test_accuracy as has_test_accuracy
from .facts import validation_name as validation_name
from .page import write_plots as write_plots
from .page import write_report as write_report
from .words import issue_count_in_words as issue_count_in_words
from .words import noise_in_words as noise_in_words
from .words import noisy_test_in_words as noisy_test_in_words
