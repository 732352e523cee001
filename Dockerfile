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
# Models of the Hub are kept in a volume of the user's choice; the bundled ones need none.
ENV PATH=/opt/speakup/bin:$PATH HF_HOME=/models PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
ENTRYPOINT ["speakup"]
CMD ["--help"]
