"""The numbers that a run can write, and all that is read: pages calculate with them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from keeprate.engine import LARGEST_SCORE, METRIC_NAME

Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Criterion: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"^{METRIC_NAME.pattern}\Z")]
"""Is drawn and said."""
Score: TypeAlias = Annotated[float, msgspec.Meta(ge=-LARGEST_SCORE, le=LARGEST_SCORE)]
