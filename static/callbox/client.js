import { CallboxError, Connection } from "./connection.js";
import { Emitter } from "./emitter.js";
import { Peer } from "./peer.js";
import { Ringing } from "./ringing.js";

const RETURN = 60_000; // how long the connection to a peer that vanished is kept for its return
const STRANGER = 4000; // after that, a peer that has not greeted is taken for another kind of client
const MEASURE = 2000; // between two looks at the paths
const ICE_WAIT = 3000; // how long a first offer waits for the room's iceServers
const EARLY = { peers: 32, signals: 64 }; // signals that came before their sender's presence

/**
 * What a client lends its peers.
 * @typedef {object} Host
 * @property {string} instance random name of this client, stable over all its sessions
 * @property {string} id own peer id
 * @property {boolean} online whether the server can be reached
 * @property {Promise<void>} ready settled once iceServers are there
 * @property {RTCConfiguration} configuration
 * @property {("audio" | "video")[]} kinds
 * @property {{audio?: MediaStreamTrack | null, video?: MediaStreamTrack | null}} tracks
 * @property {object} media
 * @property {typeof RTCPeerConnection} RTCPeerConnection
 * @property {typeof MediaStream | undefined} MediaStream
 * @property {(peer: Peer, body: object) => void} say
 * @property {(peer: Peer, reply: boolean) => void} greet
 * @property {() => Promise<void>} freshServers
 * @property {(what: string, error: any) => void} log
 */

/**
 * A client of one callbox server: it joins rooms and keeps a media connection to every other member.
 *
 * Events:
 * - "state": "connecting", "open", "reconnecting" or "closed", of the connection with the server
 * - "peer" (Peer), "peer-gone" (Peer), "peer-changed" ({peer, old}: it came back with a new id)
 * - "path" ({peer, path}), "chat" ({peer, text})
 * - "signal" ({from, data}), "broadcast" ({room, from, data}): an application's own messages
 * - "ring" (see Ringing), "ring-ended" ({call, reason})
 * - "room-lost" ({room, error}): it could not be joined again
 * - "log" ({what, error}): faults that were got over; worth showing to developers only
 * - "closed" (CallboxError): it will not come back by itself
 */
export class Client extends Emitter {
  /** @type {Map<string, Peer>} by peer id */
  peers = new Map();
  /** @type {string} own peer id, "" before the first welcome */
  id = "";
  /** @type {string} who the server says this is */
  user = "";
  /** @type {string} own display name */
  name = "";
  /** @type {Record<string, number>} the server's limits */
  limits = {};

  #options;
  #connection;
  #ringing;
  #instance = crypto.randomUUID();
  #rooms = new Map(); // name -> {joined, members: Map(id -> info), version, answer, promise}
  #early = new Map(); // peer id -> bodies
  #ice = { iceServers: [], expires: Infinity };
  #ready = Promise.resolve();
  #tracks = {};
  #media = {};
  #welcome; // deferred: the first welcome
  #timers = new Map();
  #measuring = null;
  #host;

  /**
   * @param {object} [options]
   * @param {string} [options.url] of the server; by default the one this module came from
   * @param {string | (() => string | Promise<string>)} [options.token] room token, or what gives a fresh one
   * @param {string} [options.name] display name
   * @param {RTCIceTransportPolicy} [options.iceTransportPolicy] "relay" keeps the own addresses from the others
   * @param {boolean} [options.audio] whether audio is sent and received; true by default
   * @param {boolean} [options.video] the same for video
   * @param {{iceServers?: RTCIceServer[], ttlSeconds?: number}} [options.ice] to begin with, if already known
   * @param {typeof WebSocket} [options.WebSocket]
   * @param {typeof RTCPeerConnection} [options.RTCPeerConnection]
   * @param {typeof MediaStream} [options.MediaStream]
   * @param {typeof fetch} [options.fetch]
   * @param {() => number} [options.random]
   */
  constructor(options = {}) {
    super();
    const here = globalThis;
    this.name = options.name ?? "";
    this.#options = {
      WebSocket: here.WebSocket,
      RTCPeerConnection: here.RTCPeerConnection,
      MediaStream: here.MediaStream,
      fetch: here.fetch?.bind(here),
      audio: true,
      video: true,
      ...options,
    };
    const { socket, api } = addresses(this.#options.url);
    this.#connection = new Connection({ ...this.#options, url: socket, api });
    this.#connection.on("state", (state) => {
      this.emit("state", state);
    });
    this.#connection.on("welcome", (message) => this.#welcomed(message));
    this.#connection.on("message", (message) => this.#received(message));
    this.#connection.on("closed", (error) => this.#closed(error));
    this.#ringing = new Ringing(this.#connection, (name, detail) => this.emit(name, detail));
    this.#host = this.#makeHost();
    this.#welcome = deferred();
    this.#welcome.promise.catch(() => {}); // those who wait for it hear of it
    if (options.ice) this.#setIce(options.ice);
  }

  /** "idle", "connecting", "open", "reconnecting" or "closed". */
  get state() {
    return this.#connection.state;
  }

  /**
   * Connects, if it has not yet; joining and calling do it by themselves.
   * @returns {Promise<void>} settled at the first welcome
   */
  connect() {
    this.#connection.start();
    return this.#welcome.promise;
  }

  /** Tries again now instead of later; for the moment when the network is known to be back. */
  retry() {
    this.#connection.retry();
  }

  /** Leaves everything at once and for good. */
  close() {
    this.#connection.close();
  }

  /**
   * Takes another display name. It costs a new session, and peers their connections: meant for before joining.
   * @param {string} name
   */
  rename(name) {
    this.name = name;
    this.#connection.renew(name);
  }

  /**
   * Joins a room and stays in it over lost connections and restarted servers, until leave or close.
   * @param {string} room
   * @returns {Promise<{room: string, peers: {peer: string, user: string, name: string}[]}>} the members, oneself included
   */
  async join(room) {
    await this.connect();
    let entry = this.#rooms.get(room);
    if (!entry) {
      entry = { joined: false, members: new Map(), version: 0, ...deferred() };
      entry.promise.catch(() => {}); // it may be rejected when nobody waits for it any more
      this.#rooms.set(room, entry);
      this.#sendJoin(room);
    }
    return entry.promise;
  }

  /** Leaves a room; peers who share no other with us are let go. @param {string} room */
  async leave(room) {
    const entry = this.#rooms.get(room);
    if (!entry) return;
    this.#rooms.delete(room);
    entry.reject(new CallboxError("left", `room ${room}: left`));
    for (const id of entry.members.keys()) this.#departed(id, "left");
    if (this.#connection.state === "open") await this.#connection.request({ type: "leave", room });
  }

  /**
   * Sends this stream's first audio and first video track to every peer from now on, instead of what was sent before.
   * @param {MediaStream | {audio?: MediaStreamTrack | null, video?: MediaStreamTrack | null} | null} source
   */
  publish(source) {
    this.#tracks = source?.getTracks
      ? { audio: source.getAudioTracks()[0], video: source.getVideoTracks()[0] }
      : { audio: source?.audio, video: source?.video };
    for (const peer of this.peers.values()) peer.setTracks();
  }

  /** Tells every peer what the own microphone, camera and screen do. @param {object} media small, JSON */
  announce(media) {
    this.#media = { ...media };
    for (const peer of this.peers.values()) peer.announce();
  }

  /** Sends a chat message to every peer. @param {string} text @returns {number} how many were reached */
  chat(text) {
    let reached = 0;
    for (const peer of this.peers.values()) if (peer.chat(text)) reached++;
    return reached;
  }

  /** Sends an application's own JSON to one peer. @param {string} to @param {any} data @returns {boolean} */
  signal(to, data) {
    return this.#connection.send({ type: "signal", to, data });
  }

  /** Sends an application's own JSON to a room. @param {string} room @param {any} data @returns {boolean} */
  broadcast(room, data) {
    return this.#connection.send({ type: "broadcast", room, data });
  }

  /**
   * Rings a user, wherever that user is connected.
   * @param {string} user @param {string} room where to meet
   * @returns {Promise<import("./ringing.js").Outgoing>} once it rings; rejects with code "unavailable" if nobody is there
   */
  async call(user, room) {
    await this.connect();
    return this.#ringing.call(user, room);
  }

  /** Whether media may go directly ("all") or through a relay only ("relay"); for connections made from now on, and at the next ICE restart. */
  setIceTransportPolicy(policy) {
    this.#options.iceTransportPolicy = policy;
    this.#configure();
  }

  // Messages from the server.

  #welcomed(message) {
    this.id = message.peer;
    this.user = message.user;
    this.name = message.name;
    this.limits = message.limits ?? {};
    if (message.iceServers) this.#setIce(message);
    this.#measuring ??= setInterval(() => this.#measure(), MEASURE);
    if (message.resumed) {
      for (const peer of this.peers.values()) peer.catchUp();
    } else {
      this.#ringing.lost();
      this.#early.clear();
      for (const peer of this.peers.values()) {
        peer.present = false;
        peer.serverLost();
      }
      for (const [room, entry] of this.#rooms) {
        entry.members.clear();
        entry.version = 0;
        this.#sendJoin(room);
      }
    }
    this.#welcome.resolve();
  }

  #received(message) {
    switch (message.type) {
      case "joined":
        return this.#joined(message);
      case "peer-joined":
        return this.#peerJoined(message);
      case "peer-left":
        return this.#peerLeft(message);
      case "room-changed":
        if (this.#rooms.has(message.room)) this.#askIce(message.room);
        return;
      case "signal":
        return this.#signalled(message.from, message.data);
      case "undeliverable":
        return this.#undeliverable(message);
      case "broadcast":
        return this.emit("broadcast", { room: message.room, from: message.from, data: message.data });
      case "error":
        return this.emit("log", { what: "server", error: new CallboxError(message.code, message.message) });
      default:
        return this.#ringing.received(message);
    }
  }

  #closed(error) {
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    clearInterval(this.#measuring);
    for (const peer of [...this.peers.values()]) this.#remove(peer);
    for (const entry of this.#rooms.values()) entry.reject(error);
    this.#rooms.clear();
    this.#welcome.reject(error);
    this.#ringing.lost();
    this.emit("closed", error);
  }

  // Rooms and presence.

  #sendJoin(room) {
    this.#connection.request({ type: "join", room }).catch((error) => {
      const entry = this.#rooms.get(room);
      if (!entry || error.code === "session-lost" || error.code === "not-connected" || error.code === "closed") return;
      if (error.code === "busy" || error.code === "rate-limited") {
        this.#after(`join ${room}`, 1000, () => this.#rooms.has(room) && this.#sendJoin(room));
        return;
      }
      this.#rooms.delete(room);
      entry.reject(error);
      if (entry.joined) this.emit("room-lost", { room, error });
      for (const peer of [...this.peers.values()]) if (!this.#member(peer.id)) this.#remove(peer);
    });
    // The room's relay comes first in the servers for it, and is chosen by the join before.
    const asked = this.#askIce(room);
    this.#ready = Promise.race([asked, new Promise((resolve) => this.#after("ice-wait", ICE_WAIT, resolve))]);
  }

  #joined(message) {
    const entry = this.#rooms.get(message.room);
    if (!entry) return;
    entry.members = new Map(message.peers.filter((info) => info.peer !== message.you).map((info) => [info.peer, info]));
    entry.version = message.version;
    entry.joined = true;
    entry.resolve({ room: message.room, peers: message.peers });
    for (const info of entry.members.values()) this.#meet(info, true);
    for (const peer of [...this.peers.values()]) if (!this.#member(peer.id)) this.#departed(peer.id, "");
  }

  #peerJoined(message) {
    const entry = this.#rooms.get(message.room);
    if (!entry || message.peer.peer === this.id) return;
    entry.version = message.version;
    entry.members.set(message.peer.peer, message.peer);
    this.#meet(message.peer, false);
  }

  #peerLeft(message) {
    const entry = this.#rooms.get(message.room);
    if (!entry || !entry.members.delete(message.peer)) return;
    entry.version = message.version;
    this.#departed(message.peer, message.reason);
  }

  #member(id) {
    for (const { members } of this.#rooms.values()) {
      const info = members.get(id);
      if (info) return info;
    }
    return undefined;
  }

  /** Someone is in a room of ours. The one who comes greets those it finds. */
  #meet(info, greet) {
    const known = this.peers.get(info.peer);
    if (known) {
      this.#clear(`return ${known.id}`);
      known.present = true;
      known.update(info);
    }
    if (greet) this.#greet(info.peer, known, false);
    if (!known) this.#after(`stranger ${info.peer}`, STRANGER, () => this.#stranger(info.peer));
    const early = this.#early.get(info.peer);
    this.#early.delete(info.peer);
    for (const body of early ?? []) this.#said(info.peer, body);
  }

  /** Someone who has not greeted may be a client of another make: it gets an offer. */
  #stranger(id) {
    const info = this.#member(id);
    if (info && !this.peers.has(id)) this.#add(info).start();
  }

  #departed(id, reason) {
    this.#clear(`stranger ${id}`);
    const peer = this.peers.get(id);
    if (!peer || this.#member(id)) return;
    peer.present = false;
    // Media between two browsers goes on without the server: it is kept for the case that the peer comes back.
    if (reason === "left" || (reason === "gone" && peer.state !== "connected")) this.#remove(peer);
    else this.#after(`return ${id}`, RETURN, () => this.#remove(peer));
    peer.emit("state", peer.state);
  }

  #add(info, instance) {
    const peer = new Peer(this.#host, info);
    peer.instance = instance;
    this.peers.set(peer.id, peer);
    peer.on("path", (path) => this.emit("path", { peer, path }));
    peer.on("chat", ({ text }) => this.emit("chat", { peer, text }));
    this.emit("peer", peer);
    return peer;
  }

  #remove(peer) {
    this.#clear(`return ${peer.id}`);
    if (this.peers.get(peer.id) !== peer) return;
    this.peers.delete(peer.id);
    peer.close();
    this.emit("peer-gone", peer);
  }

  // What peers say to each other.

  #signalled(from, data) {
    const body = data?.callbox;
    if (!body || typeof body !== "object") return this.emit("signal", { from, data });
    if (this.#member(from)) return this.#said(from, body);
    // Presence and signals may come over different ways in a cluster.
    const waiting = this.#early.get(from) ?? [];
    if (waiting.length >= EARLY.signals || (waiting.length === 0 && this.#early.size >= EARLY.peers)) return;
    waiting.push(body);
    this.#early.set(from, waiting);
  }

  #said(from, body) {
    this.#clear(`stranger ${from}`);
    const instance = typeof body.instance === "string" ? body.instance.slice(0, 64) : undefined;
    let peer = this.peers.get(from) ?? this.#returned(from, instance);
    peer ??= this.#add(this.#member(from), instance);
    peer.instance ??= instance;
    peer.receive(body);
  }

  /** The peer whom this instance was before it came back with a new id. Only the same user may take that place. */
  #returned(id, instance) {
    if (!instance) return undefined;
    const info = this.#member(id);
    for (const peer of this.peers.values()) {
      if (peer.instance !== instance || peer.user !== info.user || this.#member(peer.id)) continue;
      const old = peer.id;
      this.#clear(`return ${old}`);
      this.peers.delete(old);
      this.peers.set(id, peer);
      peer.present = true;
      peer.update(info);
      this.emit("peer-changed", { peer, old });
      return peer;
    }
    return undefined;
  }

  #greet(id, peer, reply) {
    const greeting = peer?.greeting() ?? { greet: true };
    this.#say(id, reply ? { ...greeting, reply } : greeting);
  }

  #say(to, body) {
    this.#connection.send({ type: "signal", to, data: { callbox: { instance: this.#instance, ...body } } });
  }

  #undeliverable({ to, reason }) {
    const peer = this.peers.get(to);
    // What was lost may have been an offer: it is said again while the peer is still in a room.
    if (reason !== "not-in-room" && this.#member(to)) {
      this.#after(`again ${to}`, 1500, () => {
        if (this.#member(to)) this.#greet(to, peer, false);
      });
    }
  }

  // iceServers and paths.

  async #askIce(room) {
    try {
      this.#setIce(await this.#connection.request({ type: "ice-servers", room }));
    } catch (error) {
      if (error.code === "busy") this.#after("ice", 2000, () => this.#refreshIce());
    }
  }

  async #refreshIce() {
    await this.#askIce([...this.#rooms.keys()].at(-1));
  }

  #setIce({ iceServers, ttlSeconds }) {
    const life = ttlSeconds > 0 ? ttlSeconds * 1000 : Infinity;
    this.#ice = { iceServers: iceServers ?? [], expires: Date.now() + life };
    this.#clear("ice");
    if (life < Infinity) this.#after("ice", Math.min(Math.max(life / 2, 1000), 2 ** 31 - 1), () => this.#refreshIce());
    this.#configure();
  }

  #configure() {
    for (const peer of this.peers.values()) peer.configure();
  }

  #measure() {
    for (const peer of this.peers.values()) peer.measure();
  }

  #makeHost() {
    const client = this;
    const options = this.#options;
    const kinds = ["audio", "video"].filter((kind) => options[kind]);
    return {
      kinds,
      instance: client.#instance,
      RTCPeerConnection: options.RTCPeerConnection,
      MediaStream: options.MediaStream,
      get id() { return client.id; },
      get online() { return client.#connection.state === "open"; },
      get ready() { return client.#ready; },
      get tracks() { return client.#tracks; },
      get media() { return client.#media; },
      get configuration() {
        return { iceServers: client.#ice.iceServers, iceTransportPolicy: options.iceTransportPolicy ?? "all", bundlePolicy: "max-bundle" };
      },
      say: (peer, body) => client.#say(peer.id, body),
      greet: (peer, reply) => client.#greet(peer.id, peer, reply),
      // Credentials that have run out while the machine slept make a restart in vain.
      freshServers: async () => {
        if (Date.now() > client.#ice.expires - 5000) await client.#refreshIce();
      },
      log: (what, error) => client.emit("log", { what, error }),
    };
  }

  #after(name, ms, f) {
    this.#clear(name);
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      f();
    }, ms));
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** The WebSocket and the HTTP address of a server. */
function addresses(given) {
  const socket = new URL(given ?? "/ws", given ? globalThis.location?.href : import.meta.url);
  socket.protocol = socket.protocol.replace(/^http/, "ws");
  if (socket.pathname === "/") socket.pathname = "/ws";
  const api = new URL("/api/v1/ice-servers", socket);
  api.protocol = api.protocol.replace(/^ws/, "http");
  return { socket: socket.href, api: api.href };
}

function deferred() {
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  return result;
}
