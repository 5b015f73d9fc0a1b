# Two stages: the first builds the virtual environment, the second holds nothing but Python and that. It runs as a user
# without rights, on a read-only root, and nothing in it needs a shell; what it writes is in /data (the embedded Valkey,
# unused with REDIS_URL) and, with --workers, in /tmp:
#   docker run --read-only --tmpfs /tmp --volume gateway-data:/data --cap-drop ALL --security-opt no-new-privileges …

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/gateway \
    && pip --python /opt/gateway/bin/python install --no-cache-dir --require-hashes -r requirements.lock \
    && pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/gateway/bin/python install --no-cache-dir --no-deps --compile /dist/*.whl

FROM python:3.12-slim-bookworm
COPY --from=build /opt/gateway /opt/gateway
# A volume takes its owner from the folder it covers, so the folder has to exist before.
RUN mkdir /data && chown 10001:10001 /data
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8080 \
    LOG_FORMAT=json \
    GATEWAY_DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 8080
# /livez and not /readyz: a Redis that is away is no reason to restart the gateway. Over TLS the certificate is for another
# name than the address that is asked here, which is the container's own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; r.urlopen(('https' if os.environ.get('TLS_CERT') else 'http') + '://127.0.0.1:' + os.environ['PORT'] + '/livez', timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["gateway", "serve"]
