"""The version of Tidegate: the only place that states it; `--version`, the wheel and the metrics read it here."""

VERSION = "0.1.0"
