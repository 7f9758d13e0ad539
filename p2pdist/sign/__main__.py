"""Lets ``python -m p2pdist.sign`` run the program."""

from p2pdist.sign.main import main

main()
