"""Names of data sets on the Hugging Face Hub, told from mistyped paths without PyTorch."""

from __future__ import annotations

import re
from pathlib import Path


def is_hub_name(source: str) -> bool:
    """Whether a source that is no path may be the name of a data set on the Hub.

    A path in a folder that exists is a mistyped path, not a question for the Hub.

    >>> is_hub_name("owner/name"), is_hub_name("name"), is_hub_name("/no/path")
    (True, False, False)
    """
    is_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None
    return is_name and not Path(source).parent.exists()
