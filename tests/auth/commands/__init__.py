"""Commands, from their call to a device and back."""
