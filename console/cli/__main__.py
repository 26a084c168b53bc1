"""`python -m console.cli`: what the installed `clearance` runs."""

from console.cli.main import main

main()
