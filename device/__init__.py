"""A device of Tidegate: it keeps every reading until the gateway has acknowledged it. See README.md."""

from device.commands import Command
from device.device import Device
from device.errors import BufferFailed, BufferInUse, DeviceRefused
from device.reading import MAX_READING_BYTES

__all__ = ["MAX_READING_BYTES", "BufferFailed", "BufferInUse", "Command", "Device", "DeviceRefused"]
