// Node's http, https and http2 servers as receivers of webhooks: `node receiver.mjs CERT KEY`.

import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import { setTimeout as pause } from "node:timers/promises";
import { gzipSync } from "node:zlib";

const LIMIT_BYTES = 100_000;
const report = (event) => process.stdout.write(JSON.stringify(event) + "\n");
const redirected = new Set();

function record(request, status, body) {
  report({
    path: request.url,
    status,
    body,
    version: `HTTP/${request.httpVersion}`,
    headers: request.headers,
    peer: `${request.socket.remoteAddress}:${request.socket.remotePort}`,
    length: Number(request.headers["content-length"]),
  });
}

// As Express' body parser does: a declared length is refused before the body is read.
async function bodyOf(request, limit) {
  if (Number(request.headers["content-length"]) > limit) return null;
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

// True for the first request behind the test request.
function redirection(behaviour, path, body) {
  const code = /^redirect-(\d+)$/.exec(behaviour);
  if (code === null || body === "{}" || redirected.has(path)) return null;
  redirected.add(path);
  return Number(code[1]);
}

async function inPieces(response, count, piece, ms) {
  for (let n = 0; n < count; n += 1) {
    response.write(piece);
    await pause(ms);
  }
  response.end();
}

const responses = {
  "no-content": (response) => response.writeHead(204).end(),
  // Dropped by Node.
  "no-content-with-body": (response) => response.writeHead(204).end("ok"),
  close: (response) => response.setHeader("Connection", "close").end("ok"),
  "close-unannounced"(response) {
    // The response has lost its socket when it has finished.
    const { socket } = response;
    response.end("ok", () => socket.end());
  },
  gzip: (response) => response.setHeader("Content-Encoding", "gzip").end(gzipSync("ok".repeat(100))),
  chunked: (response) => inPieces(response, 3, "ok", 0),
  "long-body": (response) => response.end("long".repeat(250_000)),
  async slow(response) {
    await pause(150);
    await inPieces(response, 3, "slow", 20);
  },
  "early-hints"(response) {
    response.writeEarlyHints({ link: "</style.css>; rel=preload" });
    response.writeProcessing();
    response.end();
  },
  "continue-unasked"(response) {
    response.writeContinue();
    response.end();
  },
  trailers(response) {
    response.setHeader("Trailer", "X-Sum");
    response.write("ok");
    response.addTrailers({ "X-Sum": "1" });
    response.end();
  },
};

async function take(request, response) {
  const behaviour = request.url.split("/")[1];
  const { socket } = request;
  socket.requests = (socket.requests ?? 0) + 1;
  if (behaviour === "drops-reused" && socket.requests > 1) return socket.destroy();
  if (behaviour === "early") {
    record(request, 200, null);
    return response.end();
  }
  const body = await bodyOf(request, behaviour === "limit" ? LIMIT_BYTES : Infinity);
  const status = body === null ? 413 : (redirection(behaviour, request.url, body) ?? 200);
  record(request, status === 200 && behaviour.startsWith("no-content") ? 204 : status, body);
  if (status === 413) return response.writeHead(413).end("too large");
  if (status !== 200) return response.writeHead(status, { Location: `/elsewhere${request.url}` }).end();
  return responses[behaviour] ? responses[behaviour](response) : response.end("ok");
}

const tls = { cert: readFileSync(process.argv[2]), key: readFileSync(process.argv[3]) };
const servers = {
  http: http.createServer(take),
  https: https.createServer(tls, take),
  // It offers HTTP/2, and HTTP/1.1.
  h2: http2.createSecureServer({ ...tls, allowHTTP1: true }, take),
  brief: http.createServer({ keepAliveTimeout: 1 }, take),
};
const ports = {};
for (const [name, server] of Object.entries(servers)) {
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  ports[name] = server.address().port;
}
report({ ports });
