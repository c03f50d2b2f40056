# syntax=docker/dockerfile:1
# The gateway: fal's protocol over Triton, without torch. Build it from the repository's root:
#   docker build --file deploy/gateway.Dockerfile --tag lorikeet-gateway .
ARG PYTHON_IMAGE=python:3.12-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements.lock ./
COPY client ./client
RUN python -m venv /opt/lorikeet \
    && /opt/lorikeet/bin/pip install --no-cache-dir --constraint requirements.lock "./client[gateway,s3]" \
    && /opt/lorikeet/bin/pip check

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/lorikeet /opt/lorikeet
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin lorikeet \
    && mkdir -p /var/lib/lorikeet && chown lorikeet:lorikeet /var/lib/lorikeet
ENV PATH=/opt/lorikeet/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LORIKEET_GATEWAY_HOST=0.0.0.0 \
    LORIKEET_GATEWAY_DATA=/var/lib/lorikeet
USER 1000:1000
WORKDIR /var/lib/lorikeet
VOLUME ["/var/lib/lorikeet"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whether the process answers: it also takes requests while Triton is down.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
CMD ["lorikeet", "gateway"]
