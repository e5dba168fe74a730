# One image for every service: `docker run tidegate python -m gateway`. The layers of the packages
# are rebuilt only when the requirements change.
FROM python:3.13-slim AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tidegate
COPY requirements/services.txt requirements/tracing.txt /tmp/requirements/
RUN /opt/tidegate/bin/pip install -r /tmp/requirements/tracing.txt \
    && /opt/tidegate/bin/pip uninstall --yes pip \
    # Only one file of plotly's package is used: the script that the browser gets.
    && find /opt/tidegate/lib -path '*/plotly/package_data/*' ! -name plotly.min.js -type f -delete \
    # Readers write Parquet; clients of Flight and S3, headers and tests are a third of pyarrow's 170 MB.
    && find /opt/tidegate/lib -path '*/pyarrow/*' \( -name '*flight*' -o -name '*s3*' \) -type f -delete \
    && rm -rf /opt/tidegate/lib/python*/site-packages/pyarrow/tests /opt/tidegate/lib/python*/site-packages/pyarrow/include \
    && rm -rf /opt/tidegate/share/jupyter /opt/tidegate/etc/jupyter \
    && find /opt/tidegate -name __pycache__ -type d -prune -exec rm -rf {} + \
    && /opt/tidegate/bin/python -m compileall -q -j 0 /opt/tidegate/lib

# Compiles what every reading passes (docs/decisions/0033). The compiler stays in this stage. Where Debian's
# packages cannot be had there is none: the image then runs the sources, and `tidegate_build_info` says so.
FROM packages AS compiled
COPY requirements/build.txt /tmp/requirements/
RUN python -m pip install --target /opt/compiler -r /tmp/requirements/build.txt \
    && { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
        && { [ -e "$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] \
            || apt-get install -y --no-install-recommends python3-dev; }; \
    } || echo "there is no compiler: the image will run the sources"
WORKDIR /app
COPY pyproject.toml .
COPY requirements/build.txt requirements/
COPY tools/build_fast.py tools/
COPY runtime runtime
COPY readings readings
COPY access access
COPY broker broker
COPY gateway gateway
COPY persister persister
RUN PYTHONPATH=/opt/compiler /opt/tidegate/bin/python tools/build_fast.py --if-possible && mkdir -p build/compiled

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tidegate
COPY --from=packages /opt/tidegate /opt/tidegate
WORKDIR /app
COPY runtime runtime
COPY readings readings
COPY storage storage
COPY access access
COPY broker broker
COPY database database
COPY alarms alarms
COPY auth auth
COPY gateway gateway
COPY persister persister
COPY reader reader
COPY simulator simulator
COPY --from=compiled /app/build/compiled build/compiled
RUN /opt/tidegate/bin/python -m compileall -q .
# Nothing is written at run time: the code is compiled, logs go to standard error, and the root may be read-only.
ENV PATH=/opt/tidegate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LOG_FORMAT=json
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=3s --timeout=3s --retries=5 --start-period=30s CMD ["python", "-I", "-S", "/app/runtime/probe.py"]
CMD ["python", "-c", "raise SystemExit('name a service: python -m alarms, auth, gateway, persister, reader or simulator')"]
