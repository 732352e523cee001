# speakup on the CPU, from the sdist: python -m build --sdist && docker build -t speakup .
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY dist/speakup-*.tar.gz /tmp/
RUN python -m venv /opt/speakup \
    && /opt/speakup/bin/pip install --no-cache-dir torch --index-url "$TORCH_INDEX" \
    && /opt/speakup/bin/pip install --no-cache-dir /tmp/speakup-*.tar.gz \
    && cd /opt/speakup/lib/python*/site-packages/torch && rm -r include test

FROM python:${PYTHON}-slim
COPY --from=build /opt/speakup /opt/speakup
# Whoever runs it may fetch models: into /models, which a volume keeps. The bundled ones need none.
RUN mkdir /models && chmod 1777 /models
ENV PATH=/opt/speakup/bin:$PATH HF_HOME=/models HOME=/tmp PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
ENTRYPOINT ["speakup"]
CMD ["--help"]
