"""`python -m keeprate`: the command."""

from keeprate.cli.commands import main

main()
