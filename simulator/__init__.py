"""Simulated devices: a device client, fleets of devices and CSV replay, using only Tidegate's public interface."""
