"""The command `keeprate`."""
