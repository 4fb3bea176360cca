# The service on a CPU: requirements/service.txt alone, no TensorFlow, not root, nothing to write to.
#   docker build -t brain-mri .
#   docker run --rm -p 127.0.0.1:8000:8000 -e BRAIN_ALLOW_ANONYMOUS=true brain-mri
# It listens on every address of its container, so without that it wants API keys and does not start.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS builder
COPY requirements/service.txt /build/service.txt
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --quiet --require-hashes -r /build/service.txt
COPY contract /app/contract
COPY service /app/service
RUN python -m compileall -q /app

FROM ${BASE}
LABEL org.opencontainers.image.title="brain-mri" \
      org.opencontainers.image.description="Brain MRI inference service; research software, no medical device" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 brain \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin brain \
 && install -d -o brain -g brain -m 700 /var/lib/brain-mri /var/log/brain-mri
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app
COPY model_store /app/model_store
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BRAIN_HOST=0.0.0.0 \
    BRAIN_PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Docker hands a proxy that its client is configured with to every container: not for this address.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"BRAIN_PORT\"]}/health/ready', timeout=4)"]
CMD ["python", "-m", "service"]
