from .cautions import find_cautions as find_cautions
from .page import write_plots as write_plots
from .page import write_report as write_report
from .words import noisy_test_in_words as noisy_test_in_words
