import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "./callbox.js";
import { FakeNetwork, FakeServer, settle, stopClock, tick } from "./testing.mjs";

/** Clients of the given users ("ada", or "ada/her-token") on one server and one network. */
function world(t, ...users) {
  stopClock(t);
  const server = new FakeServer();
  const network = new FakeNetwork();
  const clients = users.map((user) => {
    const [name, token] = user.split("/");
    const client = new Client({
      url: "http://h",
      name: name.toUpperCase(),
      WebSocket: server.socketFor(name),
      RTCPeerConnection: network.RTCPeerConnection,
      MediaStream: undefined,
      fetch: undefined,
      random: () => 0.5,
      token: token && (async () => token),
    });
    client.events = [];
    for (const name of ["peer", "peer-gone", "peer-changed", "path", "chat", "ring", "ring-ended", "room-lost", "closed", "signal"]) {
      client.on(name, (detail) => client.events.push([name, detail]));
    }
    client.on("log", ({ what, error }) => client.events.push(["log", `${what}: ${error.message}`]));
    t.after(() => client.close());
    return client;
  });
  return { server, network, clients };
}

async function join(...clients) {
  for (const client of clients) {
    const joined = client.join("tea");
    await settle();
    await joined;
    await settle();
  }
}

const only = (client) => {
  assert.equal(client.peers.size, 1);
  return [...client.peers.values()][0];
};
const named = (client, name) => client.events.filter(([event]) => event === name).map(([, detail]) => detail);
const offers = (network) => network.all.reduce((sum, pc) => sum + pc.offers, 0);

test("two who join are connected by one offer, whoever came first", async (t) => {
  for (let i = 0; i < 8; i++) { // the instances are random, and decide who offers
    await t.test(`${i}`, async (t) => {
      const { network, clients: [ada, bob] } = world(t, "ada", "bob");
      await join(ada, bob);
      assert.equal(only(ada).state, "connected");
      assert.equal(only(bob).state, "connected");
      assert.equal(only(ada).name, "BOB");
      assert.equal(only(bob).user, "ada");
      assert.equal(offers(network), 1);
      assert.deepEqual(only(ada).pc.getTransceivers().map((x) => x.direction), ["sendrecv", "sendrecv"]);
      assert.deepEqual(only(bob).pc.getTransceivers().map((x) => x.direction), ["sendrecv", "sendrecv"]);
      assert.deepEqual(named(ada, "log").concat(named(bob, "log")), []);
    });
  }
});

test("eight make a full mesh", async (t) => {
  const { network, clients } = world(t, "a", "b", "c", "d", "e", "f", "g", "h");
  const all = Promise.all(clients.map((client) => client.join("tea")));
  await settle();
  await all;
  await tick(100);
  for (const client of clients) {
    assert.equal(client.peers.size, 7);
    for (const peer of client.peers.values()) assert.equal(peer.state, "connected");
  }
  assert.equal(network.all.length, 56);
});

test("tracks are sent to those who are here and to those who come", async (t) => {
  const { clients: [ada, bob, eve] } = world(t, "ada", "bob", "eve");
  await join(ada, bob);
  const microphone = { kind: "audio" };
  const camera = { kind: "video" };
  ada.publish({ audio: microphone, video: camera });
  await settle();
  await join(eve);
  for (const peer of ada.peers.values()) assert.deepEqual(peer.pc.getTransceivers().map((x) => x.sender.track), [microphone, camera]);
  ada.publish({ audio: microphone });
  await settle();
  for (const peer of ada.peers.values()) assert.deepEqual(peer.pc.getTransceivers().map((x) => x.sender.track), [microphone, null]);
  assert.equal(bob.peers.size, 2);
});

test("servers that do not come hold a connection up for three seconds, in however many rooms", async (t) => {
  const { server, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(bob);
  server.mute = "ice-servers";
  await join(ada);
  assert.notEqual(only(bob).state, "connected");
  const second = ada.join("coffee");
  await settle();
  await second;
  await tick(3000);
  assert.equal(only(ada).state, "connected");
  assert.equal(only(bob).state, "connected");
});

test("offers that cross end in one connection", async (t) => {
  const { network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  only(ada).pc.restartIce();
  only(bob).pc.restartIce();
  await tick(100);
  for (const client of [ada, bob]) {
    assert.equal(only(client).pc.signalingState, "stable");
    assert.deepEqual(named(client, "log"), []);
  }
  const [a, b] = [only(ada).pc, only(bob).pc];
  assert.equal(a.remoteUfrag, b.ufrag);
  assert.equal(b.remoteUfrag, a.ufrag);
  assert.equal(network.all.length, 2);
});

test("a restarted server costs a direct call nothing", async (t) => {
  for (let i = 0; i < 8; i++) {
    await t.test(`${i}`, async (t) => {
      const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
      await join(ada, bob);
      await tick(2000);
      const before = [only(ada), only(bob), only(ada).pc, only(bob).pc];
      const [a, b] = [only(ada).id, only(bob).id];
      server.stop();
      await tick(5000);
      assert.equal(ada.state, "reconnecting");
      assert.deepEqual([only(ada), only(bob), only(ada).pc, only(bob).pc], before);
      server.start();
      await tick(15_000);
      assert.deepEqual([only(ada), only(bob), only(ada).pc, only(bob).pc], before);
      assert.notEqual(only(ada).id, a);
      assert.notEqual(only(bob).id, b);
      assert.equal(ada.peers.get(bob.id), only(ada), "it is found by its new id");
      assert.equal(offers(network), 1, "nothing was negotiated again");
      await tick(120_000);
      assert.equal(only(ada).state, "connected", "and nobody is given up later");
      assert.deepEqual(named(ada, "peer-gone"), []);
      assert.equal(named(ada, "peer-changed").length, 1);
    });
  }
});

test("a restarted server's relayed call comes back by one ICE restart", async (t) => {
  for (let i = 0; i < 8; i++) {
    await t.test(`${i}`, async (t) => {
      const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
      network.path = "relay udp";
      await join(ada, bob);
      await tick(2000);
      assert.equal(only(ada).path, "relay udp");
      const pcs = [...network.all];
      server.iceServers = [{ urls: ["turn:192.0.2.2:8080"], username: "2", credential: "d" }];
      server.stop();
      for (const pc of pcs) pc.fail("disconnected");
      await tick(4000);
      server.start();
      await tick(12_000);
      assert.deepEqual(network.all, pcs);
      assert.deepEqual([only(ada).state, only(bob).state], ["connected", "connected"]);
      for (const pc of pcs) assert.deepEqual(pc.configuration.iceServers, server.iceServers);
      assert.ok(offers(network) <= 3, `${offers(network)} offers`);
    });
  }
});

test("servers that nobody asked for renew relays and leave direct connections alone", async (t) => {
  for (const [path, restarts] of [["relay udp", 1], ["relay", 1], ["direct", 0]]) {
    await t.test(path, async (t) => {
      const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
      network.path = path;
      await join(ada, bob);
      await tick(2500);
      const pcs = [...network.all];
      server.iceServers = [{ urls: ["turn:192.0.2.2:8080"], username: "2", credential: "d" }];
      for (const user of ["ada", "bob"]) server.tell(server.session(user), { type: "ice-servers", iceServers: server.iceServers, ttlSeconds: 3600, room: "tea" });
      await tick(2000);
      assert.deepEqual(network.all, pcs);
      assert.deepEqual([only(ada).state, only(bob).state], ["connected", "connected"]);
      for (const pc of pcs) assert.deepEqual(pc.configuration.iceServers, server.iceServers);
      assert.equal(pcs.reduce((sum, pc) => sum + pc.restarts, 0), restarts);
      assert.equal(offers(network), 1 + restarts);
    });
  }
});

test("one who was away too long keeps the connection that still works", async (t) => {
  const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  const peer = only(ada);
  const old = peer.id;
  server.forget("bob");
  await tick(5000);
  assert.equal(only(ada), peer);
  assert.notEqual(peer.id, old);
  assert.equal(peer.state, "connected");
  assert.equal(network.all.length, 2);
});

test("one whose media has stopped too is let go, and welcomed anew", async (t) => {
  const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  for (const pc of network.all) pc.fail();
  server.forget("bob");
  await settle();
  assert.equal(ada.peers.size, 0);
  await tick(5000);
  assert.equal(only(ada).state, "connected");
  assert.equal(only(bob).state, "connected");
  assert.deepEqual(named(bob, "peer-gone"), [], "at the other end it is the same peer all the time");
});

test("one who leaves is gone at once, one who vanishes after a minute", async (t) => {
  const { server, clients: [ada, bob, eve] } = world(t, "ada", "bob", "eve");
  await join(ada, bob, eve);
  bob.close();
  await settle();
  assert.equal(ada.peers.size, 1);
  server.socketFor("eve");
  eve.retry = () => {};
  const socket = server.session("eve").socket;
  server.forget("eve");
  socket.onclose = null; // eve never notices and never comes back
  eve.close();
  await tick(59_000);
  assert.equal(ada.peers.size, 1);
  await tick(2000);
  assert.equal(ada.peers.size, 0);
  assert.equal(named(ada, "peer-gone").length, 2);
});

test("a room that is left while there is no connection is left when it is back", async (t) => {
  for (const [how, away] of [["resumed", (server) => server.drop()], ["lost", (server) => server.stop()]]) {
    await t.test(`the session is ${how}`, async (t) => {
      const { server, clients: [ada, bob] } = world(t, "ada", "bob");
      await join(ada, bob);
      away(server);
      await bob.leave("tea"); // without waiting for the connection
      assert.equal(bob.peers.size, 0);
      server.start();
      await tick(5000);
      assert.equal(bob.state, "open");
      assert.equal(server.session("bob").rooms.size, 0);
      await tick(60_000);
      assert.equal(ada.peers.size, 0);
    });
  }
});

test("nobody takes the place of another user, or of one who is there", async (t) => {
  const { server, clients: [ada, bob, eve] } = world(t, "ada", "bob", "eve");
  await join(ada, bob);
  const peer = only(ada);
  await join(eve);
  const say = (text) => eve.signal(ada.id, { callbox: { ...text, instance: peer.instance } });
  say({ greet: true });
  await settle();
  assert.equal(ada.peers.get(bob.id), peer);
  server.socketFor("bob");
  bob.retry = () => {};
  const socket = server.session("bob").socket;
  socket.onclose = null;
  server.forget("bob");
  await settle();
  say({ greet: true });
  await tick(1000);
  assert.equal(peer.id, bob.id);
  assert.notEqual(ada.peers.get(eve.id), peer);
});

test("iceServers are renewed at half their life and reach every connection", async (t) => {
  const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
  server.ttlSeconds = 600;
  await join(ada, bob);
  server.iceServers = [{ urls: ["turn:192.0.2.9:8080"], username: "new", credential: "e" }];
  await tick(299_000);
  assert.equal(network.all[0].configuration.iceServers[0].username, "1:a.b");
  await tick(2000);
  for (const pc of network.all) assert.equal(pc.configuration.iceServers[0].username, "new");
  assert.equal(offers(network), 1, "that alone needs no negotiation");
});

test("a broken connection is mended by an ICE restart", async (t) => {
  for (const state of ["failed", "disconnected"]) {
    await t.test(state, async (t) => {
      const { network, clients: [ada, bob] } = world(t, "ada", "bob");
      await join(ada, bob);
      for (const pc of network.all) pc.fail(state);
      assert.equal(only(ada).state, "reconnecting");
      await tick(6000);
      assert.equal(only(ada).state, "connected");
      assert.equal(only(bob).state, "connected");
      assert.equal(network.all.length, 2);
    });
  }
});

test("what was said while the server could not be reached is said after", async (t) => {
  const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  server.up = false;
  server.drop();
  for (const pc of network.all) pc.fail();
  await tick(3000);
  server.up = true;
  await tick(15_000);
  assert.equal(only(ada).state, "connected");
  assert.equal(only(bob).state, "connected");
});

test("chat, state and path go over the data channel, and junk there does no harm", async (t) => {
  const { network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  ada.announce({ audio: false, video: true });
  assert.equal(ada.chat("hello"), 1);
  await settle();
  assert.deepEqual(named(bob, "chat").map(({ peer, text }) => [peer.user, text]), [["ada", "hello"]]);
  assert.deepEqual(only(bob).media, { audio: false, video: true });
  const { channel } = only(ada).pc;
  for (const junk of ["", "{", "null", "[]", '{"type":"chat"}', '{"type":"chat","text":7}', '{"type":"path","path":"<b>"}', '{"type":"media"}', `"${"x".repeat(20_000)}"`]) channel.send(junk);
  channel.send(JSON.stringify({ type: "chat", text: "y".repeat(9000) }));
  channel.send(JSON.stringify({ type: "path", path: "relay tls" }));
  await tick(2000);
  const chats = named(bob, "chat");
  assert.equal(chats.length, 2);
  assert.equal(chats[1].text.length, 4000);
  assert.equal(only(bob).path, "relay tls", "the relay that the other end uses carries this end too");
  assert.equal(network.all.length, 2);
});

test("junk in signals does no harm", async (t) => {
  const { clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  for (const junk of [null, 7, "x", [], {}, { callbox: null }, { callbox: 1 }, { callbox: {} }, { callbox: { description: 7 } }, { callbox: { description: { type: "offer" } } }, { callbox: { candidate: 7 } }, { callbox: { greet: true, link: {} } }]) {
    bob.signal(ada.id, junk);
  }
  await tick(3000);
  assert.equal(ada.state, "open");
  bob.signal(ada.id, { mine: true });
  await settle();
  assert.deepEqual(named(ada, "signal").at(-1).data, { mine: true }, "an application's own signals arrive as they are");
  await tick(15_000);
  assert.equal(only(ada).state, "connected");
});

test("a call goes on after the token of one has run out, with a fresh one", async (t) => {
  for (let i = 0; i < 8; i++) {
    await t.test(`${i}`, async (t) => {
      const { server, clients: [ada, bob] } = world(t, "ada", "bob/fresh");
      await join(ada, bob);
      server.end(4001, "bob");
      await tick(10_000);
      assert.equal(bob.state, "open");
      assert.equal(only(ada).state, "connected");
      assert.equal(only(bob).state, "connected");
    });
  }
});

test("signals past the bound: candidates give way to descriptions, and it is told", async (t) => {
  const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  const [peer, back] = [only(ada), only(bob)];
  // Ada's browser takes its time, so that what Bob's says piles up.
  let go;
  const { setRemoteDescription } = peer.pc;
  peer.pc.setRemoteDescription = async function (description) {
    await new Promise((resolve) => (go = resolve));
    return setRemoteDescription.call(this, description);
  };
  const say = (body) => server.tell(server.session("ada"), { type: "signal", from: bob.id, data: { callbox: body } });
  const link = peer.greeting().link;
  const offer = (ufrag) => ({ link, description: { type: "offer", sdp: JSON.stringify({ ufrag, kinds: [] }) } });
  say(offer("first"));
  for (let i = 0; i < 300; i++) say({ link, candidate: { candidate: "first" } });
  say(offer("second"));
  for (let i = 0; i < 300; i++) say({ link, candidate: { candidate: "second" } });
  await settle();
  go();
  await settle();
  go();
  await settle();
  assert.equal(peer.pc.remoteUfrag, "second");
  assert.match(named(ada, "log").join(), /^signal/);
  assert.equal(named(ada, "log").length, 1, "once, not for each");
  assert.equal(back.pc.connectionState, "connected");
});

// Node itself fails a test that leaves a rejection unhandled.
test("a configuration that the browser refuses is told, and the call goes on", async (t) => {
  const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  for (const pc of network.all) {
    pc.setConfiguration = () => {
      throw new Error("no such server");
    };
    pc.fail();
  }
  await tick(6000);
  assert.deepEqual([only(ada).state, only(bob).state], ["connected", "connected"], "ICE restarts with what it has");
  server.tell(server.session("ada"), { type: "ice-servers", iceServers: [], ttlSeconds: 3600, room: "tea" });
  await tick(2000);
  assert.match(String(named(ada, "log")), /ice-servers/);
});

test("a connection that the browser refuses to make is told", async (t) => {
  const { server } = world(t);
  const client = new Client({
    url: "http://h",
    WebSocket: server.socketFor("eve"),
    RTCPeerConnection: class {
      constructor() {
        throw new Error("too many connections");
      }
    },
    fetch: undefined,
  });
  t.after(() => client.close());
  const logged = [];
  client.on("log", ({ what, error }) => logged.push([what, error.message]));
  const joined = client.join("tea");
  await settle();
  await joined;
  const other = new (server.socketFor("gopher"))("ws://h/ws", ["callbox.v1"]);
  await settle();
  other.send(JSON.stringify({ type: "hello" }));
  other.send(JSON.stringify({ type: "join", room: "tea" }));
  await tick(5000);
  assert.deepEqual(logged, [["connection", "too many connections"]]);
});

test("a full room is said so, and a room that is lost later too", async (t) => {
  const { server, clients: [ada] } = world(t, "ada");
  server.refuseJoin = "room-full";
  const refused = assert.rejects(ada.join("tea"), { code: "room-full" });
  await tick(100);
  await refused;
  server.refuseJoin = null;
  await join(ada);
  server.stop();
  server.start();
  server.refuseJoin = "room-full";
  await tick(2000);
  assert.equal(named(ada, "room-lost")[0].error.code, "room-full");
});

test("a client of another make gets an offer and its own are answered", async (t) => {
  const { server, network, clients: [ada] } = world(t, "ada", "bob");
  await join(ada);
  const heard = [];
  const other = new (server.socketFor("gopher"))("ws://h/ws", ["callbox.v1"]);
  other.onmessage = ({ data }) => heard.push(JSON.parse(data));
  await settle();
  other.send(JSON.stringify({ type: "hello" }));
  other.send(JSON.stringify({ type: "join", room: "tea" }));
  await tick(4100);
  const offer = heard.find((m) => m.data?.callbox?.description);
  assert.equal(offer.data.callbox.description.type, "offer");
  const pc = new network.RTCPeerConnection({});
  pc.createDataChannel();
  await pc.setRemoteDescription(offer.data.callbox.description);
  await pc.setLocalDescription();
  other.send(JSON.stringify({ type: "signal", to: ada.id, data: { callbox: { link: offer.data.callbox.link, description: pc.localDescription } } }));
  await settle();
  assert.equal(only(ada).state, "connected");
});

test("calling a user by name", async (t) => {
  const { server, clients: [ada, bob] } = world(t, "ada", "bob");
  const rung = [];
  server.onmessage = (session, message) => {
    const { call = "c1", user, room, id } = message;
    const bobs = server.session("bob");
    const adas = server.session("ada");
    rung.push(message.type);
    switch (message.type) {
      case "call":
        if (user !== "bob") return server.tell(session, { type: "error", code: "unavailable", message: "not connected", id });
        server.tell(bobs, { type: "ring", call, from: { peer: session.peer, user: "ada", name: "ADA" }, room, expiresAt: "2026-01-01T00:00:45Z" });
        return server.tell(session, { type: "calling", call, user, room, id });
      case "accept":
        for (const [to, more] of [[adas, {}], [bobs, { id }]]) server.tell(to, { type: "accepted", call, by: { peer: bobs.peer, user: "bob", name: "BOB" }, room: "tea", ...more });
        return;
      case "decline":
        return server.tell(adas, { type: "declined", call, reason: "declined" });
      case "cancel":
        server.tell(bobs, { type: "ring-ended", call, reason: "cancelled" });
        return server.tell(session, { type: "ring-ended", call, reason: "cancelled", id });
    }
  };
  const both = Promise.all([ada.connect(), bob.connect()]);
  await settle();
  await both;
  const call = async () => {
    const calling = ada.call("bob", "tea");
    await settle();
    return calling;
  };

  const first = await call();
  const ring = named(bob, "ring")[0];
  assert.equal(ring.from.name, "ADA");
  const accepted = ring.accept();
  await settle();
  assert.deepEqual(await accepted, { room: "tea" });
  assert.equal((await first.answer).accepted, true);

  const second = await call();
  named(bob, "ring")[1].decline();
  await settle();
  assert.deepEqual(await second.answer, { accepted: false, reason: "declined", by: undefined });

  const third = await call();
  third.cancel();
  await settle();
  assert.equal((await third.answer).reason, "cancelled");
  assert.deepEqual(named(bob, "ring-ended"), [{ call: "c1", reason: "cancelled" }]);

  const nobody = assert.rejects(ada.call("nobody", "tea"), { code: "unavailable" });
  await settle();
  await nobody;
  assert.deepEqual(rung, ["call", "accept", "call", "decline", "call", "cancel", "call"]);
});

test("a call that is answered in the same breath as it rings", async (t) => {
  const { server, clients: [ada] } = world(t, "ada");
  const connected = ada.connect();
  await settle();
  await connected;
  // Where several frames have come at once, as after a resume, some WebSockets hand them over without a pause.
  server.onmessage = ({ socket }, { user, room, id }) => {
    socket.onmessage({ data: JSON.stringify({ type: "calling", call: "c1", user, room, id }) });
    socket.onmessage({ data: JSON.stringify({ type: "accepted", call: "c1", by: { peer: "p", user, name: "BOB" }, room }) });
  };
  const calling = ada.call("bob", "tea");
  await settle();
  const { answer } = await calling;
  assert.equal((await Promise.race([answer, settle()]))?.accepted, true);
});

test("another name is a new session, and rooms are joined under it", async (t) => {
  const { server, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  bob.rename("Robert");
  await tick(1000);
  assert.equal(server.session("bob").name, "Robert");
  assert.equal(only(ada).name, "Robert");
  assert.equal(only(ada).state, "connected");
});

test("close ends everything and nothing goes on", async (t) => {
  const { server, network, clients: [ada, bob] } = world(t, "ada", "bob");
  await join(ada, bob);
  ada.close();
  assert.equal(ada.state, "closed");
  assert.equal(network.all.filter((pc) => pc.connectionState === "closed").length, 1);
  await settle();
  assert.equal(bob.peers.size, 0);
  const sockets = server.sockets.length;
  await tick(120_000);
  assert.equal(server.sockets.length, sockets);
  await assert.rejects(ada.join("tea"), { code: "closed" });
});

test("the server's address may be given in several ways", async (t) => {
  stopClock(t);
  for (const [url, want] of [["https://h", "wss://h/ws"], ["http://h:8080/", "ws://h:8080/ws"], ["wss://h/ws", "wss://h/ws"], ["wss://h/some/ws", "wss://h/some/ws"]]) {
    const server = new FakeServer();
    const client = new Client({ url, WebSocket: server.socketFor("ada"), RTCPeerConnection: class {}, fetch: undefined });
    client.connect().catch(() => {});
    await settle();
    assert.equal(server.sockets[0].url, want);
    client.close();
  }
});
