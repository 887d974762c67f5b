"""What the fork server does once for all workers. Nothing else imports this module."""

import gc

import convolab.studies.executor  # noqa: F401 (torch, and all that a trial needs)
from convolab.core.environment import hardware_info, package_versions

hardware_info()  # cached from here on: it starts a process
package_versions()  # and this reads files
gc.freeze()  # a worker's collector then leaves shared objects alone, instead of copying their pages one by one
