"""What the server that workers are forked from does once for all of them: this module is imported there, and nowhere else."""

import gc

import convolab.studies.executor  # noqa: F401 (torch, and all that a trial needs)
from convolab.training.run import package_versions
from convolab.training.setup import hardware_info

hardware_info()  # remembered from here on: it starts a process
package_versions()  # and this reads files
gc.freeze()  # a worker's collector then leaves alone what all workers share, which it would else copy page by page
