"""Prints, one a line, the folder it was started in and its arguments; launcher_test.py runs it."""

import os
import sys

print(os.getcwd(), *sys.argv[1:], sep="\n")
