// What the tests of the client share: a server of callbox.v1 in a few lines, RTCPeerConnections without media, and a clock
// that stands still until it is told to go on.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto; // older Node has it under another name only

/** The clock of the test that runs now. */
const clock = { now: 0, timers: new Map(), last: 0 };

/** Stops the clock for one test; tick lets it go on. */
export function stopClock(t) {
  const real = { setTimeout, clearTimeout, setInterval, clearInterval, now: Date.now };
  Object.assign(clock, { now: 1_000_000, timers: new Map(), last: 0 });
  const set = (every) => (f, ms = 0) => {
    const id = ++clock.last;
    clock.timers.set(id, { f, due: clock.now + Math.max(ms, 1), every: every ? Math.max(ms, 1) : 0 });
    return id;
  };
  const clear = (id) => void clock.timers.delete(id);
  Object.assign(globalThis, { setTimeout: set(false), setInterval: set(true), clearTimeout: clear, clearInterval: clear });
  Date.now = () => clock.now;
  t.after(() => {
    const { now, ...timers } = real;
    Object.assign(globalThis, timers);
    Date.now = now;
  });
}

/** Lets promises and deliveries that are under way come to rest. */
export async function settle() {
  for (let i = 0; i < 60; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Lets so many milliseconds go by, each timer in its turn with all that follows from it. */
export async function tick(ms) {
  await settle();
  const end = clock.now + ms;
  for (;;) {
    const [id, next] = [...clock.timers].sort(([, a], [, b]) => a.due - b.due)[0] ?? [];
    if (!next || next.due > end) break;
    clock.now = next.due;
    if (next.every) next.due += next.every;
    else clock.timers.delete(id);
    next.f();
    await settle();
  }
  clock.now = end;
  await settle();
}

/** A server that can lose connections, forget sessions and refuse to answer. */
export class FakeServer {
  up = true;
  iceServers = [{ urls: ["turn:192.0.2.1:8080?transport=udp"], username: "1:a.b", credential: "c" }];
  ttlSeconds = 3600;
  sockets = []; // every WebSocket there has been
  refuse = 0; // the close code of every new connection, before its welcome
  refuseJoin = null; // an error code
  mute = ""; // the type of message that gets no answer

  #sessions = new Map(); // resume token -> session
  #count = 0;
  #incarnation = 1;
  #version = 0;

  /** The constructor that clients of a user are given. */
  socketFor(user) {
    const server = this;
    return class {
      readyState = 0;
      received = []; // by the server

      constructor(url, protocols) {
        Object.assign(this, { url, protocols, user });
        server.sockets.push(this);
        setImmediate(() => {
          if (this.readyState !== 0) return;
          if (!server.up || server.refuse) return this.end(server.refuse || 1006);
          this.readyState = 1;
          this.onopen?.({});
        });
      }

      send(text) {
        if (this.readyState !== 1) return;
        const message = JSON.parse(text);
        setImmediate(() => {
          if (this.readyState === 3) return;
          this.received.push(message);
          server.handle(this, message);
        });
      }

      close(code) {
        if (this.readyState >= 2) return;
        this.readyState = 2;
        setImmediate(() => this.end(code ?? 1005));
      }

      end(code) {
        if (this.readyState === 3) return;
        this.readyState = 3;
        if (this.session?.socket === this) this.session.socket = null;
        this.onclose?.({ code });
      }

      text(text) {
        setImmediate(() => this.readyState === 1 && this.onmessage?.({ data: text }));
      }
    };
  }

  /** Connections break; sessions are held. */
  drop(which = () => true) {
    for (const socket of this.sockets) if (which(socket)) socket.end(1006);
  }

  /** A user's connections are closed with a code, and the sessions with them: what a token's end does. */
  end(code, user) {
    for (const [token, session] of this.#sessions) {
      if (session.user !== user) continue;
      this.#sessions.delete(token);
      for (const room of [...session.rooms]) this.#leave(session, room, "left");
      session.socket?.end(code);
    }
  }

  /** The process ends, and nothing is left of its sessions. */
  stop() {
    this.up = false;
    this.#sessions.clear();
    this.#incarnation++;
    this.drop();
  }

  start() {
    this.up = true;
  }

  /** A session whose client has not come back in time. */
  forget(user) {
    for (const [token, session] of this.#sessions) {
      if (session.user !== user) continue;
      this.#sessions.delete(token);
      for (const room of [...session.rooms]) this.#leave(session, room, "gone");
      session.socket?.end(1006);
    }
  }

  session(user) {
    return [...this.#sessions.values()].find((session) => session.user === user);
  }

  tell(session, message, numbered = true) {
    if (numbered) {
      message = { ...message, seq: ++session.seq };
      session.kept.push(message);
    }
    session.socket?.text(JSON.stringify(message));
  }

  handle(socket, message) {
    if (message.type === "hello") return this.#hello(socket, message);
    const { session } = socket;
    if (!session) return;
    if (message.seq !== undefined && message.type !== "ack") {
      if (message.seq <= session.received) return;
      if (message.seq !== session.received + 1) {
        return this.tell(session, { type: "error", code: "bad-field", field: "seq", message: "a gap", id: message.id });
      }
      session.received = message.seq;
    }
    const { id, room } = message;
    if (message.type === this.mute) return;
    switch (message.type) {
      case "ack":
        session.kept = session.kept.filter((kept) => kept.seq > message.seq);
        return;
      case "ping":
        return this.tell(session, { type: "pong", received: session.received }, false);
      case "bye":
        this.#sessions.delete(session.token);
        for (const left of [...session.rooms]) this.#leave(session, left, "left");
        return socket.end(1000);
      case "join":
        if (this.refuseJoin) return this.tell(session, { type: "error", code: this.refuseJoin, message: "refused", id });
        return this.#join(session, room, id);
      case "leave":
        this.#leave(session, room, "left");
        return this.tell(session, { type: "left", room, id });
      case "ice-servers":
        return this.tell(session, { type: "ice-servers", ...this.#ice(), room, id });
      case "signal": {
        const to = [...this.#sessions.values()].find((other) => other.peer === message.to);
        if (!to) return this.tell(session, { type: "undeliverable", to: message.to, reason: "gone", id });
        return this.tell(to, { type: "signal", from: session.peer, data: message.data });
      }
    }
    this.onmessage?.(session, message);
  }

  #ice() {
    return { iceServers: this.iceServers, ttlSeconds: this.ttlSeconds };
  }

  #info({ peer, user, name }) {
    return { peer, user, name };
  }

  #hello(socket, { resume, name }) {
    let session = this.#sessions.get(resume?.token);
    const resumed = Boolean(session);
    if (!session) {
      // Later peers sort before earlier ones in every second incarnation, so that nothing can depend on the order.
      const number = String(++this.#count).padStart(3, "0");
      const peer = this.#incarnation % 2 ? `p${number}` : `n${String(999 - this.#count)}`;
      session = { token: `t${number}`, peer, user: socket.user, name: name ?? socket.user, seq: 0, received: 0, kept: [], rooms: new Set() };
      this.#sessions.set(session.token, session);
    }
    session.socket = socket;
    socket.session = session;
    const welcome = { type: "welcome", ...this.#info(session), resume: session.token, resumed, received: session.received, limits: {}, ...this.#ice() };
    if (!resumed) return this.tell(session, welcome);
    this.tell(session, welcome, false);
    for (const kept of session.kept) if (kept.seq > resume.seq) socket.text(JSON.stringify(kept));
  }

  #members(room) {
    return [...this.#sessions.values()].filter((session) => session.rooms.has(room));
  }

  #join(session, room, id) {
    const fresh = !session.rooms.has(room);
    session.rooms.add(room);
    const version = ++this.#version;
    for (const other of this.#members(room)) {
      if (fresh && other !== session) this.tell(other, { type: "peer-joined", room, version, peer: this.#info(session) });
    }
    this.tell(session, { type: "joined", room, version, peers: this.#members(room).map(this.#info), you: session.peer, id });
  }

  #leave(session, room, reason) {
    if (!session.rooms.delete(room)) return;
    const version = ++this.#version;
    for (const other of this.#members(room)) this.tell(other, { type: "peer-left", room, version, peer: session.peer, reason });
  }
}

/** RTCPeerConnections that connect by nothing but their descriptions. */
export class FakeNetwork {
  all = []; // every RTCPeerConnection there has been
  path = "direct"; // what getStats says from then on
  #ufrags = 0;

  get RTCPeerConnection() {
    const network = this;
    return class RTCPeerConnection {
      signalingState = "stable";
      connectionState = "new";
      localDescription = null;
      remoteDescription = null;
      restarts = 0;
      offers = 0;
      #transceivers = [];
      #needed = false;
      #restart = false;
      #chain = Promise.resolve();

      constructor(configuration) {
        this.configuration = configuration;
        network.all.push(this);
      }

      setConfiguration(configuration) {
        this.configuration = configuration;
      }

      addTransceiver(kind, { direction }) {
        return this.#transceiver(kind, direction);
      }

      getTransceivers() {
        return [...this.#transceivers];
      }

      getReceivers() {
        return this.#transceivers.map((t) => t.receiver);
      }

      createDataChannel() {
        this.channel = { readyState: "connecting", sent: [], close: () => (this.channel.readyState = "closed") };
        this.channel.send = (text) => {
          this.channel.sent.push(text);
          const other = network.all.find((pc) => pc.ufrag && pc.ufrag === this.remoteUfrag && pc.connectionState !== "closed");
          setImmediate(() => other?.channel.onmessage?.({ data: text }));
        };
        return this.channel;
      }

      restartIce() {
        this.restarts++;
        this.#restart = true;
        this.need();
      }

      need() {
        if (this.#needed) return;
        this.#needed = true;
        setImmediate(() => this.#fire());
      }

      #fire() {
        if (!this.#needed || this.signalingState !== "stable") return;
        this.#needed = false;
        this.onnegotiationneeded?.({});
      }

      setLocalDescription() {
        return this.#then(() => {
          const type = this.signalingState === "have-remote-offer" ? "answer" : "offer";
          if (type === "offer") this.offers++;
          if (!this.ufrag || (type === "offer" && this.#restart)) this.ufrag = `u${++network.#ufrags}`;
          this.#restart = false;
          this.#needed = false;
          this.localDescription = { type, sdp: JSON.stringify({ ufrag: this.ufrag, kinds: this.#transceivers.map((t) => t.receiver.track.kind) }) };
          this.signalingState = type === "offer" ? "have-local-offer" : "stable";
          setImmediate(() => this.onicecandidate?.({ candidate: { candidate: this.ufrag } }));
          this.#settled();
        });
      }

      setRemoteDescription({ type, sdp }) {
        return this.#then(() => {
          if (type === "answer" && this.signalingState !== "have-local-offer") throw new Error(`answer in ${this.signalingState}`);
          if (type === "offer" && this.signalingState === "have-local-offer") this.#needed = true; // rolled back
          const { ufrag, kinds } = JSON.parse(sdp);
          this.remoteDescription = { type, sdp };
          this.remoteUfrag = ufrag;
          for (const kind of kinds) {
            if (!this.#transceivers.some((t) => t.receiver.track.kind === kind)) this.#transceiver(kind, "recvonly");
          }
          this.signalingState = type === "offer" ? "have-remote-offer" : "stable";
          this.#settled();
        });
      }

      async addIceCandidate(candidate) {
        if (!this.remoteDescription) throw new Error("candidate before a description");
        if (candidate.candidate !== this.remoteUfrag) throw new Error("candidate of another generation");
      }

      async getStats() {
        const connected = this.connectionState === "connected";
        const [type, protocol] = network.path.split(" ");
        return new Map([
          ["T", { type: "transport", selectedCandidatePairId: connected ? "P" : undefined }],
          ["P", { type: "candidate-pair", localCandidateId: "L", remoteCandidateId: "R" }],
          ["L", { candidateType: type === "relay" ? "relay" : "host", relayProtocol: protocol }],
          ["R", { candidateType: "host" }],
        ]);
      }

      close() {
        this.signalingState = this.connectionState = "closed";
      }

      /** The way to the other end breaks. */
      fail(state = "failed") {
        this.connectionState = state;
        this.brokenAt = this.ufrag;
        this.onconnectionstatechange?.({});
      }

      #transceiver(kind, direction) {
        const sender = { track: null, replaceTrack: async (track) => void (sender.track = track) };
        const transceiver = { direction, sender, receiver: { track: { kind } } };
        this.#transceivers.push(transceiver);
        if (direction === "sendrecv") this.need();
        return transceiver;
      }

      #settled() {
        if (this.signalingState === "stable" && this.#needed) setImmediate(() => this.#fire());
        for (const pc of network.all) {
          const other = network.all.find((o) => o !== pc && o.ufrag && o.ufrag === pc.remoteUfrag && o.remoteUfrag === pc.ufrag);
          if (!other || pc.connectionState === "closed" || other.connectionState === "closed") continue;
          if (pc.signalingState !== "stable" || other.signalingState !== "stable") continue;
          if (pc.connectionState === "connected" || pc.brokenAt === pc.ufrag) continue;
          pc.connectionState = "connected";
          setImmediate(() => {
            pc.onconnectionstatechange?.({});
            if (pc.channel.readyState !== "connecting") return;
            pc.channel.readyState = "open";
            pc.channel.onopen?.({});
          });
        }
      }

      #then(step) {
        const done = this.#chain.then(() => new Promise((resolve) => setImmediate(resolve))).then(() => {
          if (this.connectionState === "closed") throw new Error("closed");
          return step();
        });
        this.#chain = done.catch(() => {});
        return done;
      }
    };
  }
}
