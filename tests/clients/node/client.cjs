// One WebSocket client of npm, driven by JSON lines on stdin; it tells on stdout what happens to it.

const readline = require("node:readline");

const tell = (happening) => process.stdout.write(JSON.stringify(happening) + "\n");
const closed = (code) => tell({ closed: code });
const failed = (fault) => tell({ failed: String((fault && fault.message) || fault) });

// Each opens a socket and gives what the tests do with it.
const libraries = {
  ws({ url, subprotocols, headers }) {
    const { WebSocket } = require("ws");
    const socket = new WebSocket(url, subprotocols, { headers });
    socket.on("open", () => tell({ opened: socket.protocol || null }));
    socket.on("message", (data) => tell({ message: data.toString() }));
    socket.on("pong", (data) => tell({ pong: data.toString() }));
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
      tell({ opened: connection.protocol || null });
      connection.on("message", (message) => tell({ message: message.utf8Data }));
      connection.on("pong", (data) => tell({ pong: data.toString() }));
      connection.on("close", closed);
      connection.on("error", failed);
    });
    client.connect(url, subprotocols, undefined, headers);
    return { ping: (text) => socket.ping(text), close: () => socket.close(1000) };
  },

  // The same package in the form that browsers have.
  w3c({ url, subprotocols, headers }) {
    const { w3cwebsocket: Socket } = require("websocket");
    const socket = new Socket(url, subprotocols, undefined, headers);
    socket.onopen = () => tell({ opened: socket.protocol || null });
    socket.onmessage = (event) => tell({ message: event.data });
    socket.onclose = (event) => closed(event.code);
    socket.onerror = () => failed("the handshake failed");
    return { close: () => socket.close(1000) };
  },
};

let socket;
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  if (order.open) socket = libraries[process.argv[2]](order.open);
  else if (order.ping) socket.ping(order.ping);
  else if (order.close) socket.close();
});
