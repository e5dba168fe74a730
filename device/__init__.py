"""A device of Tidegate: it keeps every reading until the gateway has acknowledged it. See README.md."""

from device.buffer import MAX_READING_BYTES
from device.commands import Command
from device.device import Device
from device.errors import BufferFailed, BufferInUse, DeviceRefused

__all__ = ["MAX_READING_BYTES", "BufferFailed", "BufferInUse", "Command", "Device", "DeviceRefused"]
