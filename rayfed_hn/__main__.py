"""``python -m rayfed_hn`` is the command line."""

from rayfed_hn.cli import main

main()
