// One WebSocket client of npm or of Node itself: commands are JSON lines on stdin, events JSON lines on stdout.

const readline = require("node:readline");

const report = (event) => process.stdout.write(JSON.stringify(event) + "\n");
const closed = (code) => report({ closed: code });
const failed = (error) => report({ failed: String((error && error.message) || error) });

// Each opens a socket and returns its operations.
const libraries = {
  ws({ url, subprotocols, headers }) {
    const { WebSocket } = require("ws");
    const socket = new WebSocket(url, subprotocols, { headers });
    socket.on("open", () => report({ opened: socket.protocol || null }));
    socket.on("message", (data) => report({ message: data.toString() }));
    socket.on("pong", (data) => report({ pong: data.toString() }));
    socket.on("close", closed);
    socket.on("error", failed);
    return { ping: (text) => socket.ping(text), close: () => socket.close(1000) };
  },

  websocket({ url, subprotocols, headers }) {
    const { client: Client } = require("websocket");
    const client = new Client();
    let socket;
    client.on("connectFailed", failed);
    client.on("connect", (connection) => {
      socket = connection;
      report({ opened: connection.protocol || null });
      connection.on("message", (message) => report({ message: message.utf8Data }));
      connection.on("pong", (data) => report({ pong: data.toString() }));
      connection.on("close", closed);
      connection.on("error", failed);
    });
    client.connect(url, subprotocols, undefined, headers);
    return { ping: (text) => socket.ping(text), close: () => socket.close(1000) };
  },

  // The same package with the browsers' interface.
  w3c({ url, subprotocols, headers }) {
    const { w3cwebsocket: Socket } = require("websocket");
    const socket = new Socket(url, subprotocols, undefined, headers);
    socket.onopen = () => report({ opened: socket.protocol || null });
    socket.onmessage = (event) => report({ message: event.data });
    socket.onclose = (event) => closed(event.code);
    socket.onerror = () => failed("the handshake failed");
    return { close: () => socket.close(1000) };
  },

  // Node's own. The headers are an addition to the browsers' interface.
  native({ url, subprotocols, headers }) {
    const socket = new WebSocket(url, { protocols: subprotocols, headers });
    socket.onopen = () => report({ opened: socket.protocol || null });
    socket.onmessage = (event) => report({ message: event.data });
    socket.onclose = (event) => closed(event.code);
    socket.onerror = () => failed("the socket failed");
    return { close: () => socket.close(1000) };
  },
};

let socket;
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  if (command.open) socket = libraries[process.argv[2]](command.open);
  else if (command.ping) socket.ping(command.ping);
  else if (command.close) socket.close();
});
