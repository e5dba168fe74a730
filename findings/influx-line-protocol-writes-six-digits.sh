#!/usr/bin/env bash
# influx_line_protocol 0.1.5 (PyPI): a float is written with six significant digits.
#
# Line protocol takes 64-bit floats in decimal. The package formats them with C's %g: a meter's 1234567.89 Wh leaves as
# 1.23457e+06, and a latitude of 52.5200066 as 52.52. Nothing is raised, and no server can notice it.
#
# Seen: power total_wh=1.23457e+06,lat=52.52
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check influx_line_protocol==0.1.5 2>/dev/null
line=$("$folder/venv/bin/python" - <<'P'
from influx_line_protocol import Metric

metric = Metric("power")
metric.add_value("total_wh", 1234567.89)
metric.add_value("lat", 52.5200066)
print(metric)
P
)
echo "$line"
[[ $line == "power total_wh=1.23457e+06,lat=52.52" ]]
