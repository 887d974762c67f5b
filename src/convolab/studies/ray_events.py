"""How events of trials travel from the nodes of a Ray cluster to the driver, and the request to stop back to them.

`EventQueue` runs in a process of its own and imports nothing else of convolab: it starts at once and takes little
memory.
"""

import pickle
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

    from convolab.studies.executor import JobEvent


class EventQueue:
    """A Ray actor that holds events, as bytes that it does not look into, until the driver fetches them.

    >>> queue = EventQueue(); queue.put(b"a trial has started")
    False
    >>> queue.request_stop(); queue.put(b"another")
    True
    >>> queue.drain(), queue.drain()
    ([b'a trial has started', b'another'], [])
    """

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.stop_requested = False

    def put(self, event: bytes) -> bool:
        """Add an event. Returns whether the sender should stop."""
        self.events.append(event)
        return self.stop_requested

    def drain(self) -> list[bytes]:
        """All events since the last call, the oldest first."""
        events, self.events = self.events, []
        return events

    def request_stop(self) -> None:
        """From now on, every sender learns that it should stop."""
        self.stop_requested = True


@dataclass
class EventReceiver:
    """The driver's side of the queue."""

    ray: ModuleType
    event_queue: "ActorHandle[EventQueue]"
    pending_reply: "ObjectRef[list[bytes]] | None" = None  # a late answer: the events in it are nowhere else

    def receive(self, timeout: float) -> "list[JobEvent]":
        """The events in the queue; none if it does not answer within `timeout` seconds."""
        from ray.exceptions import RayError

        if self.pending_reply is None:
            self.pending_reply = self.event_queue.drain.remote()
        reply = self.pending_reply
        if not self.ray.wait([reply], timeout=timeout)[0]:
            return []
        self.pending_reply = None
        with suppress(RayError):  # Ray is restarting the queue, and its events are lost
            return [pickle.loads(event) for event in self.ray.get(reply)]
        return []


def start_event_queue(ray: ModuleType) -> "ActorHandle[EventQueue]":
    """Start a queue on the driver's own node. It lives as long as the driver, and Ray restarts it if it dies."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=on_driver_node)(EventQueue).remote()
