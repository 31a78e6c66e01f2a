"""The name that earlier versions gave to `keeprate.load_data`."""

from keeprate.data import load_data as load

__all__ = ["load"]
