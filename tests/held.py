"""Code for processes that a test will kill: they cannot end before, on any machine.

What a kill does must not depend on how fast the machine is or on what else it runs. A held process
works as usual, and waits for its end after a stated amount of work.
"""

COMMAND = """\
import signal, sys
from advpure.cli import main
from advpure.runs.records import RecordStore
left, append = int(sys.argv.pop(1)), RecordStore.append
def held(store, *rows):
    global left
    if left == 0:
        signal.pause()
    left -= 1
    append(store, *rows)
RecordStore.append = held
main()
"""
"""The command line, held before it adds rows more often than its first argument says."""

UP_TO = "lambda done: done >= {done} and __import__('signal').pause()"
"""A `progress` that holds a run once it has done so much; to be formatted."""
