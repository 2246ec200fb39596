"""`python -m ups_kit` is `upskit`."""

from .cli import main

main()
