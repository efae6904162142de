"""System V interprocess communication (sysvipc(7)): its three kinds of object put their calls into the table."""

from virtus.personalities.linux import message_queues, semaphores, shared_memory

__all__ = ["message_queues", "semaphores", "shared_memory"]
