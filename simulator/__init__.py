"""DEVICE: a device client, fleets of simulated devices and CSV replay, over the public interface only."""
