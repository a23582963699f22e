// A client of our API on Node's fetch, or on its http module with an agent that keeps connections:
// `node client.mjs fetch|agent`.

import http from "node:http";

const { POLLS, REST, SECRET, COUNT } = process.env;
const count = Number(COUNT);

class Fetch {
  async send(method, url, headers, body) {
    const response = await fetch(url, { method, headers, body });
    return [response.status, await response.text()];
  }
}

class Agent {
  agent = new http.Agent({ keepAlive: true });
  connections = 0;

  send(method, url, headers, body) {
    return new Promise((resolve, reject) => {
      const request = http.request(url, { agent: this.agent, method, headers }, async (response) => {
        if (!request.reusedSocket) this.connections += 1;
        const pieces = [];
        for await (const piece of response) pieces.push(piece);
        resolve([response.statusCode, Buffer.concat(pieces).toString()]);
      });
      request.on("error", reject);
      request.end(body);
    });
  }
}

const [poller, publisher] = process.argv[2] === "fetch" ? [new Fetch(), new Fetch()] : [new Agent(), new Agent()];

async function call(by, method, url, body) {
  by.calls = (by.calls ?? 0) + 1;
  const headers = { Authorization: `Bearer ${SECRET}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return by.send(method, url, headers, body);
}

async function must(status, by, method, url, body) {
  const [got, text] = await call(by, method, url, body);
  if (got !== status) throw new Error(`${method} ${url}: ${got} ${text}`);
}

const event = (number) => {
  const payload = Buffer.from(String(number)).toString("base64");
  const data = { ep: "sensor-1", path: "/3303/0/5700", ct: "text/plain", payload };
  return JSON.stringify([{ topic: "device.notifications", data }]);
};

async function publishAll() {
  for (let number = 0; number < count; number += 1) {
    await must(202, publisher, "POST", `${REST}/v1/events`, event(number));
  }
}

const numbers = [];
async function pollAll() {
  while (numbers.length < count) {
    const [status, text] = await call(poller, "GET", `${POLLS}/v2/notification/pull`);
    if (status !== 200 && status !== 204) throw new Error(`a poll: ${status} ${text}`);
    if (status === 204) continue;
    for (const { payload } of JSON.parse(text).notifications) numbers.push(Number(Buffer.from(payload, "base64")));
  }
}

const nothingWaits = `${POLLS}/v2/notification/pull?noWait=true`;
await must(204, poller, "GET", nothingWaits);
await must(204, publisher, "PUT", `${REST}/v2/subscriptions`, '[{"endpoint-name": "sensor-1"}]');
await Promise.all([publishAll(), pollAll()]);
await must(204, poller, "GET", nothingWaits);
console.log(
  JSON.stringify({
    numbers,
    poll_calls: poller.calls,
    poll_connections: poller.connections ?? null,
    publish_calls: publisher.calls,
    publish_connections: publisher.connections ?? null,
  }),
);
process.exit(0);
