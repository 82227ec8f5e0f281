# Wherry with the examples: docker build -t wherry .
# Your own image: the same with your application in place of examples/; see docs/deployment.md.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check '.[uvloop,metrics]' \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin wherry
COPY --from=build /venv /venv
WORKDIR /app
COPY examples examples
# No embedded store: a container that is not told where Redis is ends with exit code 2.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 WHERRY_EMBEDDED=0
USER 10001
STOPSIGNAL SIGTERM
# Exec form: no shell stands between SIGTERM and Python.
ENTRYPOINT ["wherry"]
CMD ["--help"]
