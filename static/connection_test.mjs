import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection } from "./callbox/connection.js";
import { FakeServer, settle, stopClock, tick } from "./testing.mjs";

async function connect(t, options = {}) {
  stopClock(t);
  const server = new FakeServer();
  const connection = new Connection({ url: "ws://h/ws", api: "http://h/api/v1/ice-servers", WebSocket: server.socketFor("ada"), random: () => 0.5, ...options });
  const messages = [];
  const states = [];
  connection.on("message", (message) => messages.push(message));
  connection.on("state", (state) => states.push(state));
  t.after(() => connection.close());
  connection.start();
  await settle();
  return { server, connection, messages, states };
}
const sent = (socket, type) => socket.received.filter((message) => message.type === type);

test("hello is the first message and a token travels as a subprotocol", async (t) => {
  const { server, connection } = await connect(t, { name: "Ada", token: async () => "a.b.c" });
  assert.deepEqual(server.sockets[0].protocols, ["callbox.v1", "token.a.b.c"]);
  assert.deepEqual(server.sockets[0].received[0], { type: "hello", name: "Ada" });
  assert.equal(connection.state, "open");
});

test("messages are acknowledged within a second, and after 32 at once", async (t) => {
  const { server } = await connect(t);
  const [socket] = server.sockets;
  await tick(1000);
  assert.deepEqual(sent(socket, "ack"), [{ type: "ack", seq: 1 }]);
  for (let i = 0; i < 32; i++) server.tell(socket.session, { type: "broadcast", room: "r", from: "x", data: i });
  await settle();
  assert.equal(sent(socket, "ack").at(-1).seq, 33);
});

test("a broken connection resumes, misses nothing and sees nothing twice", async (t) => {
  const { server, connection, messages, states } = await connect(t);
  const [first] = server.sockets;
  const { session } = first;
  server.tell(session, { type: "broadcast", room: "r", from: "x", data: "before" });
  await settle();
  server.drop();
  server.tell(session, { type: "broadcast", room: "r", from: "x", data: "while away" });
  assert.ok(connection.send({ type: "signal", to: "x", data: "also while away" }));
  assert.equal(connection.state, "reconnecting");
  await tick(750);
  const [, second] = server.sockets;
  assert.deepEqual(second.received[0], { type: "hello", resume: { token: session.token, seq: 2 } });
  // What was replayed once comes again, as from a server that is wrong.
  second.text(JSON.stringify({ type: "broadcast", seq: 3, room: "r", from: "x", data: "while away" }));
  await settle();
  assert.deepEqual(messages.filter((m) => m.type === "broadcast").map((m) => m.data), ["before", "while away"]);
  assert.deepEqual(sent(second, "signal"), [{ type: "signal", to: "x", data: "also while away", seq: 1 }]);
  assert.deepEqual(states, ["connecting", "open", "reconnecting", "open"]);
});

test("only what the server has not received is sent again", async (t) => {
  const { server, connection } = await connect(t);
  connection.send({ type: "signal", to: "x", data: 1 });
  connection.send({ type: "signal", to: "x", data: 2 });
  await settle();
  server.drop();
  connection.send({ type: "signal", to: "x", data: 3 });
  await tick(1000);
  assert.deepEqual(sent(server.sockets[1], "signal").map((m) => m.data), [3]);
});

test("a lost session begins anew: numbers start again and requests fail", async (t) => {
  const { server, connection } = await connect(t);
  server.stop();
  const request = connection.request({ type: "join", room: "r" });
  const failed = assert.rejects(request, { code: "session-lost" });
  server.start();
  await tick(1000);
  await failed;
  connection.send({ type: "leave", room: "r" });
  await settle();
  assert.equal(sent(server.sockets.at(-1), "leave")[0].seq, 1);
});

test("requests are answered by id, errors reject with their code", async (t) => {
  const { server, connection } = await connect(t);
  assert.equal((await connection.request({ type: "join", room: "r" })).type, "joined");
  server.refuseJoin = "room-full";
  await assert.rejects(connection.request({ type: "join", room: "q" }), { code: "room-full", name: "CallboxError" });
});

test("the backoff doubles to ten seconds", async (t) => {
  const { server } = await connect(t);
  server.stop();
  const waits = [];
  let waited = 0;
  let seen = server.sockets.length;
  while (waits.length < 7) {
    await tick(250);
    waited += 250;
    if (server.sockets.length === seen) continue;
    seen = server.sockets.length;
    waits.push(waited);
    waited = 0;
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
});

test("the backoff is jittered by half either way", async (t) => {
  for (const [random, due] of [[0, 250], [0.999, 750]]) {
    await t.test(`random ${random}`, async (t) => {
      const { server } = await connect(t, { random: () => random });
      server.drop();
      await tick(due - 1);
      assert.equal(server.sockets.length, 1);
      await tick(2);
      assert.equal(server.sockets.length, 2);
    });
  }
});

test("close codes decide whether it comes back", async (t) => {
  for (const [code, back, reason] of [[4000, false, "protocol"], [4001, false, "unauthorized"], [4002, false, "replaced"], [4003, true], [4004, true], [4005, true], [1011, true]]) {
    await t.test(`${code}`, async (t) => {
      const { server, connection } = await connect(t);
      let closed;
      connection.on("closed", (error) => (closed = error));
      server.sockets[0].end(code);
      await tick(12_000);
      assert.equal(server.sockets.length > 1, back);
      assert.equal(closed?.code, reason);
    });
  }
});

/** A source of tokens, and an API that answers 401 to those that are not good. */
function tokens(...good) {
  const asked = [];
  const token = async () => {
    asked.push(`t${asked.length}`);
    return asked.at(-1);
  };
  const valid = (text) => good[Number(text.slice(1))] ?? false;
  const fetch = async (url, { headers }) =>
    valid(headers.Authorization.slice("Bearer ".length)) ? { status: 200 } : { status: 401, json: async () => ({ error: { message: "it has expired" } }) };
  return { asked, token, fetch };
}

test("a token that has expired is replaced by a fresh one where there is a source of them", async (t) => {
  const { server, connection } = await connect(t, tokens(true, true, true));
  const welcomes = [];
  connection.on("welcome", ({ resumed }) => welcomes.push(resumed));
  for (const token of ["t1", "t2"]) { // as often as it expires
    server.end(4001, "ada");
    await tick(1000);
    assert.equal(connection.state, "open");
    assert.equal(server.sockets.at(-1).protocols[1], `token.${token}`);
  }
  assert.deepEqual(welcomes, [false, false], "the session ended with the token");
});

test("a fresh token that is refused too is the last", async (t) => {
  for (const how of ["by the handshake", "by a close code"]) {
    await t.test(how, async (t) => {
      const { server, connection } = await connect(t, tokens(true));
      let closed;
      connection.on("closed", (error) => (closed = error));
      const session = server.session("ada");
      server.end(4001, "ada");
      server.refuse = how === "by the handshake" ? 1006 : 4001;
      await tick(1000);
      assert.equal(session.socket, null);
      assert.equal(closed?.code, "unauthorized");
      assert.equal(connection.state, "closed");
      await tick(60_000);
      assert.equal(server.sockets.length, 2, "one try with the fresh token");
    });
  }
});

test("a source of tokens that fails or hangs is asked again", async (t) => {
  const answers = [() => Promise.reject(new Error("back end down")), () => new Promise(() => {}), () => "good"];
  const { server, connection } = await connect(t, { token: () => answers.shift()() });
  const logged = [];
  connection.on("log", ({ what, error }) => logged.push([what, error.message]));
  assert.equal(connection.state, "connecting");
  await tick(30_000);
  assert.equal(connection.state, "open");
  assert.deepEqual(server.sockets.map(({ protocols }) => protocols[1]), ["token.good"]);
});

test("a late token is of no use", async (t) => {
  const late = [];
  const { server, connection } = await connect(t, { token: () => new Promise((resolve) => late.push(resolve)) });
  await tick(15_100);
  late[0]("late");
  await tick(100);
  assert.equal(server.sockets.length, 0, "it waits for the backoff to end");
  await tick(1000);
  late[1]("good");
  await settle();
  assert.equal(connection.state, "open");
  assert.deepEqual(server.sockets.map(({ protocols }) => protocols[1]), ["token.good"]);
});

test("a token that no WebSocket can carry ends it with the reason", async (t) => {
  stopClock(t);
  class WebSocket {
    constructor(url, [, token]) {
      throw new SyntaxError(`the subprotocol '${token}' is invalid`);
    }
  }
  const connection = new Connection({ url: "ws://h/ws", api: "http://h/", WebSocket, token: () => ({ token: "a.b.c" }) });
  let closed;
  connection.on("closed", (error) => (closed = error));
  connection.start();
  await settle();
  assert.equal(closed?.code, "refused");
  assert.match(closed.message, /object Object/);
  assert.equal(connection.state, "closed");
});

test("goaway moves the session within its time", async (t) => {
  const { server, connection } = await connect(t);
  server.tell(server.sockets[0].session, { type: "goaway", afterMs: 2000, reason: "drain" }, false);
  await tick(2000);
  assert.equal(server.sockets.length, 2);
  assert.equal(server.sockets[1].received[0].resume.token, server.sockets[0].session.token);
  assert.equal(connection.state, "open");
});

test("goaway and retry at once: the state says that it is not connected", async (t) => {
  const { server, connection, states } = await connect(t);
  server.tell(server.sockets[0].session, { type: "goaway", afterMs: 2000, reason: "drain" }, false);
  await settle();
  connection.retry();
  await settle();
  assert.deepEqual(states, ["connecting", "open", "reconnecting", "open"]);
  await tick(10_000);
  assert.equal(server.sockets.length, 2);
});

test("a connection that has died silently is noticed", async (t) => {
  const { server, connection } = await connect(t);
  const [socket] = server.sockets;
  await tick(20_000);
  assert.equal(sent(socket, "ping").length, 1);
  assert.equal(connection.state, "open", "an answered ping keeps it");
  socket.text = () => {}; // from here on nothing arrives
  await tick(31_000);
  assert.equal(server.sockets.length, 2);
});

test("a refused handshake is asked about, and a refused client stays away", async (t) => {
  const asked = [];
  const fetch = async (url, { headers }) => {
    asked.push([url, headers]);
    return { status: 401, json: async () => ({ error: { code: "bad-token", message: "room token is not valid: it has expired" } }) };
  };
  const { server, connection } = await connect(t, { fetch, token: "old" });
  let closed;
  connection.on("closed", (error) => (closed = error));
  server.stop();
  await tick(5000);
  assert.equal(closed?.code, "unauthorized");
  assert.match(closed.message, /it has expired/);
  assert.deepEqual(asked, [["http://h/api/v1/ice-servers", { Authorization: "Bearer old" }]]);
  const tries = server.sockets.length;
  await tick(30_000);
  assert.equal(server.sockets.length, tries);
});

test("a WebSocket that only says error when it is refused is given up at once", async (t) => {
  stopClock(t);
  let made = 0;
  class WebSocket {
    readyState = 0;
    constructor() {
      made++;
      setImmediate(() => this.onerror({}));
    }
    close() {}
  }
  const connection = new Connection({ url: "ws://h/ws", api: "http://h/", WebSocket, random: () => 0.5 });
  t.after(() => connection.close());
  connection.start();
  await tick(1100);
  assert.equal(made, 2);
});

test("close says bye", async (t) => {
  const { server, connection } = await connect(t);
  let closed;
  connection.on("closed", (error) => (closed = error));
  const [socket] = server.sockets;
  const texts = [];
  socket.send = (text) => texts.push(text);
  connection.close();
  assert.deepEqual(texts, ['{"type":"bye"}']);
  assert.equal(closed.code, "closed");
  assert.equal(connection.send({ type: "leave", room: "r" }), false);
});

test("close from a listener is the end too", async (t) => {
  for (const state of ["connecting", "open", "reconnecting"]) {
    for (const token of [undefined, async () => "good"]) {
      await t.test(`${state} ${token ? "with" : "without"} a source of tokens`, async (t) => {
        stopClock(t);
        const server = new FakeServer();
        const connection = new Connection({ url: "ws://h/ws", api: "http://h/", WebSocket: server.socketFor("ada"), token });
        const welcomes = [];
        connection.on("welcome", (message) => welcomes.push(message));
        connection.on("state", (now) => now === state && connection.close());
        connection.start();
        await tick(100);
        server.drop();
        const [sockets, welcomed] = { connecting: [0, 0], open: [1, 0], reconnecting: [1, 1] }[state];
        await tick(60_000);
        assert.equal(connection.state, "closed");
        assert.equal(server.sockets.length, sockets);
        assert.equal(welcomes.length, welcomed);
      });
    }
  }
});

test("what is no message is passed over", async (t) => {
  const { server, connection, messages } = await connect(t);
  for (const text of ["", "{", "null", "[]", "7", '{"type":7}', '{"seq":2}']) server.sockets[0].text(text);
  await settle();
  assert.deepEqual(messages, []);
  assert.equal(connection.state, "open");
});

test("what waits for a connection is bounded", async (t) => {
  const { server, connection } = await connect(t);
  server.drop();
  let kept = 0;
  while (connection.send({ type: "signal", to: "x", data: kept }) && kept < 5000) kept++;
  assert.equal(kept, 512);
});
