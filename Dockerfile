# One image for all that is ours: reference service, upstream stub, prober, pager, dead-man, load test and checker.
# docker-compose.yml starts it with a command for each. Nothing of the build stays in it: no compiler, no source, and
# no pip for any of its Pythons.

FROM python:3.11.15-slim-bookworm AS build
# For who is behind a mirror of Python packages: docker compose build --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build

# Packages first: they change less often than the source, so a change of that rebuilds in seconds.
COPY requirements/image.txt requirements/image-build.txt requirements/
RUN python -m venv tools \
    && tools/bin/pip install --no-compile --no-deps --require-hashes --requirement requirements/image-build.txt
RUN python -m venv /opt/cmo \
    && /opt/cmo/bin/pip install --no-compile --no-deps --require-hashes --requirement requirements/image.txt

COPY . source
# Compiled here, because whoever runs it may not write there. Tests of packages are a third of them, and pip is done.
RUN tools/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels ./source \
    && /opt/cmo/bin/pip install --no-compile --no-deps --no-index wheels/*.whl \
    && /opt/cmo/bin/pip uninstall --yes --quiet pip \
    && find /opt/cmo/lib -type d -name tests -prune -exec rm -r {} + \
    && /opt/cmo/bin/python -m compileall -q -j 0 /opt/cmo/lib


FROM python:3.11.15-slim-bookworm

# The base brings pip, setuptools and wheel. Whoever gets into a container finds them no more; the layers below still hold
# them, so the image is no smaller for it. Python is asked for the folders, which are others in Debian's own.
RUN python -c "import ensurepip, sysconfig; print(*ensurepip.__path__, sysconfig.get_path('purelib'))" | xargs rm -r \
    && rm -f /usr/local/bin/pip* /usr/local/bin/wheel

# A named volume takes the owner of the folder that it is first mounted over: each of these is such a folder, for the
# user that will write there. 10001 is ours; the others are those of the images of Grafana and VictoriaMetrics.
RUN groupadd --gid 10001 cmo \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/cmo --shell /usr/sbin/nologin cmo \
    && install -d -o 10001 -g 10001 /var/lib/cmo \
    && install -d -o 472 -g 472 -m 0700 /var/lib/grafana-password \
    && install -d -o 65534 -g 65534 /var/lib/victoria-metrics

COPY --from=build /opt/cmo /opt/cmo
ENV PATH=/opt/cmo/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CMO_STATE_DIR=/var/lib/cmo
WORKDIR /var/lib/cmo
USER 10001:10001

# Of the reference service, which is what the image runs when it is told nothing else.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-m", "cmo_stack.answers", "http://127.0.0.1:8000/readyz"]
EXPOSE 8000 9464
CMD ["python", "-m", "cmo_oracle", "--host", "0.0.0.0"]
