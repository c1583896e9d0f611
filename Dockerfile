# Hearth in a container. docs/deployment.md tells how to run it.

FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends clang libclang-dev g++ make pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /hearth
COPY . .
RUN cargo build --locked --profile dist --package hearth

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl libstdc++6 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home hearth && install -d -o hearth -g hearth -m 700 /data
COPY --from=build /hearth/target/dist/hearth /usr/local/bin/hearth
USER hearth
WORKDIR /data
ENV HEARTH_DATA=/data
VOLUME /data
EXPOSE 8008 8448
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8008/ready"]
ENTRYPOINT ["hearth"]
CMD ["serve", "--listen", "0.0.0.0:8008"]
