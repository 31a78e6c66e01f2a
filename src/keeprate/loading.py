"""The name that earlier versions gave to `keeprate.data`."""

from keeprate.data import load as load

__all__ = ["load"]
